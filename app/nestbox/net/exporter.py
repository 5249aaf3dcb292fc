"""The channel binding ``tls-exporter`` (RFC 9266), which TLS 1.3 has in place of ``tls-unique``.

Python's ssl exports no keying material, but lets OpenSSL log the secret that it comes from. The log is a file in memory
that has no name and is emptied after each step of a handshake, so that what it holds is of that connection.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import ssl
import struct
from functools import cache

__all__ = ["HASHES", "exporter", "log_secrets", "logged_secret"]

RFCS = ("RFC 9266",)

HASHES = {32: "sha256", 48: "sha384"}  # the hashes of the cipher suites of TLS 1.3, by the bytes they have
_LABEL = b"EXPORTER-Channel-Binding"
_LINE = b"EXPORTER_SECRET "
_MOST = 16 * 1024  # bytes; a handshake logs about one thousand


@cache
def _log() -> int:
    return os.memfd_create("tls-secrets", os.MFD_CLOEXEC)


def log_secrets(context: ssl.SSLContext) -> None:
    """Let the connections of a context log their secrets. Raises OSError."""
    context.keylog_filename = f"/proc/self/fd/{_log()}"


def logged_secret() -> bytes:
    """The exporter secret that was logged since the last call, b"" for none; the log is empty then."""
    data = os.pread(_log(), _MOST, 0)
    if not data:
        return b""
    os.ftruncate(_log(), 0)
    for line in data.splitlines():
        if line.startswith(_LINE):
            return bytes.fromhex(line.rpartition(b" ")[2].decode())
    return b""


def exporter(secret: bytes) -> bytes:
    """The binding's data, 32 bytes, from a connection's exporter_master_secret (RFC 8446, section 7.5; RFC 9266, 2).

    Raises KeyError for what has the size of no such secret.
    """
    digest = HASHES[len(secret)]
    nothing = hashlib.new(digest).digest()
    derived = _expand(digest, secret, _LABEL, nothing, len(secret))
    return _expand(digest, derived, b"exporter", nothing, 32)


def _expand(digest: str, secret: bytes, label: bytes, context: bytes, size: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446, section 7.1) of at most one block."""
    label = b"tls13 " + label
    info = struct.pack("!HB", size, len(label)) + label + struct.pack("!B", len(context)) + context
    return hmac.digest(secret, info + b"\x01", digest)[:size]

"""TLS inside a worker, for STARTTLS: the certificate, and the codec between plain bytes and records.

asyncio's own TLS holds 278 KB per connection, most of it one read buffer; OpenSSL over memory BIOs needs a tenth.
"""

from __future__ import annotations

import contextlib
import hashlib
import ssl
from pathlib import Path

from asn1crypto import pem as asn1_pem
from asn1crypto import x509

from nestbox.net.exporter import exporter, log_secrets, logged_secret
from nestbox.protocol.scram import ENDPOINT, EXPORTER, UNIQUE

__all__ = ["TlsCodec", "TlsContext", "TlsError", "certificate_hash"]

RFCS = ("RFC 7590",)

# Of TLS 1.2, what Mozilla's guideline 6.0 (intermediate) has: ephemeral keys and authenticated encryption only. The
# suites of 1.3 are all fine; their order and the groups Python can set from 3.15 on (role im_server: OPENSSL_CONF).
_AES = "ECDHE+AESGCM"
_CHACHA = "ECDHE+CHACHA20"
# A memory BIO keeps the size it once had, so it is filled and emptied in small steps.
_STEP = 4096
# Read into by every connection in turn: nothing is kept here between calls.
_scratch = bytearray(16 * 1024)
_view = memoryview(_scratch)
# Connections have it after the handshake: a client that changes its keys (RFC 8446, section 4.6.3) would fill the log.
_quiet = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


class TlsError(Exception):
    """The certificate or its key cannot be used; the message says why, in one sentence."""


def certificate_hash(pem: bytes) -> bytes:
    """The data of the ``tls-server-end-point`` channel binding (RFC 5929, section 4.1) for the first certificate.

    It is hashed with the hash of its own signature, SHA-256 in place of MD5 and SHA-1. Raises TlsError when the bytes
    are no certificate or its signature has no single hash (Ed25519), for which RFC 5929 defines no binding.
    """
    try:
        name, _, der = asn1_pem.unarmor(pem)
        if name != "CERTIFICATE":
            raise ValueError("not a certificate")
        certificate = x509.Certificate.load(der, strict=True)
        algorithm = certificate["signature_algorithm"]
        kind = algorithm["algorithm"].native
    except (ValueError, TypeError, KeyError) as error:
        raise TlsError(f"The certificate cannot be read: {str(error).splitlines()[0]}.") from error
    try:
        digest = None if kind in ("ed25519", "ed448") else algorithm.hash_algo
    except ValueError:
        digest = None
    if digest is None:
        raise TlsError(f"The certificate's signature ({kind}) has no hash of its own, so it cannot bind a login.")
    return hashlib.new("sha256" if digest in ("md5", "sha1") else digest, der).digest()


class TlsContext:
    """The server's certificate, exchanged by ``reload`` without touching connections that are there.

    ``context`` is for new connections; ``bindings`` is the channel binding of the certificate, if it has one, by type.
    ``modern`` is TLS 1.3 only; ``chacha_first`` is for a CPU that has no AES instructions.
    Raises TlsError from the constructor and from ``reload``, which then keeps what there was.
    """

    def __init__(
        self, certificate: str | Path, key: str | Path, *, modern: bool = False, chacha_first: bool = False
    ) -> None:
        self._certificate = Path(certificate)
        self._key = Path(key)
        self._lowest = ssl.TLSVersion.TLSv1_3 if modern else ssl.TLSVersion.TLSv1_2
        self._ciphers = f"{_CHACHA}:{_AES}" if chacha_first else f"{_AES}:{_CHACHA}"
        self.reload()

    def reload(self) -> None:
        """Read certificate and key again. Raises TlsError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self._lowest
        context.set_ciphers(self._ciphers)
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
        context.num_tickets = 0  # the next connection may reach another worker, which could not use them
        log_secrets(context)
        try:
            context.load_cert_chain(self._certificate, self._key)
            pem = self._certificate.read_bytes()
        except ssl.SSLError as error:
            raise TlsError(
                f"{self._certificate} and {self._key} do not fit together or are damaged ({error.reason})."
            ) from error
        except OSError as error:
            raise TlsError(f"{self._certificate} or {self._key} cannot be read: {error.strerror}.") from error
        try:
            self.bindings = {ENDPOINT: certificate_hash(pem)}
        except TlsError:
            self.bindings = {}
        self.context = context


class TlsCodec:
    """One TLS connection as the server, without a socket. Errors of the peer raise ssl.SSLError.

    After an error ``pending_output`` must be sent: it holds the alert.
    """

    __slots__ = ("_incoming", "_object", "_outgoing", "_secret", "closed", "established")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._secret = b""
        self.established = False
        self.closed = False  # the peer has said goodbye (close_notify)

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Records from the peer: returns the plain bytes in them and the bytes to send in answer."""
        plain: list[bytes] = []
        for at in range(0, len(data), _STEP):
            self._incoming.write(data[at : at + _STEP] if len(data) > _STEP else data)
            if not self.established and not self._handshake():
                continue
            self._read(plain)
        return b"".join(plain), self._outgoing.read() if self._outgoing.pending else b""

    def _handshake(self) -> bool:
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self._secret = logged_secret() or self._secret
        self._object.context = _quiet
        self.established = True
        return True

    def _read(self, plain: list[bytes]) -> None:
        while not self.closed:
            try:
                count = self._object.read(len(_scratch), _view)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLZeroReturnError:
                count = 0
            if count:
                plain.append(bytes(_view[:count]))
            else:
                self.closed = True

    def encode(self, data: bytes) -> bytes:
        """Plain bytes to records."""
        if len(data) <= _STEP:
            self._object.write(data)
            return self._outgoing.read()
        view = memoryview(data)
        records = []
        for at in range(0, len(data), _STEP):
            self._object.write(view[at : at + _STEP])
            records.append(self._outgoing.read())
        return b"".join(records)

    def pending_output(self) -> bytes:
        """What is to be sent after an error."""
        return self._outgoing.read()

    def goodbye(self) -> bytes:
        """The close_notify to send before closing; b'' before the handshake is through."""
        if not self.established:
            return b""
        with contextlib.suppress(ssl.SSLError):  # the peer's own is not waited for (RFC 8446, section 6.1)
            self._object.unwrap()
        return self._outgoing.read()

    def binding(self) -> tuple[str, bytes] | None:
        """The channel binding of this connection, type and data: RFC 9266 for TLS 1.3, RFC 5929, section 3, for 1.2."""
        if self._object.version() == "TLSv1.3":
            secret, self._secret = self._secret, b""
            return (EXPORTER, exporter(secret)) if secret else None
        unique = self._object.get_channel_binding("tls-unique")
        return (UNIQUE, unique) if unique else None

    def facts(self) -> dict[str, str]:
        """Version and cipher, for logs and the session list."""
        cipher = self._object.cipher()
        return {"version": self._object.version() or "", "cipher": cipher[0] if cipher else ""}

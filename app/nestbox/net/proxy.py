"""The header that HAProxy puts before a connection to tell us the client's address.

Source: "The PROXY protocol, versions 1 & 2" (HAProxy's doc/proxy-protocol.txt). Sans-I/O.
"""

from __future__ import annotations

import contextlib
import ipaddress
import struct
from dataclasses import dataclass

from nestbox.net.exporter import HASHES, exporter
from nestbox.protocol.scram import EXPORTER, UNIQUE

__all__ = ["MAX_V1", "MAX_V2", "ProxyError", "ProxyHeader", "parse"]

MAX_V1 = 107  # section 2.1: the longest line, with CRLF
MAX_V2 = 2048  # ours; addresses take at most 216, HAProxy's TLVs some hundred bytes

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V1 = b"PROXY "
_AUTHORITY, _UNIQUE, _SSL, _SSL_VERSION, _SSL_CN, _SSL_CIPHER = 0x02, 0x05, 0x20, 0x21, 0x22, 0x23


class ProxyError(ValueError):
    """The bytes are no valid PROXY header."""


@dataclass(slots=True)
class ProxyHeader:
    """What the header said.

    ``source`` is the client's IP address, '' when the proxy speaks for itself (LOCAL, health checks) or does not know.
    ``tls`` is None when the client used no TLS, else what is known of 'version', 'cipher', 'sni' and 'cn'. ``binding``
    is the connection's channel binding, type and data, where role haproxy has put in the place of a unique id what it
    comes from: tls-unique itself of TLS 1.2 (RFC 5929, section 3), the exporter's secret of TLS 1.3 (RFC 9266).
    """

    local: bool
    source: str = ""
    source_port: int = 0
    tls: dict[str, str] | None = None
    binding: tuple[str, bytes] | None = None


def parse(data: bytes) -> tuple[ProxyHeader, int] | None:
    """Read a header at the start of ``data``: it and its length, or None when more bytes are needed.

    Raises ProxyError as soon as the bytes cannot become a header.
    """
    if data.startswith(_SIGNATURE):
        return _parse_v2(data)
    if data.startswith(_V1):
        return _parse_v1(data)
    if _SIGNATURE.startswith(data) or _V1.startswith(data):
        return None
    raise ProxyError("no PROXY header")


def _parse_v1(data: bytes) -> tuple[ProxyHeader, int] | None:
    end = data.find(b"\r\n", 0, MAX_V1)
    if end < 0:
        if len(data) >= MAX_V1:
            raise ProxyError("the PROXY line is too long")
        return None
    try:
        words = data[:end].decode("ascii").split(" ")
    except UnicodeDecodeError as error:
        raise ProxyError("the PROXY line is not ASCII") from error
    if words[1] == "UNKNOWN":
        return ProxyHeader(local=False), end + 2
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise ProxyError("the PROXY line is malformed")
    address = ipaddress.IPv4Address if words[1] == "TCP4" else ipaddress.IPv6Address
    try:
        source = str(address(words[2]))
        address(words[3])
    except ValueError as error:
        raise ProxyError("the PROXY line holds a wrong address") from error
    ports = [int(word) if word.isdecimal() and len(word) <= 5 else 65536 for word in words[4:]]
    if max(ports) > 65535:
        raise ProxyError("the PROXY line holds a wrong port")
    return ProxyHeader(local=False, source=source, source_port=ports[0]), end + 2


def _parse_v2(data: bytes) -> tuple[ProxyHeader, int] | None:
    if len(data) < 16:
        return None
    version, command = data[12] >> 4, data[12] & 15
    family, kind = data[13] >> 4, data[13] & 15
    length = int.from_bytes(data[14:16], "big")
    if version != 2 or command > 1:
        raise ProxyError("unknown version or command of PROXY")
    if family > 3 or kind > 2:
        raise ProxyError("unknown address family of PROXY")
    if length > MAX_V2:
        raise ProxyError("the PROXY header is too long")
    if len(data) < 16 + length:
        return None
    body = data[16 : 16 + length]
    if command == 0:  # LOCAL: the proxy's own connection, whose addresses must be ignored
        return ProxyHeader(local=True), 16 + length
    header = ProxyHeader(local=False)
    taken = (0, 12, 36, 216)[family]
    if len(body) < taken:
        raise ProxyError("the addresses of the PROXY header are cut short")
    if family in (1, 2):
        if kind != 1:
            raise ProxyError("the PROXY header is not for a stream")
        size = 4 if family == 1 else 16
        header.source = str(ipaddress.ip_address(body[:size]))
        header.source_port = int.from_bytes(body[2 * size : 2 * size + 2], "big")
    # With family 0 (unspecified) everything that follows may be skipped, yet HAProxy writes its TLVs there.
    tlvs = _tlvs(body[taken:])
    if _SSL in tlvs:
        header.tls = _tls(tlvs[_SSL])
    if header.tls is not None and _AUTHORITY in tlvs:
        header.tls["sni"] = tlvs[_AUTHORITY].decode("utf-8", "replace")
    if header.tls is not None and _UNIQUE in tlvs:
        with contextlib.suppress(ValueError):  # another proxy's unique id
            header.binding = _binding(header.tls.get("version"), bytes.fromhex(tlvs[_UNIQUE].decode("ascii")))
    return header, 16 + length


def _binding(version: str | None, data: bytes) -> tuple[str, bytes] | None:
    if version == "TLSv1.2" and data:
        return UNIQUE, data
    if version == "TLSv1.3" and len(data) in HASHES:
        return EXPORTER, exporter(data)
    return None


def _tlvs(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        if len(data) - at < 3:
            raise ProxyError("a TLV of the PROXY header is cut short")
        kind, length = struct.unpack_from("!BH", data, at)
        at += 3
        if length > len(data) - at:
            raise ProxyError("a TLV of the PROXY header is longer than the header")
        found[kind] = data[at : at + length]
        at += length
    return found


def _tls(value: bytes) -> dict[str, str] | None:
    """PP2_TYPE_SSL: a byte of flags, four of the certificate check, then TLVs. None when the client used no TLS."""
    if len(value) < 5:
        raise ProxyError("the TLS part of the PROXY header is cut short")
    if not value[0] & 1:
        return None
    names = {_SSL_VERSION: "version", _SSL_CIPHER: "cipher", _SSL_CN: "cn"}
    found = _tlvs(value[5:])
    return {name: found[kind].decode("utf-8", "replace") for kind, name in names.items() if kind in found}

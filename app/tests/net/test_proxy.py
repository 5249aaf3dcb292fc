"""The PROXY header, versions 1 and 2."""

import socket
import struct

import pytest

from nestbox.net.exporter import exporter
from nestbox.net.proxy import MAX_V1, ProxyError, parse
from tests.net.fuzz_proxy import fuzz

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def tlv(kind, value):
    return struct.pack("!BH", kind, len(value)) + value


def v2(body, command=1, family=0x11):
    return SIGNATURE + bytes((0x20 | command, family)) + len(body).to_bytes(2, "big") + body


INET = socket.inet_aton("192.0.2.7") + socket.inet_aton("192.0.2.1") + struct.pack("!HH", 40000, 5222)
INET6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + bytes(16) + struct.pack("!HH", 40000, 5222)
SSL = tlv(0x20, bytes((1, 0, 0, 0, 0)) + tlv(0x21, b"TLSv1.3") + tlv(0x23, b"TLS_AES_128_GCM_SHA256"))


@pytest.mark.parametrize(
    ("data", "source", "port"),
    [
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 5222\r\n", "192.0.2.7", 40000),
        (b"PROXY TCP6 2001:db8::7 ::1 40000 5222\r\n", "2001:db8::7", 40000),
        (b"PROXY UNKNOWN\r\n", "", 0),
        (b"PROXY UNKNOWN ffff:f...f:ffff what ever 1 2\r\n", "", 0),
        (v2(INET), "192.0.2.7", 40000),
        (v2(INET6, family=0x21), "2001:db8::7", 40000),
        (v2(bytes(216), family=0x31), "", 0),
        (v2(b"", family=0), "", 0),
        (v2(INET + tlv(0xEE, b"unknown")), "192.0.2.7", 40000),
    ],
)
def test_header_is_read_exactly_and_needs_all_its_bytes(data, source, port):
    header, length = parse(data + b"<stream")
    assert (header.source, header.source_port, length, header.local) == (source, port, len(data), False)
    for cut in range(len(data)):
        assert parse(data[:cut]) is None


def test_local_command_has_no_client():
    header, length = parse(v2(INET, command=0) + b"x")
    assert header.local and header.source == "" and length == 28


def test_tls_facts_come_from_the_tlvs():
    header, _ = parse(v2(INET + tlv(2, b"nestbox.test") + SSL))
    assert header.tls == {"version": "TLSv1.3", "cipher": "TLS_AES_128_GCM_SHA256", "sni": "nestbox.test"}
    assert parse(v2(INET + tlv(0x20, bytes(5))))[0].tls is None  # the client used no TLS
    assert parse(v2(SSL, family=0))[0].tls["version"] == "TLSv1.3"


def test_the_unique_id_holds_a_channel_binding():
    old = tlv(0x20, bytes((1, 0, 0, 0, 0)) + tlv(0x21, b"TLSv1.2"))
    assert parse(v2(INET + tlv(5, b"0A1bff") + old))[0].binding == ("tls-unique", b"\x0a\x1b\xff")
    for size in (32, 48):
        binding = ("tls-exporter", exporter(bytes(size)))
        assert parse(v2(INET + tlv(5, bytes(size).hex().encode()) + SSL))[0].binding == binding
    for other in (tlv(5, b"0A1bff") + SSL, tlv(5, b"0A1bff"), old, tlv(5, b"") + old, tlv(5, b"4f-\xff") + old):
        assert parse(v2(INET + other))[0].binding is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"<",
        b"PROXY TCP4 1.2.3.4\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 1\r\n",
        b"PROXY TCP4 01.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY TCP4 ::1 ::1 1 1\r\n",
        b"PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY  TCP4 1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY \xff\r\n",
        b"PROXY UNKNOWN".ljust(MAX_V1, b"x"),
        b"PROXY UNKNOWN".ljust(MAX_V1 - 1, b"x") + b"\r\n",
        SIGNATURE + b"\x11\x11\0\0",  # version 1 in binary
        SIGNATURE + b"\x22\x11\0\0",  # unknown command
        SIGNATURE + b"\x21\x41\0\0",  # unknown family
        SIGNATURE + b"\x21\x13\0\0",  # unknown protocol
        SIGNATURE + b"\x21\x11\xff\xff",  # too long, known before the body comes
        v2(INET[:11]),
        v2(INET6[:35], family=0x21),
        v2(bytes(215), family=0x31),
        v2(INET, family=0x12),  # a datagram
        v2(INET + b"\x20\0"),
        v2(INET + b"\x20\xff\xffx"),
        v2(INET + tlv(0x20, b"\1\0")),
        v2(INET + tlv(0x20, b"\1\0\0\0\0" + b"\x21\0\x09x")),
    ],
)
def test_wrong_headers_are_refused(data):
    with pytest.raises(ProxyError):
        parse(data)


def test_the_longest_line_is_accepted():
    line = b"PROXY UNKNOWN ".ljust(MAX_V1 - 2, b"x") + b"\r\n"
    assert parse(line)[1] == MAX_V1


def test_fuzz():
    assert fuzz(seconds=1.0, seed=1) > 1000

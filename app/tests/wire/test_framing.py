"""Frames of RFC 7395: one document each, with the same limits and errors as a stream."""

from __future__ import annotations

import pytest

from nestbox.core.errors import StreamError
from nestbox.wire import parser as wire
from nestbox.wire.framing import FrameReader, frame
from nestbox.wire.reader import ReaderLimits, StreamEnd, StreamOpen
from nestbox.wire.stanza import Stanza
from tests.wire.corpus import canonical

NS = b" xmlns='jabber:client'"


def parse(data: bytes, **limits: int) -> object:
    return FrameReader(ReaderLimits(**limits)).parse(data)


def test_open_and_close() -> None:
    opened = parse(b"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='nestbox.test' version='1.0' xml:lang='de'/>")
    assert isinstance(opened, StreamOpen)
    assert opened.attributes == {
        "to": "nestbox.test",
        "version": "1.0",
        "{http://www.w3.org/XML/1998/namespace}lang": "de",
    }
    assert isinstance(parse(b"<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>"), StreamEnd)


def test_stanza() -> None:
    stanza = parse(b"<?xml version='1.0' encoding='utf-8'?>\n<message" + NS + b" to='a>b'><body>hi</body></message> ")
    assert isinstance(stanza, Stanza)
    assert stanza.to == "a>b"
    assert stanza.inner == b"<body>hi</body>"
    again = parse(frame(stanza.encode()))
    assert canonical(again.element) == canonical(stanza.element)
    assert parse(b"<m:message xmlns:m='jabber:client'><m:body/></m:message>").inner is None
    assert parse(b"<presence" + NS + b"/>").inner == b""


def test_another_element() -> None:
    assert parse(b"<r xmlns='urn:xmpp:sm:3'/>").tag == "{urn:xmpp:sm:3}r"
    assert parse(b"<message/>").tag == "message"  # not a stanza: it is in no namespace


@pytest.mark.parametrize("data", [b"", b" ", b"\r\n\t"])
def test_nothing(data: bytes) -> None:
    assert parse(data) is None


@pytest.mark.parametrize(
    ("data", "condition"),
    [
        (b"<presence", "not-well-formed"),
        (b"<", "not-well-formed"),
        (b"<presence" + NS + b">", "not-well-formed"),
        (b"<presence" + NS + b"/><presence" + NS + b"/>", "not-well-formed"),
        (b"<presence" + NS + b"/>x", "bad-format"),
        (b"</frame>", "not-well-formed"),
        (b"</frame><frame>", "not-well-formed"),
        (b"<a/></frame>", "not-well-formed"),
        (b"hello", "not-well-formed"),
        (b"<stream:stream xmlns:stream='http://etherx.jabber.org/streams'>", "bad-format"),
        (b"<stream:features/>", "not-well-formed"),
        (b"<!DOCTYPE a><a/>", "restricted-xml"),
        (b"<!-- a --><a/>", "restricted-xml"),
        (b"<a><!-- a --></a>", "restricted-xml"),
        (b"<?a b?><a/>", "restricted-xml"),
        (b"<?xml version='1.0' encoding='latin1'?><a/>", "restricted-xml"),
        (b"<a>&b;</a>", "restricted-xml"),
        (b"<a>\xff</a>", "unsupported-encoding"),
        ("<a/>".encode("utf-16"), "unsupported-encoding"),
        (b"<a>" * 100, "policy-violation"),
        (b"<a " + b" ".join(b"b%d=''" % n for n in range(100)) + b"/>", "policy-violation"),
        (b"<a>" + b"x" * 16384 + b"</a>", "policy-violation"),
    ],
)
def test_wrong_frames(data: bytes, condition: str) -> None:
    with pytest.raises(StreamError) as raised:
        parse(data)
    assert raised.value.condition == condition
    # and the parser that the next frame gets knows nothing of it
    assert parse(b"<r xmlns='urn:xmpp:sm:3'/>").tag == "{urn:xmpp:sm:3}r"


def test_queue_is_bounded() -> None:
    reader = FrameReader(ReaderLimits(1000))
    reader.feed(b"<a/>" + b" " * 496)
    reader.feed(b"<b/>" + b" " * 496)
    with pytest.raises(StreamError):
        reader.feed(b"x")
    assert reader.next() is None
    assert reader.pending == 0
    reader.feed(b" ")
    reader.feed(b"<c/>")
    assert reader.next().tag == "c"


def test_more_may_wait_after_login() -> None:
    reader = FrameReader(ReaderLimits(1000))
    reader.stepwise = False
    for _ in range(250):
        reader.feed(b"<c/>" + b" " * 996)
    assert reader.next().tag == "c"
    reader.feed(b"<a>" + b"x" * 1000 + b"</a>")
    with pytest.raises(StreamError):
        list(iter(reader.next, None))


def test_frames_share_a_parser() -> None:
    wire._ready.clear()
    for _ in range(50):
        parse(b"<message" + NS + b"><body>hi</body></message>")
    assert len(wire._ready) == 1

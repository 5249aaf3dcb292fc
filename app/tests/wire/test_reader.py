"""The reader: the right events however the bytes are cut, the right errors, and no way out of its limits."""

from __future__ import annotations

import gc
import time
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestbox.core.errors import StreamError
from nestbox.wire import parser as wire
from nestbox.wire import reader as stream
from nestbox.wire.reader import ReaderLimits, StreamOpen, StreamReader
from nestbox.wire.stanza import Stanza
from tests.wire.corpus import HEADER, STREAMS, WRONG, canonical, describe, drain, new_reader, read
from tests.wire.fuzz_reader import fuzz

MODES = pytest.mark.parametrize("stepwise", [True, False], ids=["stepwise", "fast"])


@MODES
@pytest.mark.parametrize("parts", STREAMS, ids=["usual", "prefixes", "empty"])
def test_every_event_comes_with_its_last_byte(parts: list[bytes], stepwise: bool) -> None:
    data = b"".join(parts)
    whole = read(data, stepwise=stepwise)
    assert ("end",) in whole
    assert not any(event[0] == "error" for event in whole)
    ends = [sum(map(len, parts[: n + 1])) for n in range(len(parts))]
    if len(parts) == 1:
        ends *= 2  # a header that is an end as well
    assert len(whole) == len(ends)
    for cut in range(len(data) + 1):  # at every byte once
        reader = new_reader(stepwise)
        reader.feed(data[:cut])
        first = drain(reader)
        assert first == whole[: sum(end <= cut for end in ends)], data[:cut]
        reader.feed(data[cut:])
        assert first + drain(reader) == whole, data[cut:]
    assert read(data, 1, stepwise) == whole  # at every byte at once
    assert read(data, 7, stepwise) == whole


def test_what_was_read_is_what_was_meant() -> None:
    events = read(b"".join(STREAMS[0]))
    assert events[0] == (
        "open",
        "{http://etherx.jabber.org/streams}stream",
        [("to", "nestbox.test"), ("version", "1.0"), ("{http://www.w3.org/XML/1998/namespace}lang", "de")],
        "jabber:client",
    )
    tag = "{jabber:client}"
    assert events[2] == (
        "stanza",
        (f"{tag}message", [("id", "x'>y"), ("to", "a&b@c")], "", [((f"{tag}body", [], "1 < 2 && 3 > 2 € €", []), "")]),
        "<body>1 &lt; 2 &amp;&amp; 3 &gt; 2 &#8364; €</body>".encode(),
    )
    assert events[5][1][3][0][0][2] == "<not>a</tag> ]] > ]]>"
    # Bytes that would not stand for the same elsewhere are not handed on.
    assert [event[2] for event in events if event[0] == "stanza"].count(None) == 3


@MODES
@pytest.mark.parametrize("name", WRONG)
def test_wrong_input(name: str, stepwise: bool) -> None:
    data, condition = WRONG[name]
    whole = read(data, stepwise=stepwise)
    assert whole[-1] == ("error", condition)
    for step in (1, 2, 3):
        assert read(data, step, stepwise) == whole
    # what follows changes nothing, and what came before is delivered
    assert read(data + b"</message></stream:stream>", stepwise=stepwise) == whole


def test_stepwise_leaves_what_is_behind_an_event() -> None:
    parts = STREAMS[0][:-1]
    reader = new_reader(stepwise=True, max_stanza_bytes=100_000)
    data = b"".join(parts)
    reader.feed(data)
    for part in parts:
        data = data[len(part) :]
        assert reader.next() is not None
        assert reader.pending == len(data)


def test_restart_takes_pending_bytes_for_a_new_document() -> None:
    reader = new_reader(stepwise=True)
    reader.feed(HEADER + b"<a/>" + HEADER + b"<b/>")
    assert isinstance(reader.next(), StreamOpen)
    assert reader.next().tag == "{jabber:client}a"
    reader.restart()
    reader.stepwise = False
    assert isinstance(reader.next(), StreamOpen)
    assert reader.next().tag == "{jabber:client}b"


def test_events_before_an_error_are_delivered() -> None:
    events = read(HEADER + b"<presence/><a/></b>")
    assert [event[0] for event in events] == ["open", "stanza", "element", "error"]


def test_nothing_behind_the_end_counts() -> None:
    for step in (0, 1):
        assert [event[0] for event in read(HEADER + b"</stream:stream><presence/></x>", step)] == ["open", "end"]


# limits


@MODES
@pytest.mark.parametrize("step", [0, 1000, 1])
def test_stanza_size(step: int, stepwise: bool) -> None:
    frame = len(b"<a b=''/>")
    fits, too_big = (HEADER + b"<a b='%s'/>" % (b"x" * (2000 - frame + more)) for more in (0, 1))
    assert [event[0] for event in read(fits, step, stepwise, max_stanza_bytes=2000)[-1:]] == (
        ["element"] if step or not stepwise else ["error"]  # header and element in one piece are too much before login
    )
    assert read(too_big, step, stepwise, max_stanza_bytes=2000)[-1] == ("error", "policy-violation")
    body = b"<a>%s</a>" % (b"x" * 1993)
    assert len(body) == 2000
    assert read(HEADER + body.replace(b"</", b"x</"), step, stepwise, max_stanza_bytes=2000)[-1][0] == "error"


@pytest.mark.parametrize("tail", [b"<a b='", b"<a><b>", b"<a>", b"<", b"<a b='>", b"<a><![CDATA[", b"<a>&"])
@MODES
def test_an_unfinished_element_stops_growing(tail: bytes, stepwise: bool) -> None:
    reader = new_reader(stepwise, max_stanza_bytes=20_000)
    reader.feed(HEADER)
    reader.next()
    reader.feed(tail)
    fed = 0
    with pytest.raises(StreamError) as raised:
        while fed < 100_000:
            assert drain_raising(reader) == []
            reader.feed(b"x" * 100)
            fed += 100
    assert raised.value.condition == "policy-violation"
    assert fed <= 20_100
    reader.feed(b"x" * 1000)
    assert reader.pending == 0
    assert reader.next() is None


def drain_raising(reader: StreamReader) -> list[object]:
    return list(iter(reader.next, None))


def test_white_space_is_free() -> None:
    reader = new_reader(stepwise=True)
    reader.feed(HEADER)
    reader.next()
    for _ in range(1000):
        reader.feed(b" \n" * 1000)
        assert reader.next() is None
        assert reader.pending == 0


@MODES
@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"<a b='", b"x" * 16),
        (b"<a b='", b">" * 16),
        (b"<a b='", b'">' * 8),
        (b"<a b='", b"&lt;"),
        (b"<a>", b"x" * 16),
        (b"<a>", b"]" * 16),
        (b"<a>", b"]]" * 8 + b" "),
        (b"<a>&", b"x" * 16),
        (b"<a><![CDATA[", b"]" * 16),
        (b"<a><![CDATA[", b">]]" * 5),
        (b"<a ", b"x" * 16),
        (b"<a></", b"a" * 16),
        (b"<a", b" " * 16),
        (b"<a>", b"<b/>" * 4),
        (b"<a>", b"<b c='>'>d</b>"),
    ],
)
def test_time_is_linear(begin: bytes, piece: bytes, stepwise: bool) -> None:
    """256 KiB in pieces of 16 bytes: expat alone takes seconds for some of these."""
    size = 256 * 1024
    reader = new_reader(stepwise, max_stanza_bytes=size)
    reader.feed(HEADER)
    reader.next()
    started = time.process_time()
    try:
        reader.feed(begin)
        for _ in range((size - len(begin)) // len(piece)):
            drain_raising(reader)
            reader.feed(piece)
    except StreamError:
        pass
    assert time.process_time() - started < 1.5


@MODES
def test_one_big_packet_is_linear(stepwise: bool) -> None:
    started = time.process_time()
    for inside in (b"<a b='%s'/>" % (b">" * 250_000), b"<a>%s</a>" % (b"<b/>" * 60_000), b"<r/>" * 60_000):
        reader = new_reader(stepwise, max_stanza_bytes=256 * 1024, max_elements=100_000)
        reader.feed(HEADER)
        reader.next()
        reader.feed(inside)
        assert not any(event[0] == "error" for event in drain(reader))
    assert time.process_time() - started < 3


# memory


def live_parsers() -> int:
    return sum(isinstance(thing, wire.Parser) for thing in gc.get_objects())


def test_an_idle_stream_holds_no_parser() -> None:
    readers = [new_reader(stepwise=n % 2 == 0) for n in range(200)]
    for reader in readers:
        reader.feed(HEADER + b"<presence/>")
        assert [event[0] for event in drain(reader)] == ["open", "stanza"]
    assert live_parsers() <= wire._READY_PARSERS
    readers[0].feed(b"<message>")
    assert readers[0].next() is None
    assert live_parsers() <= wire._READY_PARSERS + 1


def test_errors_and_odd_headers_leave_nothing_behind() -> None:
    gc.collect()
    gc.disable()  # so that only what frees itself counts
    try:
        before = live_parsers()
        for n in range(300):
            read(HEADER + b"<message><a%d><b></a>" % n)
            read(HEADER.replace(b"jabber:client", b"urn:%d" % n) + b"<presence/>")
            half = new_reader()
            half.feed(HEADER + b"<message><body>")
            drain(half)
            del half
        assert live_parsers() - before <= wire._READY_PARSERS
    finally:
        gc.enable()
    assert len(wire._ready) <= wire._READY_PARSERS
    assert wire._header.cache_info().currsize <= 64
    assert len(wire._names) <= wire._KNOWN_NAMES


def test_a_parser_is_replaced_before_it_has_seen_too_much() -> None:
    reader = new_reader()
    reader.feed(HEADER)
    reader.next()
    seen = set()
    for n in range(3000):
        reader.feed(b"<message><name%d-%s/></message>" % (n, b"x" * 60))
        assert isinstance(reader.next(), Stanza)
        assert reader.next() is None
        parser = wire._ready.get(reader._header)
        if parser is not None:
            assert parser.expat.CurrentByteIndex <= wire._PARSER_BYTES
            seen.add(id(parser.expat))
    assert len(wire._names) <= wire._KNOWN_NAMES


def test_few_events_wait_at_a_time() -> None:
    reader = new_reader(max_stanza_bytes=256 * 1024)
    reader.feed(HEADER)
    reader.next()
    reader.feed(b"<r/>" * 100_000)
    for _ in range(100_000):
        assert reader.next().tag == "{jabber:client}r"
        assert len(reader._events) <= stream._SLICE / 4
    assert reader.next() is None


@MODES
@pytest.mark.parametrize("step", [0, 100])
def test_elements(step: int, stepwise: bool) -> None:
    fits, too_many = (HEADER + b"<a>%s</a>" % (b"<b/>" * n) for n in (99, 100))
    assert read(fits, step, stepwise, max_elements=100)[-1][0] == "element"
    assert read(fits + fits[len(HEADER) :], step, stepwise, max_elements=100)[-1][0] == "element"
    assert read(too_many, step, stepwise, max_elements=100)[-1] == ("error", "policy-violation")


def test_limits_can_be_raised() -> None:
    reader = StreamReader(ReaderLimits(1000))
    reader.feed(HEADER)
    reader.next()
    reader.stepwise = False
    reader.limits = ReaderLimits(5000)
    reader.feed(b"<a>%s</a>" % (b"x" * 4000))
    assert len(reader.next().text) == 4000


# inner

TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\ufffe\uffff", min_codepoint=32), max_size=8
)
NAMES = st.sampled_from(["a", "body", "x-y", "é", "_1"])
NAMESPACES = st.sampled_from(["jabber:client", "urn:x", "urn:é&<>\"'", ""])


def attribute(value: str, quote: str) -> str:
    value = value.replace("&", "&amp;").replace("<", "&lt;")
    return quote + value.replace(quote, "&quot;" if quote == '"' else "&#39;") + quote


@st.composite
def texts(draw: st.DrawFn) -> str:
    text = draw(TEXT)
    if draw(st.booleans()) and "]]>" not in text:
        return f"<![CDATA[{text}]]>"
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("]]>", "]]&gt;")


@st.composite
def elements(draw: st.DrawFn, depth: int = 0) -> str:
    name = draw(NAMES)
    quote = draw(st.sampled_from("\"'"))
    uri = draw(NAMESPACES)
    prefix = draw(st.sampled_from(["", "", "p", "q"])) if uri else ""
    parts = [f"xmlns{':' + prefix if prefix else ''}={attribute(uri, quote)}"] if prefix or draw(st.booleans()) else []
    for key in draw(st.lists(st.sampled_from(["to", "ü", "xml:lang"]), unique=True, max_size=3)):
        parts.append(f"{key}{draw(st.sampled_from(['=', ' = ']))}{attribute(draw(TEXT), quote)}")
    if prefix:
        name = f"{prefix}:{name}"
    head = " ".join([name, *parts])
    if draw(st.booleans()):
        return f"<{head}{draw(st.sampled_from(['', ' ']))}/>"
    children = [draw(texts())]
    if depth < 2:
        for child in draw(st.lists(elements(depth + 1), max_size=3)):
            children += [child, draw(texts())]
    return f"<{head}>{''.join(children)}</{name}>"


@settings(max_examples=300, deadline=None)
@given(st.lists(elements(), max_size=3), texts(), st.text("abc\u00e9>'", max_size=5), st.integers(1, 50), st.booleans())
def test_inner_means_the_same_elsewhere(children: list[str], text: str, to: str, step: int, stepwise: bool) -> None:
    inner = text + "".join(children)
    stanza = f"<message to={attribute(to, chr(34))}>{inner}</message>".encode()
    reader = new_reader(stepwise)
    got = []
    data = HEADER + stanza
    for start in range(0, len(data), step):
        reader.feed(data[start : start + step])
        got += drain_raising(reader)
    assert len(got) == 2
    read_stanza = got[1]
    assert read_stanza.inner == inner.encode()
    again = ElementTree.fromstring(b"<m xmlns='jabber:client'>" + read_stanza.inner + b"</m>")
    assert canonical(again)[2:] == canonical(read_stanza.element)[2:]
    assert describe(read_again(read_stanza.encode()))[1] == describe(read_stanza)[1]


def read_again(data: bytes) -> Stanza:
    reader = new_reader()
    reader.feed(HEADER + data)
    reader.next()
    return reader.next()


def test_fuzz() -> None:
    assert fuzz(seconds=2.0, seed=1) > 100

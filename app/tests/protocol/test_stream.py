"""What the stream hands to its driver, beside the negotiation that test_conversations.py walks through."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestbox.core.errors import StreamError
from nestbox.core.jid import JID
from nestbox.protocol.events import BindRequest, Closed, Nonza, StanzaReceived, StartTls
from tests.protocol.driver import BIND_IQ, BINDINGS, HEADER, OPEN, Driver


def test_stanzas_and_nonzas_come_in_order() -> None:
    driver = Driver().bind()
    driver.events.clear()
    driver.feed("<message to='a@b' from='forged@x'><body>1</body></message><active xmlns='urn:xmpp:csi:0'/><presence/>")
    message, nonza, presence = driver.events
    assert message.stanza.inner == b"<body>1</body>"
    assert message.stanza.from_ == "forged@x"  # for the session to deal with
    assert isinstance(nonza, Nonza)
    assert nonza.element.tag == "{urn:xmpp:csi:0}active"
    assert presence.stanza.kind == "presence"


@pytest.mark.parametrize("bound", [False, True])
def test_a_second_header_is_an_error(bound: bool) -> None:
    """It would else be taken for a stanza that never ends, with all that follows in it."""
    driver = Driver().bind() if bound else Driver()
    if not bound:
        driver.feed(HEADER)
    assert "<bad-format" in driver.feed(HEADER.partition("?>")[2] or HEADER)
    assert isinstance(driver.events[-1], Closed)


def test_websocket_frames() -> None:
    driver = Driver(framing="websocket").bind()
    assert driver.sent[0].startswith(b"<open ")  # every document is a frame of its own
    assert driver.sent[1].startswith(b"<stream:features ")
    driver.events.clear()
    driver.feed(b"<message xmlns='jabber:client' to='a@b'><body>\xe2\x82\xac</body></message>")
    assert driver.events[0].stanza.inner == b"<body>\xe2\x82\xac</body>"
    frame = driver.stream.frame
    assert frame(b'<message to="a"/>') == b'<message xmlns="jabber:client" to="a"/>'
    assert frame(b"<presence/>") == b'<presence xmlns="jabber:client"/>'
    assert frame(b'<iq type="get"/>') == b'<iq xmlns="jabber:client" type="get"/>'
    assert frame(b"<r xmlns='urn:xmpp:sm:3'/>") == b"<r xmlns='urn:xmpp:sm:3'/>"
    assert Driver().stream.frame(b"<presence/>") == b"<presence/>"


@pytest.mark.parametrize(
    ("header", "own", "told"), [("de", None, "de"), ("de-AT", "fr", "fr"), ("not a language", None, None)]
)
def test_what_is_said_has_the_streams_language(header: str, own: str | None, told: str | None) -> None:
    driver = Driver()
    driver.feed(HEADER)
    driver.feed("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvbWVvAHNlY3JldA==</auth>")
    driver.feed(HEADER.replace("to=", f"xml:lang='{header}' to="))
    driver.feed(BIND_IQ)
    lang = f" xml:lang='{own}'" if own else ""
    driver.feed(f"<message to='a@b'{lang}><body>1</body></message>")
    assert driver.events[-1].stanza.element.get("{http://www.w3.org/XML/1998/namespace}lang") == told


def test_starttls_waits_for_the_handshake() -> None:
    driver = Driver(secure=False, starttls=True)
    driver.hold = StartTls
    driver.feed(HEADER)
    driver.feed("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
    assert driver.events == [StartTls()]
    sent = len(driver.sent)
    assert driver.feed("<presence/>") == ""  # in the clear
    assert isinstance(driver.events[-1], Closed)
    assert len(driver.sent) == sent  # and nothing more goes out in the clear


def test_a_line_end_after_starttls_is_no_data() -> None:
    driver = Driver(secure=False, starttls=True)
    driver.feed(HEADER)
    assert driver.feed("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>\r\n \t").startswith("<proceed")
    assert "<mechanisms" in driver.feed(HEADER)


def test_channel_binding_is_known_after_starttls() -> None:
    driver = Driver(secure=False, starttls=True)
    driver.feed(HEADER)
    driver.feed("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
    assert "SCRAM-SHA-256-PLUS" in driver.feed(HEADER)
    assert driver.stream.bindings == BINDINGS


def test_close() -> None:
    driver = Driver().bind()
    driver.stream.close(StreamError("conflict", "Somebody <else> & you"))
    driver.stream.close(StreamError("reset"))  # the first one counts
    driver.sent.clear()
    driver.run()
    assert driver.sent == [
        b"<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'></conflict>"
        b"<text xmlns='urn:ietf:params:xml:ns:xmpp-streams' xml:lang='en'>Somebody &lt;else&gt; &amp; you</text>"
        b"</stream:error></stream:stream>"
    ]
    assert driver.feed("<message/>") == ""
    assert driver.stream.next_event() is None


def test_close_before_a_header_sends_one() -> None:
    driver = Driver()
    driver.stream.close(StreamError("connection-timeout"))
    driver.run()
    assert b"".join(driver.sent).startswith(b"<?xml version='1.0'?><stream:stream ")


def test_see_other_host() -> None:
    driver = Driver().bind()
    driver.sent.clear()
    driver.stream.close(StreamError("see-other-host", "other.test"))
    driver.run()
    assert b">other.test</see-other-host></stream:error>" in driver.sent[0]


def test_answers_after_the_end_do_no_harm() -> None:
    driver = Driver().log_in()
    driver.hold = BindRequest
    driver.feed(BIND_IQ)
    driver.stream.close(None)
    driver.run()
    sent = len(driver.sent)
    driver.stream.bound(JID("romeo", "nestbox.test", "x"))
    driver.run()
    assert len(driver.sent) == sent
    assert driver.stream.next_event() is None


@pytest.mark.parametrize("framing", ["tcp", "websocket"])
def test_waiting_bytes_are_bounded(framing: str) -> None:
    driver = Driver(framing=framing).log_in()
    driver.hold = BindRequest
    driver.feed(BIND_IQ)
    for _ in range(600):
        driver.stream.feed(b"<presence xmlns='jabber:client'/>" * 32)
    assert driver.stream._reader.pending <= 512 * 1024
    driver.run()
    assert isinstance(driver.events[-1], Closed)
    assert driver.events[-1].error.condition == "policy-violation"


def test_an_idle_stream_is_small() -> None:
    stream = Driver().bind().stream
    size = sum(map(sys.getsizeof, (stream, stream._reader, stream._reader._buffer, stream._out)))
    assert size < 600
    assert stream._login is None
    assert stream._request is None
    assert stream._reader._parser is None


PIECES = [
    HEADER,
    OPEN,
    BIND_IQ,
    "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
    "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvbWVvAHNlY3JldA==</auth>",
    "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'>biwsbj1yb21lbyxyPWFiYw==</auth>",
    "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'/>",
    "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>YWJj</response>",
    "<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
    "<enable xmlns='urn:xmpp:sm:3' resume='true'/>",
    "<resume xmlns='urn:xmpp:sm:3' previd='sm-old' h='1'/>",
    "<resume xmlns='urn:xmpp:sm:3' previd='x' h='1'/>",
    "<r xmlns='urn:xmpp:sm:3'/>",
    "<a xmlns='urn:xmpp:sm:3' h='1'/>",
    "<message xmlns='jabber:client'><body>x</body></message>",
    "<active xmlns='urn:xmpp:csi:0'/>",
    " ",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12), st.booleans(), st.booleans())
def test_no_order_of_things_gets_past_the_login(pieces: list[str], websocket: bool, secure: bool) -> None:
    driver = Driver(framing="websocket" if websocket else "tcp", secure=secure, starttls=True)
    for piece in pieces:
        driver.feed(piece)
    kinds = [type(event).__name__ for event in driver.events]
    for late, early in (
        ("StanzaReceived", "Authenticated"),
        ("BindRequest", "Authenticated"),
        ("ResumeRequest", "Authenticated"),
        ("EnableSm", "BindRequest"),
    ):
        if late in kinds:
            assert early in kinds[: kinds.index(late)]
    if "Authenticated" in kinds and not secure:
        assert "StartTls" in kinds[: kinds.index("Authenticated")]
    assert kinds.count("Authenticated") <= 1
    assert kinds.count("Closed") <= 1
    assert "Closed" not in kinds[:-1]
    if any(isinstance(event, StanzaReceived) for event in driver.events):
        assert driver.stream.ready

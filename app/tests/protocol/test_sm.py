"""The queue of what is not acknowledged (XEP-0198)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestbox.core.errors import StreamError
from nestbox.protocol.events import Ack, AckRequest, EnableSm, ResumeRequest
from nestbox.protocol.sm import AckQueue, HandledCountTooHigh
from tests.protocol.driver import Driver


def test_ack_forgets_the_oldest() -> None:
    queue = AckQueue()
    for data in (b"a", b"bb", b"ccc"):
        assert queue.push(data)
    assert (len(queue), queue.size, queue.sent) == (3, 6, 3)
    assert queue.ack(2) == 2
    assert queue.unacked() == [b"ccc"]
    assert (queue.size, queue.acked, queue.sent) == (3, 2, 3)
    assert queue.ack(2) == 0


def test_h_wraps() -> None:
    queue = AckQueue()
    queue.restore(2**32 - 2, [b"a", b"b", b"c", b"d"])
    assert queue.sent == 2
    assert queue.ack(2**32 - 1) == 1
    assert queue.ack(1) == 2
    assert queue.unacked() == [b"d"]
    assert queue.acked == 1


@pytest.mark.parametrize("h", [4, 0, 2**32 - 1])
def test_h_beyond_what_was_sent(h: int) -> None:
    queue = AckQueue()
    queue.restore(1, [b"a", b"b"])
    with pytest.raises(HandledCountTooHigh) as raised:
        queue.ack(h)
    assert isinstance(raised.value, StreamError)
    assert raised.value.condition == "undefined-condition"
    assert queue.unacked() == [b"a", b"b"]


def test_the_stream_error_says_both_counts() -> None:
    driver = Driver().bind()
    driver.stream.close(HandledCountTooHigh(5, 3))
    driver.run()
    assert b"".join(driver.sent).endswith(
        b"<undefined-condition xmlns='urn:ietf:params:xml:ns:xmpp-streams'></undefined-condition>"
        b"<text xmlns='urn:ietf:params:xml:ns:xmpp-streams' xml:lang='en'>you acknowledged 5 stanzas, but got 3</text>"
        b"<handled-count-too-high xmlns='urn:xmpp:sm:3' h='5' send-count='3'/></stream:error></stream:stream>"
    )


def test_limits() -> None:
    queue = AckQueue(max_stanzas=2, max_bytes=100)
    assert queue.push(b"x")
    assert queue.push(b"x")
    assert not queue.push(b"x")
    queue = AckQueue(max_stanzas=20, max_bytes=100)
    assert queue.push(b"x" * 100)
    assert not queue.push(b"x")
    assert len(queue) == 2  # nothing is lost on the way out


@pytest.mark.parametrize(("h", "left"), [(10, [b"a", b"b", b"new"]), (11, [b"b", b"new"]), (15, [b"new"])])
def test_the_first_h_after_a_recovery_counts_nothing_that_came_since(h: int, left: list[bytes]) -> None:
    """The peer of 15 was sent three more stanzas, of which only the dead worker knew."""
    queue = AckQueue()
    queue.restore(10, [b"a", b"b"])
    queue.recovered = 2
    queue.push(b"new")
    queue.ack(h)
    assert queue.unacked() == left
    assert (queue.acked, queue.sent) == (h, h + len(left))
    with pytest.raises(HandledCountTooHigh):
        queue.ack(h + 4)


@pytest.mark.parametrize("h", [9, 200_000])
def test_also_after_a_recovery_h_has_its_bounds(h: int) -> None:
    queue = AckQueue()
    queue.restore(10, [b"a", b"b"])
    queue.recovered = 2
    with pytest.raises(HandledCountTooHigh):
        queue.ack(h)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 5), max_size=20))
def test_like_a_list(start: int, turns: list[int]) -> None:
    queue = AckQueue()
    queue.restore(start, [])
    model: list[bytes] = []
    handled = start
    for number, count in enumerate(turns):
        for _ in range(number % 4):
            queue.push(b"%d" % number)
            model.append(b"%d" % number)
        count = min(count, len(model))
        handled = (handled + count) % 2**32
        assert queue.ack(handled) == count
        del model[:count]
        assert queue.unacked() == model
        assert queue.size == sum(map(len, model))


def test_events() -> None:
    driver = Driver().bind()
    driver.events.clear()
    driver.feed(
        "<enable xmlns='urn:xmpp:sm:3' resume='1' max='90'/><r xmlns='urn:xmpp:sm:3'/>"
        "<a xmlns='urn:xmpp:sm:3' h='4294967295'/>"
    )
    assert driver.events == [EnableSm(True, 90), AckRequest(), Ack(4294967295)]
    driver = Driver().log_in()
    driver.events.clear()
    driver.feed("<resume xmlns='urn:xmpp:sm:3' previd='sm-old' h='12'/>")
    assert driver.events == [ResumeRequest("sm-old", 12)]
    assert driver.stream.ready
    assert driver.stream.sm


def test_nothing_is_read_while_an_answer_is_due() -> None:
    driver = Driver().log_in()
    driver.hold = ResumeRequest
    assert driver.feed("<resume xmlns='urn:xmpp:sm:3' previd='sm-old' h='12'/><message/>") == ""
    assert type(driver.events[-1]) is ResumeRequest
    driver.stream.resumed("sm-old", 1)
    driver.run()
    assert type(driver.events[-1]).__name__ == "StanzaReceived"

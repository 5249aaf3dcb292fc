"""One session of BOSH (XEP-0124): requests in the order of their rids, answers when there is something to say."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import msgspec

from nestbox.net.transport import MakeReceiver, Receiver
from nestbox.wire import ns
from nestbox.wire.bosh import XBOSH, Body, write_body
from nestbox.wire.element import escape_attribute

if TYPE_CHECKING:
    from nestbox.net.bosh import Bosh

__all__ = ["WAIT", "Answer", "BoshTransport", "terminal"]

WAIT = 60  # the longest time for which a request is held, in seconds
HOLD = 1  # the most requests that are held
POLLING = 5  # seconds that a client has to leave between two requests that say nothing
INACTIVITY = 60  # seconds without a request after which a session is over
VERSION = (1, 11)
CONTENT = "text/xml; charset=utf-8"
_content = re.compile(r"[a-z]+/[a-z.+-]+(?:; ?charset=utf-8)?", re.I).fullmatch
_condition = re.compile(rb"<stream:error[^>]*><([a-z-]+)").match
# Stream errors that BOSH has conditions of its own for; they need no payload.
_CONDITIONS = {"host-unknown", "improper-addressing", "system-shutdown", "internal-server-error"}


class Answer(msgspec.Struct, tag="answer", array_like=True):
    """The content of an HTTP answer and its Content-Type; ``id`` is that of the request where it came over the bus."""

    data: bytes
    content: str = CONTENT
    id: int = 0


_EMPTY = Answer(write_body({}, []))


def terminal(condition: str) -> Answer:
    """The end of a session that is not there (section 17.2)."""
    return Answer(write_body({"type": "terminate", "condition": condition}, []))


class _Held:
    """A request that has not been answered; ``future`` is None once its client has gone."""

    __slots__ = ("arrived", "future", "timer")

    def __init__(self, arrived: float) -> None:
        self.arrived = arrived
        self.future: asyncio.Future[Answer] | None = None
        self.timer: asyncio.TimerHandle | None = None


class BoshTransport:
    """One session (Transport). ``max_message`` is what one request may carry, in bytes; the driver raises it."""

    kind = "bosh"

    def __init__(self, bosh: Bosh, sid: str, body: Body, *, peer: str, secure: bool) -> None:
        """Raises ValueError for a request that cannot create a session."""
        self._bosh = bosh
        self.options = bosh.options
        self.sid = sid
        self.peer = peer
        self.secure = secure
        self.tls: dict[str, str] | None = None
        self.congested = False
        self.unsent: list[bytes] = []
        self.max_message = bosh.max_message
        self.rid = body.number("rid") - 1  # the last that was dealt with
        wait = min(body.number("wait", WAIT), WAIT)
        self._hold = min(body.number("hold", HOLD), HOLD) if wait else 0
        self._wait = wait
        self._requests = self._hold + 1
        self._polling = min(POLLING, wait) if self._hold else POLLING
        self._version = min(_version(body.attributes.get("ver", "1.11")), VERSION)
        content = body.attributes.get("content", CONTENT)
        self._content = content if _content(content) else CONTENT
        self._acks = "ack" in body.attributes
        self._to = body.attributes.get("to", "")
        self._receiver: Receiver | None = None
        self._open: dict[int, _Held] = {}
        self._answers: dict[int, Answer] = {}  # the last ones, for clients that did not get them
        self._bodies: dict[int, Body] = {}  # that came before their turn
        self._out: list[bytes] = []
        self._pending = 0
        self._error = b""
        self._final: Answer | None = None
        self._closing = self._paused = self._flushing = False
        self._polled: tuple[int, float] = (0, 0.0)  # the last request that said nothing, and when it came
        self._timer: asyncio.TimerHandle | None = None

    # the driver's side (Transport)

    def write(self, data: bytes) -> None:
        """See Transport.write: one document. The stream's own framing is none of BOSH's."""
        if self._closing or data.startswith((b"<open ", b"<close ")):
            return
        if data.startswith(b"<stream:error"):
            self._error = data
            return
        self._out.append(data)
        self._pending += len(data)
        if self._pending > self.options.max_buffer:
            self.options.slow_consumers += 1
            self.abort()
        else:
            self._schedule()

    def close(self) -> None:
        """See Transport.close: the client learns of it by its oldest request, or by its next."""
        match = _condition(self._error)
        condition = match[1].decode() if match else ""
        if condition and condition not in _CONDITIONS:
            self._out.append(self._error)
            condition = "remote-stream-error"
        self._end(condition)

    def abort(self, exc: Exception | None = None) -> None:
        """See Transport.abort."""
        self._end_unsent()

    def pause_reading(self) -> None:
        """See Transport.pause_reading."""
        self._paused = True

    def resume_reading(self) -> None:
        """See Transport.resume_reading."""
        self._paused = False
        asyncio.get_running_loop().call_soon(self._take)

    # the client's side

    def start(self, make_receiver: MakeReceiver, body: Body) -> asyncio.Future[Answer]:
        """Begin the session with the request that creates it."""
        self.options.open += 1
        self.options.opened += 1
        future = self._hold_request(self.rid + 1)
        self.rid += 1
        self._receiver = make_receiver(self)
        if not self._closing:
            self._open_stream(body)
        self._feed(body)
        if not self._closing:
            self._answer(self.rid, self._facts())
        return future

    def _facts(self) -> dict[str, str]:
        facts = {
            "sid": self.sid,
            "wait": str(self._wait),
            "hold": str(self._hold),
            "requests": str(self._requests),
            "inactivity": str(INACTIVITY),
            "polling": str(self._polling),
            "ver": "{}.{}".format(*self._version),
            "from": self._bosh.domain,
            "xmpp:version": "1.0",
            "xmpp:restartlogic": "true",
        }
        return facts | ({"ack": str(self.rid)} if self._acks else {})

    def receive(self, body: Body) -> asyncio.Future[Answer]:
        """Take a request in; the answer may come at once or much later. Cancelled, it says that the client has gone."""
        loop = asyncio.get_running_loop()
        rid = body.number("rid")
        if self._final is not None or rid in self._answers:
            future = loop.create_future()
            future.set_result(self._final or self._answers[rid])
            if self._final is not None:
                self._bosh.forget(self)
            return future
        if rid in self._open:
            return self._hold_request(rid)
        spare = 1 if body.terminates else 0
        busy = self._hold_request(rid)
        if not self.rid < rid <= self._received() + self._requests + spare:
            self._end("item-not-found", rid)
        elif self._live() > self._requests + spare or self._too_often(rid, body):
            self._bosh.limit_hit("bosh_requests")
            self._end("policy-violation", rid)
        else:
            self._bodies[rid] = body
            self._take()
        return busy

    def _received(self) -> int:
        """The last request up to which none is missing."""
        rid = self.rid
        while rid + 1 in self._bodies:
            rid += 1
        return rid

    def _live(self) -> int:
        return sum(held.future is not None for held in self._open.values())

    def _too_often(self, rid: int, body: Body) -> bool:
        """Whether the client asks more often than it may (sections 11 and 12)."""
        if not body.polls:
            return False
        now = asyncio.get_running_loop().time()
        before, self._polled = self._polled, (rid, now)
        answer = self._answers.get(rid - 1)
        if answer is not None:
            return before[0] == rid - 1 and now - before[1] < self._polling and answer.data.endswith(b"/>")
        held = self._open.get(rid - 1)
        return self._hold > 0 and held is not None and held.future is not None and now - held.arrived < self._polling

    def _hold_request(self, rid: int) -> asyncio.Future[Answer]:
        """Keep a request waiting; one that is repeated takes the place of the first."""
        loop = asyncio.get_running_loop()
        held = self._open.get(rid)
        if held is None:
            held = self._open[rid] = _Held(loop.time())
        elif held.future is not None:
            self._settle(held, _EMPTY)
        held.future = future = loop.create_future()
        held.timer = loop.call_later(self._wait, self._waited, rid)
        future.add_done_callback(lambda done: self._gone(held) if done.cancelled() else None)
        self._stop_timer()
        self._schedule()
        return future

    def _gone(self, held: _Held) -> None:
        """The client has closed the connection of a request: what comes now waits for its next one."""
        self._settle(held, None)
        self._watch()

    @staticmethod
    def _settle(held: _Held, answer: Answer | None) -> None:
        future, held.future = held.future, None
        if held.timer is not None:
            held.timer.cancel()
        if future is not None and not future.done():
            future.set_result(answer)

    def _take(self) -> None:
        """Hand on what came, in order (section 14.2)."""
        while not self._paused and not self._closing and self.rid + 1 in self._bodies:
            self.rid += 1
            body = self._bodies.pop(self.rid)
            if body.restarts:
                self._open_stream(body)
            self._feed(body)
        self._schedule()

    def _feed(self, body: Body) -> None:
        for payload in body.payloads:
            if not self._closing:
                self._receiver.data_received(payload)
        if body.terminates and not self._closing:
            self._receiver.data_received(f"<close xmlns='{ns.FRAMING}'/>".encode())

    def _open_stream(self, body: Body) -> None:
        given = body.attributes
        attributes = {
            "to": given.get("to") or self._to,
            "from": given.get("from"),
            "version": given.get(f"{XBOSH}version") or "1.0",
            "xml:lang": given.get(f"{{{ns.XML}}}lang"),
        }
        written = "".join(f' {name}="{escape_attribute(value)}"' for name, value in attributes.items() if value)
        self._receiver.data_received(f"<open xmlns='{ns.FRAMING}'{written}/>".encode())

    # answers

    def _schedule(self) -> None:
        if not self._flushing:
            self._flushing = True  # once for all that is sent in this turn of the loop
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        waiting = sorted(rid for rid, held in self._open.items() if rid <= self.rid and held.future is not None)
        while waiting and not self._closing and (self._out or len(waiting) > self._hold):
            self._answer(waiting.pop(0))

    def _waited(self, rid: int) -> None:
        if rid <= self.rid:
            self._answer(rid)
        else:  # those before it are missing, or being worked on
            self._open[rid].timer = asyncio.get_running_loop().call_later(1, self._waited, rid)

    def _answer(self, rid: int, attributes: dict[str, str] | None = None) -> None:
        """Answer a request with what there is to say; those before it, which nobody waits for, get nothing."""
        for older in sorted(before for before in self._open if before < rid):
            self._finish(older, _EMPTY)
        attributes = attributes or {}
        if self._acks and self._received() != rid:
            attributes["ack"] = str(self._received())
        payloads, self._out, self._pending = self._out, [], 0
        self._finish(rid, Answer(write_body(attributes, payloads), self._content))
        self._watch()

    def _finish(self, rid: int, answer: Answer) -> None:
        self._settle(self._open.pop(rid), answer)
        self._answers[rid] = answer
        while len(self._answers) > self._requests:
            del self._answers[min(self._answers)]

    def _end(self, condition: str, culprit: int | None = None) -> None:
        """End the session: ``culprit``, else the oldest request, learns why, the others that it was not they."""
        if self._closing:
            return
        self._closing = True
        self._bodies.clear()
        payloads, self._out, self._pending = self._out, [], 0
        facts = {"type": "terminate"} | ({"condition": condition} if condition else {})
        final = Answer(write_body(facts, payloads), self._content)
        waiting = sorted(rid for rid, held in self._open.items() if held.future is not None)
        told = culprit if culprit is not None else next(iter(waiting), None)
        for rid in waiting:
            self._settle(self._open[rid], final if rid == told else terminal("other-request") if condition else final)
        self._open.clear()
        self._answers.clear()
        self.options.open -= 1
        asyncio.get_running_loop().call_soon(self._lost)
        if waiting:
            self._bosh.forget(self)
        else:
            self._final = final
            self._watch()

    def _end_unsent(self) -> None:
        """The client is not there to take what waits for it."""
        if not self._closing:
            self.unsent, self._out = self._out, []
            self._end("remote-connection-failed")

    def _lost(self) -> None:
        self._receiver.connection_lost(None)

    def refuse(self, condition: str) -> None:
        """End the session for a request that is not looked at; its own answer is the caller's."""
        self._end(condition, 0)
        self._stop_timer()
        self._bosh.forget(self)

    # time

    def _watch(self) -> None:
        """Without a request that waits, the client has so much time to come back (section 10)."""
        self._stop_timer()
        if not self._live():
            self._timer = asyncio.get_running_loop().call_later(INACTIVITY, self._inactive)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _inactive(self) -> None:
        self._end_unsent()
        self._bosh.forget(self)


def _version(text: str) -> tuple[int, int]:
    """The protocol's version as numbers (section 7.1). Raises ValueError."""
    major, _, minor = text.partition(".")
    if not (major.isdecimal() and minor.isdecimal() and len(text) < 10):
        raise ValueError("ver must be two numbers")
    return int(major), int(minor)

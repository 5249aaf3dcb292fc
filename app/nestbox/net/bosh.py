"""XMPP over long-polling HTTP: BOSH (XEP-0124, XEP-0206), on the same stream as WebSocket, a payload a frame.

A session lives on one worker, whose number begins its sid. A request that reaches another worker is handed over on the
bus, and so is its answer: clients need no cookies, and HAProxy may be right or wrong about the way.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from nestbox.core.errors import StreamError
from nestbox.core.registry import Part
from nestbox.net.bosh_session import WAIT, Answer, BoshTransport, terminal
from nestbox.net.transport import MakeReceiver, TransportOptions
from nestbox.wire.bosh import Body, parse_body, sid_in
from nestbox.wire.parser import ReaderLimits

if TYPE_CHECKING:
    from nestbox.core.server import Server

__all__ = ["Bosh"]

RID_MAX = 2**53 - 1
WRAPPER = 2048  # bytes of <body> around the payloads
_PART = "bosh"


class Request(msgspec.Struct, tag="request", array_like=True):
    """A request on its way to the worker that has its session."""

    id: int
    data: bytes


class Gone(msgspec.Struct, tag="gone", array_like=True):
    """The client has given up a request that was handed over."""

    id: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Answer | Request | Gone).decode


class Bosh:
    """The sessions of this worker, and the way to those of the others. ``options`` are limits and counts."""

    def __init__(self, server: Server, make_receiver: MakeReceiver, options: TransportOptions) -> None:
        self._server = server
        self._make_receiver = make_receiver
        self.options = options
        self.domain = server.config.domain
        self.max_message = server.config.limits.stanza_bytes_before_login
        self.max_request = server.config.limits.stanza_bytes + WRAPPER + 1
        self._worker = server.registry.worker
        self._sessions: dict[str, BoshTransport] = {}
        self._ids = itertools.count(1)
        self._asked: dict[int, tuple[int, asyncio.Future[Answer]]] = {}  # who is to answer it, by id
        self._serving: dict[tuple[int, int], asyncio.Future[Answer]] = {}  # what they have asked, by worker and id
        server.registry.part(_PART, self._heard, self._undelivered)
        server.registry.worker_gone.add(self._worker_gone)

    def limit(self, head: bytes) -> int:
        """How many bytes the request that begins like this may have."""
        sid = sid_in(head)
        session = self._sessions.get(sid)
        if session is not None:
            return session.max_message + WRAPPER
        # Its own worker knows better, and looks again.
        return self.max_request - 1 if self._elsewhere(sid) else self.max_message + WRAPPER

    def _elsewhere(self, sid: str) -> int:
        """The other worker that a session is on, 0 when there is none."""
        number = sid.partition("-")[0]
        worker = int(number) if number.isdecimal() and len(number) < 4 else 0
        return worker if worker != self._worker and worker in self._server.bus.workers() else 0

    def request(self, data: bytes, peer: str, secure: bool) -> asyncio.Future[Answer]:
        """Deal with a request. Cancel the future when its client has gone."""
        worker = self._elsewhere(sid_in(data))
        if worker:
            return self._hand_over(worker, data)
        return self._serve(data, peer, secure)

    def too_long(self, head: bytes) -> Answer:
        """The answer to a request that is longer than `limit` says: it ends its session."""
        before = self.limit(head) == self.max_message + WRAPPER
        self.limit_hit("stanza_bytes_before_login" if before else "stanza_bytes")
        return self._refuse(head, "policy-violation")

    def limit_hit(self, name: str) -> None:
        """A client wanted more than it may."""
        self._server.counts.limits_hit[name] += 1

    def _refuse(self, head: bytes, condition: str) -> Answer:
        session = self._sessions.get(sid_in(head))
        if session is not None:
            session.refuse(condition)
        return terminal(condition)

    def _serve(self, data: bytes, peer: str, secure: bool) -> asyncio.Future[Answer]:
        try:
            if len(data) > self.limit(data):
                return _done(self.too_long(data))
            self.options.bytes_in += len(data)
            body = parse_body(data, ReaderLimits(len(data)))
            sid = body.attributes.get("sid")
            if not 0 < body.number("rid") <= RID_MAX:
                raise ValueError("a rid has its bounds")
            if sid is None:
                return self._create(body, peer, secure)
            session = self._sessions.get(sid)
            return session.receive(body) if session is not None else _done(terminal("item-not-found"))
        except (ValueError, StreamError):
            return _done(self._refuse(data, "bad-request"))

    def _create(self, body: Body, peer: str, secure: bool) -> asyncio.Future[Answer]:
        sid = f"{self._worker}-{secrets.token_urlsafe(24)}"
        session = BoshTransport(self, sid, body, peer=peer, secure=secure)
        self._sessions[sid] = session
        return session.start(self._make_receiver, body)

    def forget(self, session: BoshTransport) -> None:
        """A session is over, and its client knows."""
        self._sessions.pop(session.sid, None)

    # between workers

    def _hand_over(self, worker: int, data: bytes) -> asyncio.Future[Answer]:
        number = next(self._ids)
        future = asyncio.get_running_loop().create_future()
        self._asked[number] = (worker, future)
        # Longer than any answer takes; a worker that has just started may not have heard us.
        timer = asyncio.get_running_loop().call_later(WAIT + 15, self._answered, terminal("item-not-found"), number)

        def done(future: asyncio.Future[Answer]) -> None:
            timer.cancel()
            del self._asked[number]
            if future.cancelled():
                self._tell(worker, Gone(number))

        future.add_done_callback(done)
        self._tell(worker, Request(number, data))
        return future

    def _tell(self, worker: int, what: Answer | Request | Gone) -> None:
        self._server.registry.tell(worker, Part(_PART, self._worker, _encode(what)))

    def _answered(self, answer: Answer, number: int) -> None:
        _, future = self._asked.get(number, (0, None))
        if future is not None and not future.done():
            future.set_result(answer)

    def _worker_gone(self, worker: int) -> None:
        """What a dead worker held it will not answer."""
        for number in [number for number, (holder, _) in self._asked.items() if holder == worker]:
            self._answered(terminal("item-not-found"), number)

    def _heard(self, worker: int, data: bytes) -> None:
        what = _decode(data)
        if isinstance(what, Answer):
            self._answered(what, what.id)
        elif isinstance(what, Gone):
            future = self._serving.get((worker, what.id))
            if future is not None:
                future.cancel()
        else:
            # Only sessions that are here are asked for, so where the client comes from does not matter.
            future = self._serving[worker, what.id] = self._serve(what.data, "", False)
            future.add_done_callback(self._reply_to(worker, what.id))

    def _reply_to(self, worker: int, number: int) -> Callable[[asyncio.Future[Answer]], None]:
        def reply(future: asyncio.Future[Answer]) -> None:
            del self._serving[worker, number]
            if not future.cancelled():
                answer = future.result()
                self._tell(worker, Answer(answer.data, answer.content, number))

        return reply

    def _undelivered(self, worker: int, data: bytes) -> None:
        what = _decode(data)
        if isinstance(what, Request):
            self._answered(terminal("item-not-found"), what.id)


def _done(answer: Answer) -> asyncio.Future[Answer]:
    future = asyncio.get_running_loop().create_future()
    future.set_result(answer)
    return future

"""Which worker has a room: one at a time, by a claim on the bus; the others pass on what comes for it.

A claim names the worker and its life. When a worker stops it gives its rooms up and asks others to take them; when it
dies the others take them over. What was passed on and not answered when its taker died is passed on again.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Awaitable
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec

from nestbox.core.errors import StanzaError, StreamError
from nestbox.core.jid import JID, parse_jid
from nestbox.core.registry import Part
from nestbox.wire.stanza import Stanza, parse_stanza

if TYPE_CHECKING:
    from nestbox.modules.muc.room import Room
    from nestbox.modules.muc.service import Service

__all__ = ["Ownership"]

_log = logging.getLogger("nestbox.muc")
KEY = "muc-owners"  # hash on the bus: room -> worker:life
PART = "muc"
TRIES = 8  # times that a stanza is passed on before its sender is told to try again
ANSWER_SECONDS = 30.0
KNOWN_MAX = 20_000  # rooms of other workers that are remembered
DONE, MOVED, FAILED = 0, 1, 2


class _Forward(msgspec.Struct, tag="forward", array_like=True):
    """A stanza for a room of the receiving worker; ``client`` says that a client sent it, not the server."""

    number: int
    room: str
    sender: str
    data: bytes
    client: bool


class _Answer(msgspec.Struct, tag="answer", array_like=True):
    """It is done and durable, or the room is not here, or what it caused could not be stored."""

    number: int
    how: int


class _Take(msgspec.Struct, tag="take", array_like=True):
    """The sender stops: take these rooms, somebody is in them."""

    rooms: list[str]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Forward | _Answer | _Take).decode


class Ownership:
    """This worker's claims, and its view of the others'."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._server = server = service.server
        self._bus = server.bus
        self._me = f"{server.bus.worker}:{secrets.token_hex(8)}".encode()
        self._known: OrderedDict[str, int] = OrderedDict()
        self._waiting: dict[int, tuple[int, asyncio.Future[int]]] = {}
        self._number = 0
        self._stopping = False
        server.registry.part(PART, self._received, self._undelivered)
        server.registry.worker_gone.add(self._worker_gone)
        server.registry.reloaded.add(self._reloaded)
        server.stopping.append(self._give_up)

    # passing on

    async def pass_on(self, sender: JID, to: JID, stanza: Stanza, client: bool) -> int:
        """Handle a stanza for a room that is not known to be here. Raises StanzaError and StreamError."""
        for _ in range(TRIES):
            worker = self._known.get(to.local) or await self._locate(to.local)
            if worker == self._bus.worker:
                room = await self._service.open(to.local)
                outcome = self._service.act(room, sender, to, stanza, client)
                return outcome if isinstance(outcome, int) else await outcome
            how = await self._forward(worker, to.local, sender, stanza, client)
            if how == DONE:
                return 0
            if how == FAILED:
                raise StreamError("internal-server-error", "The server could not store what you sent.")
            self._known.pop(to.local, None)
        raise StanzaError("resource-constraint", "The room is moving; try again.")

    async def _forward(self, worker: int, name: str, sender: JID, stanza: Stanza, client: bool) -> int:
        self._number += 1
        number = self._number
        future = asyncio.get_running_loop().create_future()
        self._waiting[number] = (worker, future)
        try:
            self._tell(worker, _Forward(number, name, str(sender), stanza.encode(), client))
            async with asyncio.timeout(ANSWER_SECONDS):
                return await future
        except TimeoutError:
            raise StanzaError("remote-server-timeout", "The room did not answer.") from None
        finally:
            del self._waiting[number]

    def _tell(self, worker: int, op: object) -> None:
        self._server.registry.tell(worker, Part(PART, self._bus.worker, _encode(op)))

    def _answered(self, number: int, how: int) -> None:
        found = self._waiting.get(number)
        if found is not None and not found[1].done():
            found[1].set_result(how)

    def _undelivered(self, worker: int, data: bytes) -> None:
        op = _decode(data)
        if isinstance(op, _Forward):
            self._answered(op.number, MOVED)

    def _received(self, worker: int, data: bytes) -> None:
        op = _decode(data)
        if isinstance(op, _Answer):
            self._answered(op.number, op.how)
        elif isinstance(op, _Take):
            self._server.spawn(self._take(op.rooms))
        else:
            room = self._service.rooms.get(op.room)
            if room is not None:
                self._act(worker, op, room)
            else:
                self._server.spawn(self._act_later(worker, op))

    async def _act_later(self, worker: int, op: _Forward) -> None:
        try:
            if self._stopping or await self._locate(op.room) != self._bus.worker:
                self._tell(worker, _Answer(op.number, MOVED))
                return
            room = await self._service.open(op.room)
        except Exception:
            self._server.router.bounce(parse_stanza(op.data), StanzaError("internal-server-error"))
            self._tell(worker, _Answer(op.number, DONE))
            raise
        self._act(worker, op, room)

    def _act(self, worker: int, op: _Forward, room: Room) -> None:
        stanza = parse_stanza(op.data)
        try:
            sender, to = parse_jid(op.sender), parse_jid(stanza.to or "")
            outcome = self._service.act(room, sender, to, stanza, op.client)
        except StanzaError as error:
            self._server.router.bounce(stanza, error)
            outcome = 0
        except Exception:
            _log.exception("a %s could not be handled", stanza.kind)
            self._server.router.bounce(stanza, StanzaError("internal-server-error"))
            outcome = 0
        if isinstance(outcome, int):
            self._settle(worker, op.number, outcome)
        else:
            self._server.spawn(self._settle_later(worker, op.number, stanza, outcome))

    async def _settle_later(self, worker: int, number: int, stanza: Stanza, outcome: Awaitable[int]) -> None:
        self._settle(worker, number, await self._server.router.guarded(stanza, outcome))

    def _settle(self, worker: int, number: int, batch: int) -> None:
        """Answer when the batch is durable: only then may the sender's worker acknowledge the stanza."""
        self._server.store.committer.when(batch, lambda ok: self._tell(worker, _Answer(number, DONE if ok else FAILED)))

    # claims

    async def _locate(self, name: str) -> int:
        """The worker that has a room; ourselves, by a new claim, where none that lives has it."""
        holder: bytes | None = None
        while True:
            holder = await self._bus.swap(KEY, name, holder, self._me)
            if holder == self._me:
                return self._bus.worker
            worker = _worker(holder) if holder is not None else 0
            if worker and worker != self._bus.worker and worker in self._bus.workers():
                self._known[name] = worker
                if len(self._known) > KNOWN_MAX:
                    self._known.popitem(last=False)
                return worker

    async def release(self, name: str) -> None:
        """Give a room up."""
        await self._bus.swap(KEY, name, self._me, None)

    async def _take(self, names: list[str]) -> None:
        for name in names:
            if await self._locate(name) == self._bus.worker:
                await self._service.open(name)

    def _next_owner(self, name: str, workers: set[int]) -> int:
        """The one of several workers that takes a room over, the same for all who ask (rendezvous hashing)."""
        return max(sorted(workers), key=lambda worker: crc32(f"{worker}:{name}".encode()))

    def _worker_gone(self, worker: int) -> None:
        for name in [name for name, holder in self._known.items() if holder == worker]:
            del self._known[name]
        for holder, future in self._waiting.values():
            if holder == worker and not future.done():
                future.set_result(MOVED)
        self._server.spawn(self._inherit())

    async def _inherit(self) -> None:
        """Take over rooms of dead workers, and of this one's former lives, so that who was there leaves them."""
        alive = self._bus.workers() | {self._bus.worker}
        for name, holder in (await self._bus.hgetall(KEY)).items():
            worker = _worker(holder)
            if holder == self._me or (worker in alive and worker != self._bus.worker):
                continue
            mine = worker == self._bus.worker or self._next_owner(name, alive) == self._bus.worker
            if mine and await self._bus.swap(KEY, name, holder, self._me) == self._me:
                await self._service.open(name)

    def _reloaded(self) -> None:
        self._server.spawn(self._check())  # whose task, given back, would end the hook's run

    async def _check(self) -> None:
        """Messages of the bus were missed, or it has forgotten everything: see what is still ours."""
        for room in list(self._service.rooms.values()):
            if await self._bus.swap(KEY, room.name, None, self._me) == self._me:
                self._service.check_seats(room)
                room.keep(room.seats.values())
            else:
                self._service.forget(room)  # we were thought dead, and somebody has taken it over
        await self._inherit()

    async def _give_up(self) -> None:
        """This worker stops: the rooms in which somebody is go to others at once."""
        self._stopping = True
        others = self._bus.workers() - {self._bus.worker}
        taken: dict[int, list[str]] = {}
        for room in list(self._service.rooms.values()):
            await room.settle()
            self._service.forget(room)
            await self.release(room.name)
            if room.seats and others:
                taken.setdefault(self._next_owner(room.name, others), []).append(room.name)
        for worker, names in taken.items():
            self._tell(worker, _Take(names))


def _worker(holder: bytes) -> int:
    return int(holder.partition(b":")[0])

"""Which sessions there are, on every worker.

The truth is a hash on the bus. Each worker holds a copy in memory, kept by what the others broadcast, so that routing
a stanza asks nobody; after a gap (a reconnect of the bus) the copy is read anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING

import msgspec

from nestbox.core.hooks import Hook

if TYPE_CHECKING:
    from nestbox.bus.base import Bus
    from nestbox.core.session import Session

__all__ = [
    "KEY",
    "Account",
    "Broadcast",
    "Claim",
    "Claimed",
    "Deliver",
    "Drop",
    "Entry",
    "Follow",
    "Kick",
    "Part",
    "Probe",
    "Push",
    "Put",
    "Registry",
    "Waiting",
    "encode",
]

KEY = "sessions"
FORGET_AT_ONCE = 50  # sessions of a dead worker that are looked after side by side
_log = logging.getLogger("nestbox.registry")
_NOBODY: dict[str, Entry] = {}


class Entry(msgspec.Struct, array_like=True):
    """A bound session. ``priority`` is None until it sends presence; ``uid`` tells two holders of one address apart.

    ``since`` is Unix time in seconds, ``address`` the client's IP address, ``transport`` tcp, websocket or bosh; by the
    id ``stream`` the session can be resumed, '' where it cannot; ``was`` is the ``uid`` it had on a worker that died.
    """

    bare: str
    resource: str
    worker: int
    uid: int
    priority: int | None = None
    carbons: bool = False
    since: int = 0
    address: str = ""
    transport: str = ""
    stream: str = ""
    was: int = 0

    @property
    def jid(self) -> str:
        """The full JID."""
        return f"{self.bare}/{self.resource}"


class Put(msgspec.Struct, tag="put", array_like=True):
    """A session is new or has changed; ``moved_from`` is the worker that has just handed it over, 0 for all else."""

    entry: Entry
    moved_from: int = 0


class Follow(msgspec.Struct, tag="follow", array_like=True):
    """Behind this, worker ``worker`` sends nothing more for a session by the way over its old place."""

    bare: str
    resource: str
    uid: int
    worker: int


class Drop(msgspec.Struct, tag="drop", array_like=True):
    """A session has ended, or was ``parked``: put away until its client resumes it (XEP-0198)."""

    bare: str
    resource: str
    uid: int
    parked: bool = False


class Deliver(msgspec.Struct, tag="deliver", array_like=True):
    """A stanza in canonical bytes for one session of the receiving worker; see `Session.send`.

    ``followed``: it was sent to the session's old place and is older than what comes straight.
    """

    bare: str
    resource: str
    data: bytes
    urgent: bool
    stored_id: int = 0
    followed: bool = False


class Broadcast(msgspec.Struct, tag="broadcast", array_like=True):
    """A presence of ``sender`` without ``to``, for the available sessions of these bare JIDs on one worker."""

    bares: list[str]
    sender: str
    data: bytes


class Probe(msgspec.Struct, tag="probe", array_like=True):
    """Send ``asker`` (a full or bare JID that may see it) the presence of these bare JIDs (RFC 6121, section 4.3).

    Whoever blocks the asker stays silent, unless ``forced``: its block list was changed a moment ago.
    """

    bares: list[str]
    asker: str
    forced: bool = False


class Push(msgspec.Struct, tag="push", array_like=True):
    """A stanza without ``to`` for all sessions of ``bare`` that asked for this kind of news.

    An iq is addressed to each session, a presence, which is news of a subscription, to the account (RFC 6121, sections
    2.1.6 and 3.1.6).

    ``what`` is the attribute of `Session` that says so: ``interested`` or ``blocking_pushes``.
    """

    bare: str
    data: bytes
    what: str


class Kick(msgspec.Struct, tag="kick", array_like=True):
    """End a session with a stream error; uid 0 means whichever holds the address."""

    bare: str
    resource: str
    uid: int
    condition: str
    text: str = ""


class Account(msgspec.Struct, tag="account", array_like=True):
    """An account was changed, disabled or deleted: read it again, and end what it may no longer have."""

    username: str


class Waiting(msgspec.Struct, tag="waiting", array_like=True):
    """Something was put into the store for an account: ``what`` is ``offline`` (messages) or ``requests``."""

    bare: str
    what: str


class Claim(msgspec.Struct, tag="claim", array_like=True):
    """Worker ``worker`` wants to resume stream ``sm_id`` of ``bare`` (XEP-0198, section 5)."""

    sm_id: str
    bare: str
    worker: int


class Claimed(msgspec.Struct, tag="claimed", array_like=True):
    """Worker ``worker`` hands the session over, or says that it does not have it (None)."""

    sm_id: str
    worker: int
    snapshot: bytes | None


class Part(msgspec.Struct, tag="part", array_like=True):
    """What one worker's part of a module, such as the rooms, tells another's; ``data`` is the module's own."""

    module: str
    worker: int
    data: bytes


Op = Put | Follow | Drop | Deliver | Broadcast | Probe | Push | Kick | Account | Waiting | Claim | Claimed | Part
encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Op).decode
_decode_entry = msgspec.msgpack.Decoder(Entry).decode


async def _cannot(stream: str) -> bool:
    return False


class Registry:
    """All sessions; ``sessions`` are this worker's own, by full JID."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.worker = bus.worker
        self.sessions: dict[str, Session] = {}
        self._entries: dict[str, dict[str, Entry]] = {}
        self._reloading: list[dict[str, Entry | int]] = []
        self._handlers: dict[type, Callable[..., None]] = {}
        self._parts: dict[str, tuple[Callable[[int, bytes], None], Callable[[int, bytes], None]]] = {}
        self.on(Part, self._part)
        # Called for a session of ours that another worker has taken over or put away, as it held us for dead.
        self.fenced: Callable[[Session], None] = lambda session: None
        # Called for an entry that another worker has handed over to a third, or we have.
        self.left: Callable[[Entry, int], None] = lambda entry, old: None
        # Puts the session of a dead worker away for its client, by its stream's id; False where that cannot be.
        self.recover: Callable[[str], Awaitable[bool]] = _cannot
        # Called for an entry of a dead worker that could not be put away: its presence must be taken back.
        self.lost: Callable[[Entry], None] = lambda entry: None
        # On every worker: an entry is new or changed; is no more (or was put away to be resumed); all were read anew;
        # a worker has died.
        self.entered: Hook[[Entry]] = Hook()
        self.gone: Hook[[Entry, bool]] = Hook()
        self.reloaded: Hook[[]] = Hook()
        self.worker_gone: Hook[[int]] = Hook()

    def on(self, op: type, handler: Callable[..., None]) -> None:
        """Say who deals with an operation that comes over the bus."""
        self._handlers[op] = handler

    # looking up

    def of(self, bare: str) -> dict[str, Entry]:
        """The sessions of a bare JID, by resource. Not to be changed."""
        return self._entries.get(bare, _NOBODY)

    def available(self, bare: str) -> list[Entry]:
        """The sessions of a bare JID that have sent presence."""
        return [entry for entry in self.of(bare).values() if entry.priority is not None]

    def all(self) -> Iterable[Entry]:
        """Every session on every worker."""
        return (entry for entries in self._entries.values() for entry in entries.values())

    # changing

    async def add(self, session: Session) -> None:
        """Enter a session of this worker; whoever held the address before is told of the conflict by the caller."""
        self.enter(session)
        await self.update(session)

    def enter(self, session: Session) -> None:
        """Enter a session here; `update` tells the others."""
        self.sessions[session.full] = session  # first: `entered` may send it something
        self._put(session.entry)

    async def update(self, session: Session, moved_from: int = 0) -> None:
        """Tell the others what changed in a session's entry, unless it has left us: then it is not ours to tell.

        ``moved_from`` is the worker that has just handed it over to us.
        """
        if self.sessions.get(session.full) is not session:
            return
        await self._bus.hset(KEY, session.full, encode(session.entry))
        if self.sessions.get(session.full) is session:
            self._bus.broadcast(encode(Put(session.entry, moved_from)))

    def moved(self, session: Session, worker: int) -> None:
        """A session goes over to another worker, which will tell everybody; what comes for it until then follows it."""
        if self.sessions.get(session.full) is session:
            del self.sessions[session.full]
        self._put(msgspec.structs.replace(session.entry, worker=worker))

    def leave(self, session: Session) -> None:
        """A session of ours is another worker's, which tells everybody."""
        if self.sessions.get(session.full) is session:
            del self.sessions[session.full]
        self._drop(session.entry.bare, session.entry.resource, session.entry.uid)

    async def remove(self, session: Session, parked: bool = False) -> None:
        """Take a session out, unless its address has a new holder; ``parked``: it may be resumed."""
        entry = session.entry
        if self.sessions.get(session.full) is session:
            del self.sessions[session.full]
        if self._drop(entry.bare, entry.resource, entry.uid, parked):
            await self._bus.hdel(KEY, session.full)
            self._bus.broadcast(encode(Drop(entry.bare, entry.resource, entry.uid, parked)))

    async def reload(self) -> None:
        """Read all entries anew; those of workers that are gone are reported to ``lost`` and removed."""
        meanwhile: dict[str, Entry | int] = {}  # what is heard while we read, which is newer; of a dropped one its uid
        self._reloading.append(meanwhile)
        try:
            raw = await self._bus.hgetall(KEY)
            alive = await self._bus.living() | {self.worker}  # asked after: who has just entered a session is found
        finally:
            self._reloading = [other for other in self._reloading if other is not meanwhile]
        self._entries, dead = {}, []
        for full, value in raw.items():
            entry = _decode_entry(value)
            if meanwhile.get(full) == entry.uid:
                continue
            own = entry.worker == self.worker
            if entry.worker not in alive or (own and full not in self.sessions):
                dead.append(entry)
            else:
                self._put(entry)
        for news in meanwhile.values():
            if isinstance(news, Entry):
                self._put(news)
        missing = [s for s in self.sessions.values() if s.entry.resource not in self.of(s.entry.bare)]
        for session in missing:
            self._put(session.entry)
        # What takes time comes last, so that routing never sees half of the copy.
        await self._forget_all(dead)
        for session in missing:
            await self.update(session)
        self.reloaded.run()

    def worker_lost(self, worker: int) -> Coroutine[object, object, None]:
        """Drop the sessions of a worker that has died: here at once, everywhere by the coroutine.

        At once, since the same worker may be back and enter sessions before the coroutine runs.
        """
        lost = [entry for entry in self.all() if entry.worker == worker]
        for entry in lost:
            self._drop(entry.bare, entry.resource, entry.uid, bool(entry.stream))
        self.worker_gone.run(worker)
        return self._forget_all(lost)

    async def _forget_all(self, entries: list[Entry]) -> None:
        for start in range(0, len(entries), FORGET_AT_ONCE):
            await asyncio.gather(*map(self._forget, entries[start : start + FORGET_AT_ONCE]))

    async def _forget(self, entry: Entry) -> None:
        raw = await self._bus.hget(KEY, entry.jid)
        if raw is None or _decode_entry(raw).uid != entry.uid:
            return  # the address has a new holder, or another worker was quicker
        # Several workers notice a death; the one that removes the field reports it.
        if await self._bus.hdel(KEY, entry.jid):
            recovered = bool(entry.stream) and await self.recover(entry.stream)
            self._bus.broadcast(encode(Drop(entry.bare, entry.resource, entry.uid, recovered)))
            if not recovered:
                self.lost(entry)

    # talking to other workers

    def part(
        self,
        module: str,
        handler: Callable[[int, bytes], None],
        undelivered: Callable[[int, bytes], None] = lambda worker, data: None,
    ) -> None:
        """Say who takes (worker that sent it, data) of a `Part`; and who hears of one whose addressee is dead."""
        self._parts[module] = (handler, undelivered)

    def _part(self, op: Part) -> None:
        handler, _ = self._parts.get(op.module, (None, None))
        if handler is None:  # the other runs another release, or we have only begun
            _log.info("nothing here takes what a %s on worker %d says", op.module, op.worker)
        else:
            handler(op.worker, op.data)

    def part_undelivered(self, worker: int, op: Part) -> None:
        """Nobody took what we sent to another worker."""
        self._parts[op.module][1](worker, op.data)

    def tell(self, worker: int, op: object) -> None:
        """Send an operation to one worker; to ourselves it is dealt with at once."""
        if worker == self.worker:
            self._dispatch(op)
        else:
            self._bus.send(worker, encode(op))

    def tell_all(self, op: object) -> None:
        """Send an operation to every worker and to ourselves."""
        self._bus.broadcast(encode(op))
        self._dispatch(op)

    def deliver(
        self, entry: Entry, data: bytes, urgent: bool = True, stored_id: int = 0, followed: bool = False
    ) -> None:
        """Give a stanza to a session, here or on another worker; see `Deliver`."""
        if entry.worker == self.worker:
            session = self.sessions.get(f"{entry.bare}/{entry.resource}")
            if session is not None:
                session.send(data, urgent, stored_id=stored_id)
        else:
            self._bus.send(entry.worker, encode(Deliver(entry.bare, entry.resource, data, urgent, stored_id, followed)))

    def receive(self, payload: bytes) -> None:
        """Deal with what came over the bus."""
        try:
            op = self.decode(payload)
        except msgspec.MsgspecError:
            _log.error("a bus message of %d bytes is not ours; is another program using the bus?", len(payload))
            return
        self._dispatch(op)

    @staticmethod
    def decode(payload: bytes) -> Op:
        """The operation in a bus message. Raises msgspec.MsgspecError."""
        return _decode(payload)

    def _dispatch(self, op: object) -> None:
        if isinstance(op, Put):
            self._put(op.entry)
            if op.moved_from:
                self.left(op.entry, op.moved_from)
            held = self.sessions.get(op.entry.jid)
            if held is not None and held.sm_id is not None and held.sm_id == op.entry.stream:
                self.fenced(held)
        elif isinstance(op, Drop):
            held = self.sessions.get(f"{op.bare}/{op.resource}")
            if op.parked and held is not None and held.entry.uid == op.uid:
                self.fenced(held)
            else:
                self._drop(op.bare, op.resource, op.uid, op.parked)
        else:
            self._handlers[type(op)](op)

    def _put(self, entry: Entry) -> None:
        for meanwhile in self._reloading:
            meanwhile[entry.jid] = entry
        resources = self._entries.setdefault(entry.bare, {})
        before = resources.get(entry.resource)
        resources[entry.resource] = entry
        if before is not None and before.uid != entry.uid:
            self.gone.run(before, False)
        self.entered.run(entry)

    def _drop(self, bare: str, resource: str, uid: int, parked: bool = False) -> bool:
        for meanwhile in self._reloading:
            held = meanwhile.get(f"{bare}/{resource}")
            if not isinstance(held, Entry) or held.uid == uid:
                meanwhile[f"{bare}/{resource}"] = uid
        resources = self._entries.get(bare)
        entry = resources.get(resource) if resources else None
        if entry is None or entry.uid != uid:
            return False
        del resources[resource]
        if not resources:
            del self._entries[bare]
        self.gone.run(entry, parked)
        return True

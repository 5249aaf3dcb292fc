"""Resumption (XEP-0198, section 5) on whichever worker the client comes back to.

A session is in one place at any time: on a worker, in one bus message between two, or put away on the bus while no
worker has it. Before it moves, or its client is told what we have handled, all that came over its old link is handled
and durable: else the client would send again what we have, or think safe what we have not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from nestbox.bus import BusError
from nestbox.core import registry as reg
from nestbox.core.errors import StreamError
from nestbox.core.following import Following
from nestbox.core.journal import Journal
from nestbox.core.session import GIVEN_MAX, Link, Session, Snapshot
from nestbox.protocol.sm import AckQueue, HandledCountTooHigh
from nestbox.store.errors import StoreError
from nestbox.wire.stanza import parse_stanza

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.core.users import User

__all__ = ["PARKED", "Resumption"]

CLAIM_SECONDS = 3.0  # how long the other workers may take to say whether they have a session
RECOVERY_PAUSE = 0.05  # seconds between two looks at whether a dead worker's session is put away
PARKED = "parked"  # hash on the bus: what was put away, by id, and until when (Unix seconds)
PARKED_SPARE = 600  # seconds for which it stays readable after that, for whoever ends it
HANDLED_SECONDS = 24 * 3600  # for which a client hears how far its lost session got
MOVED_MAX = 1_000  # sessions of which we remember where they went
_log = logging.getLogger("nestbox.resumption")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Snapshot).decode


def _handled_key(user: User, sm_id: str) -> str:
    return f"handled:{user.id}:{sm_id}"


def _taken_over() -> StreamError:
    return StreamError("conflict", "The stream was resumed on another connection.")


@dataclass(slots=True)
class _Claim:
    user: User
    missing: set[int]  # workers that have not answered
    answered: asyncio.Event = field(default_factory=asyncio.Event)


class Resumption:
    """The sessions of this worker that can be resumed, and the way of others to here."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._sessions: dict[str, Session] = {}
        self._claims: dict[str, _Claim] = {}
        self._moved: OrderedDict[str, int] = OrderedDict()
        self._parking: dict[str, asyncio.Event] = {}
        self._following = Following(server)
        self._journal = Journal(server) if server.shared_bus else None
        if self._journal is not None:
            server.registry.recover = self._recover
        server.registry.fenced = self._leave
        server.registry.on(reg.Claim, lambda op: server.spawn(self._give_away(op)))
        server.registry.on(reg.Claimed, self._claimed)
        server.store.committer.failed = self._batch_failed

    def queue(self) -> AckQueue:
        """An empty queue of what a client has not acknowledged, within the limits."""
        limits = self._server.config.limits
        return AckQueue(limits.unacked_stanzas, limits.unacked_bytes)

    def enable(self, session: Session, resume: bool) -> str | None:
        """Count stanzas from now on; the id to resume by, None where the session cannot be resumed."""
        session.sm = self.queue()
        session.received = 0
        session.overflow = self._overflow
        if resume and self._server.config.limits.resume_seconds:
            session.sm_id = secrets.token_urlsafe(18)
            session.entry.stream = session.sm_id  # the others hear of it with its presence
            self._sessions[session.sm_id] = session
            self._keep_journal(session)
        return session.sm_id

    def outlives(self, session: Session) -> bool:
        """Whether another worker can go on with the session when this one stops."""
        server = self._server
        return session.sm_id is not None and server.shared_bus and server.config.limits.resume_seconds > 0

    def _keep_journal(self, session: Session) -> None:
        if self._journal is not None:
            self._journal.begin(session)

    def forget(self, session: Session) -> None:
        """The session has ended, or is another worker's now."""
        if session.journal is not None:
            session.journal.end(session)
        if session.sm_id is not None and self._sessions.get(session.sm_id) is session:
            del self._sessions[session.sm_id]

    def _overflow(self, session: Session) -> None:
        limits = self._server.config.limits
        limit = "unacked_bytes" if session.sm.size > limits.unacked_bytes else "unacked_stanzas"
        self._server.counts.limits_hit[limit] += 1  # by hand: it may have no connection that could be told
        error = StreamError("resource-constraint", "Too many stanzas are not acknowledged.")
        self._server.spawn(self._server.end_session(session, error))

    async def resume(self, link: Link, username: str, sm_id: str, h: int) -> Session | None:
        """Take up a session where its client left it; None where there is none that can be resumed.

        When it returns, the caller must answer and send ``session.sm.unacked()`` before it waits for anything: from
        then on the session writes to ``link``. Raises StreamError when ``h`` counts more than was sent (section 5).
        """
        server = self._server
        user = await server.users.load(username)
        if user is None or not user.enabled or server.draining:
            return None
        session = self._sessions.get(sm_id)
        if session is None:
            await self._claim(sm_id, user)
            session = self._sessions.get(sm_id)
        if session is None or session.entry.bare != user.jid:
            return None
        await self._settle(session, _taken_over())
        await self.keep(session)
        if session.ended or self._sessions.get(sm_id) is not session:
            return None  # somebody else was quicker, or it came to its end
        recovered = session.sm.recovered is not None
        try:
            session.sm.ack(h)
        except HandledCountTooHigh:  # the client would never get further than this
            server.spawn(server.end_session(session))
            raise
        if recovered:  # what came since may count from another number now
            self._keep_journal(session)
        session.release()  # into the queue, to be sent with the rest
        session.held = None  # the client state begins anew (XEP-0352, section 5.2)
        session.link = link
        server.counts.resumed += 1
        asyncio.get_running_loop().call_soon(self._resumed, session, link)
        return session

    def _resumed(self, session: Session, link: Link) -> None:
        if session.link is link:
            self._server.hooks.session_resumed.run(session)
            if session.presence is not None and session.entry.priority is None:  # contacts have seen it go
                self._server.spawn(self._come_back(session))

    async def _come_back(self, session: Session) -> None:
        outcome = self._server.router.presence(session, parse_stanza(session.presence), None)
        if not isinstance(outcome, int):
            await outcome

    # all that came in is dealt with

    @staticmethod
    def _detach(session: Session, error: StreamError | None) -> None:
        link, session.link = session.link, None
        if link is None:
            return
        session.away_since = asyncio.get_running_loop().time()
        if error is None:
            link.drop()
        else:
            link.end(error)

    async def _settle(self, session: Session, error: StreamError | None) -> None:
        """Cut the link, with an error or without a word, and wait until what came over it is handled and durable."""
        committer = self._server.store.committer
        self._detach(session, error)
        while session.handling is not None or session.pending:
            if session.handling is not None:
                await asyncio.wait((session.handling,))
            else:
                done = asyncio.Event()
                committer.when(session.pending[-1][1], lambda _durable, done=done: done.set())
                await done.wait()
                session.durable(committer.committed)
            self._detach(session, error)

    async def keep(self, session: Session) -> None:
        """Wait until how far a session has got, and what it was sent, is known outside this worker."""
        if session.journal is not None:
            session.durable(self._server.store.committer.committed)
            done = asyncio.Event()
            session.journal.keep(session, done.set)
            await done.wait()

    def _batch_failed(self, batch: int) -> None:
        """Called before `Committer.committed` passes a batch that will never be durable."""
        error = StreamError("internal-server-error", "The server could not store what you sent; please send it again.")
        for session in list(self._server.registry.sessions.values()):
            if session.pending and session.undo(batch):
                self._detach(session, error)

    # from another worker

    async def _claim(self, sm_id: str, user: User) -> None:
        """Get a session from wherever it is into ``_sessions``, if it is anywhere."""
        if await self._take_parked(sm_id, user):
            return
        bus = self._server.bus
        claim = self._claims.get(sm_id)
        if claim is None:
            # A holder that is known is asked alone: when it is dead, nobody takes the question, and that is noticed.
            entries = self._server.registry.of(user.jid).values()
            holders = {entry.worker for entry in entries if entry.stream == sm_id} - {bus.worker}
            claim = self._claims[sm_id] = _Claim(user, holders or bus.workers() - {bus.worker})
            if not claim.missing:
                claim.answered.set()
            for worker in claim.missing:
                self._server.registry.tell(worker, reg.Claim(sm_id, user.jid, bus.worker))
        try:
            await asyncio.wait_for(claim.answered.wait(), CLAIM_SECONDS)
        except TimeoutError:
            _log.info("not every worker said whether it has the session")
        finally:
            if self._claims.get(sm_id) is claim:
                del self._claims[sm_id]
        if sm_id not in self._sessions and not await self._take_parked(sm_id, user):  # a worker may have stopped
            await self._await_recovery(sm_id, user)

    async def _await_recovery(self, sm_id: str, user: User) -> None:
        """The worker has died: another puts its sessions away at this moment, or has died at that, too."""
        tries = int(CLAIM_SECONDS / RECOVERY_PAUSE)
        while tries and self._journal is not None and await self._journal.whose(sm_id) == user.jid:
            tries -= 1
            if not tries and all(held.stream != sm_id for held in self._server.registry.of(user.jid).values()):
                await self._recover(sm_id)
            if await self._take_parked(sm_id, user):
                return
            await asyncio.sleep(RECOVERY_PAUSE)
        await self._take_parked(sm_id, user)  # it may have been put away between two questions

    def _claimed(self, op: reg.Claimed) -> None:
        claim = self._claims.get(op.sm_id)
        if op.snapshot is not None:
            self._adopt(op.snapshot, claim.user if claim is not None else None, op.worker)
        if claim is not None:
            claim.missing.discard(op.worker)
            if op.snapshot is not None or not claim.missing:
                claim.answered.set()

    async def _give_away(self, op: reg.Claim) -> None:
        session = self._sessions.get(op.sm_id)
        if session is not None and session.entry.bare == op.bare:
            await self._settle(session, _taken_over())
            if self._sessions.get(op.sm_id) is session:
                snapshot = self._take_out(session)
                self._server.registry.moved(session, op.worker)
                self._moved[op.sm_id] = op.worker
                if len(self._moved) > MOVED_MAX:
                    self._moved.popitem(last=False)
                self._server.registry.tell(op.worker, reg.Claimed(op.sm_id, self._server.bus.worker, snapshot))
                return
        parking = self._parking.get(op.sm_id)
        if parking is not None:
            await parking.wait()
        holder = self._moved.get(op.sm_id)
        if holder is not None and holder != op.worker and op.sm_id not in self._sessions:
            self._server.registry.tell(holder, op)  # it arrives there after the session
            return
        self._server.registry.tell(op.worker, reg.Claimed(op.sm_id, self._server.bus.worker, None))

    def _take_out(self, session: Session) -> bytes:
        session.ended = True
        self.forget(session)
        return _encode(session.snapshot(time.time()))

    def _adopt(self, raw: bytes, user: User | None, moved_from: int = 0) -> Session | None:
        """Go on with a session here; None when its address has a newer holder, which ends it.

        ``moved_from`` is the worker that has just handed it over, 0 where it was put away.
        """
        server = self._server
        snapshot = _decode(raw)
        entry = snapshot.entry
        if user is None:
            user = server.users.peek(entry.bare.partition("@")[0])
        if user is None or user.jid != entry.bare:
            server.spawn(self._adopt_later(raw, moved_from))
            return None
        session = Session(user, msgspec.structs.replace(entry, worker=server.bus.worker), None)
        session.sm_id = snapshot.sm_id
        session.sm = self.queue()
        session.sm.restore(snapshot.acked, snapshot.queue)
        if snapshot.recovered:
            session.sm.recovered = len(snapshot.queue)
        if snapshot.given:
            session.given = deque(snapshot.given, GIVEN_MAX)
        session.overflow = self._overflow
        session.received = session.told = snapshot.received
        session.presence = snapshot.presence
        session.interested = snapshot.interested
        session.blocking_pushes = snapshot.blocking_pushes
        session.directed = set(snapshot.directed) or None
        session.moved_at = snapshot.detached_at
        session.away_since = asyncio.get_running_loop().time()
        holder = server.registry.of(entry.bare).get(entry.resource)
        if holder is not None and holder.uid != entry.uid:
            server.spawn(server.reroute_left(session))
            return None
        self._moved.pop(snapshot.sm_id, None)
        self._sessions[snapshot.sm_id] = session
        self._keep_journal(session)
        server.registry.enter(session)
        if moved_from:
            self._following.come(session)
        server.spawn(server.registry.update(session, moved_from))
        return session

    async def _adopt_later(self, raw: bytes, moved_from: int) -> None:
        username = _decode(raw).entry.bare.partition("@")[0]
        user = await self._server.users.load(username)
        if user is not None:  # else the account is gone, and its messages with it
            self._adopt(raw, user, moved_from)

    # of a worker that was killed

    def owner_gone(self, op: reg.Claim) -> None:
        """Nobody took our question for a session: its worker is dead, and what it had is put away."""
        claim = self._claims.get(op.sm_id)
        if claim is not None:
            claim.answered.set()

    async def _recover(self, sm_id: str) -> bool:
        """Put away a session of a dead worker, as that would have done when it stopped; False where that cannot be.

        The new ``uid`` is a fencing token: a worker that was only thought dead loses the session.
        """
        try:
            snapshot = await self._journal.recover(sm_id)
        except StoreError as error:
            _log.warning("a session of a dead worker is not put away until its client comes: %s", error)
            await self._server.bus.hset(PARKED, sm_id, self._until())
            return True
        if snapshot is None:
            return False
        self._server.counts.recovered += 1
        uid = self._server.ids.next()
        entry = msgspec.structs.replace(snapshot.entry, uid=uid, was=snapshot.entry.uid, priority=None)
        await self._put_away(sm_id, _encode(msgspec.structs.replace(snapshot, entry=entry)))
        self._journal.discard(sm_id)
        return True

    async def bus_was_away(self) -> None:
        """Leave what was put away since we were thought dead, and write the journals anew."""
        if self._journal is None:
            return
        for sm_id in await self._server.bus.hgetall(PARKED):
            if sm_id in self._sessions:
                self._leave(self._sessions[sm_id])
        self._journal.write_anew(list(self._sessions.values()))

    def _leave(self, session: Session) -> None:
        """The session is not ours any more, since we were thought dead; no contact must see it go."""
        session.ended = True
        session.journal = None  # it has a new one
        self.forget(session)
        self._server.registry.leave(session)
        self._detach(session, _taken_over())

    # while no worker has it

    async def park(self, session: Session) -> None:
        """Leave a session on the bus for whichever worker its client comes back to.

        Meanwhile its address is nobody's, so messages are kept for it as for one who is offline.
        """
        await self._settle(session, None)
        if session.ended:
            return
        sm_id = session.sm_id
        self._parking[sm_id] = asyncio.Event()
        try:
            snapshot = self._take_out(session)
            await self._server.registry.remove(session, parked=True)
            await self._put_away(sm_id, snapshot)
        finally:
            self._parking.pop(sm_id).set()

    async def _put_away(self, sm_id: str, snapshot: bytes) -> None:
        bus, seconds = self._server.bus, self._server.config.limits.resume_seconds
        await bus.set(f"sm:{sm_id}", snapshot, seconds + PARKED_SPARE)
        await bus.hset(PARKED, sm_id, self._until())

    def _until(self) -> bytes:
        return str(int(time.time() + self._server.config.limits.resume_seconds)).encode()

    async def _take_parked(self, sm_id: str, user: User) -> bool:
        bus = self._server.bus
        raw = await bus.get(f"sm:{sm_id}")
        if raw is None or _decode(raw).entry.bare != user.jid:
            return False
        stored = None
        if self._journal is not None and _decode(raw).recovered:
            stored = await self._journal.stored(sm_id)
        raw = await bus.take(f"sm:{sm_id}")  # of several workers, one gets it
        if raw is None:
            return False
        await bus.hdel(PARKED, sm_id)
        self._adopt(Journal.at_least(raw, stored), user)
        return True

    async def end_parked(self) -> None:
        """End what was put away and not resumed in time: contacts see it go, its messages find another way."""
        bus = self._server.bus
        now = time.time()
        for sm_id, until in (await bus.hgetall(PARKED)).items():
            if int(until) < now and await bus.hdel(PARKED, sm_id):
                raw = await bus.take(f"sm:{sm_id}")
                if raw is None and self._journal is not None and await self._recover(sm_id):
                    raw = await bus.take(f"sm:{sm_id}")
                if raw is None:
                    continue
                user = await self._server.users.load(_decode(raw).entry.bare.partition("@")[0])
                session = self._adopt(raw, user) if user is not None else None
                if session is not None:
                    await self.expire(session)

    async def expire(self, session: Session) -> None:
        """End a session whose client has not come back in time.

        How much it has handled is kept for a while, so that the client need not send that again (XEP-0198, section 5).
        """
        if session.sm_id is not None:
            h = session.durable(self._server.store.committer.committed)
            with contextlib.suppress(BusError):  # without it the client sends more than it must
                await self._server.bus.set(_handled_key(session.user, session.sm_id), b"%d" % h, HANDLED_SECONDS)
        await self._server.end_session(session)

    async def handled(self, username: str, sm_id: str) -> int | None:
        """How many stanzas an account's session that was not resumed in time had handled, None where nobody knows."""
        user = await self._server.users.load(username)
        found = await self._server.bus.get(_handled_key(user, sm_id)) if user is not None else None
        return int(found) if found is not None else None

"""One worker's server: what modules are given, and the life of sessions from bind to end."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from nestbox.core import registry as reg
from nestbox.core.errors import StanzaError, StreamError
from nestbox.core.hooks import Hooks
from nestbox.core.jid import prepare_resource
from nestbox.core.registry import Entry, Registry
from nestbox.core.router import Router
from nestbox.core.session import Link, Session, Snapshot
from nestbox.core.users import Users
from nestbox.protocol.sm import AckQueue
from nestbox.wire.stanza import readdress

if TYPE_CHECKING:
    from nestbox.bus.base import Bus
    from nestbox.config import Config
    from nestbox.core.ids import IdSource
    from nestbox.store import Store

__all__ = ["Counts", "Server"]

TICK = 5.0  # seconds between looks at what has timed out
CLAIM_SECONDS = 3.0  # how long another worker may take to hand a session over
_log = logging.getLogger("nestbox.server")
_snapshot_encode = msgspec.msgpack.Encoder().encode
_snapshot_decode = msgspec.msgpack.Decoder(Snapshot).decode


@dataclass(slots=True)
class Counts:
    """What the hot path counts, as plain integers; the metrics page reads them."""

    messages_in: int = 0
    presences_in: int = 0
    iqs_in: int = 0
    stanzas_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    logins: int = 0
    logins_failed: int = 0
    resumed: int = 0
    limits_hit: int = 0


class Server:
    """Joins configuration, store, bus, registry, router and hooks; modules add themselves to it in ``setup``."""

    def __init__(self, config: Config, store: Store, bus: Bus, ids: IdSource) -> None:
        self.config = config
        self.store = store
        self.bus = bus
        self.ids = ids
        self.hooks = Hooks()
        self.counts = Counts()
        self.registry = Registry(bus)
        self.users = Users(store, config.domain)
        self.router = Router(self)
        # Features for XEP-0030: of the host, and of accounts' bare JIDs.
        self.host_features: set[str] = set()
        self.account_features: set[str] = set()
        # Stream features after authentication, as canonical bytes (RFC 6120, section 4.3.2).
        self.stream_features: list[bytes] = []
        # What a client may send beside stanzas, by tag: handler(session, element).
        self.nonzas: dict[str, object] = {}
        self.started = time.time()
        self.draining = False
        self._tasks: set[asyncio.Task[object]] = set()
        self._claims: dict[str, asyncio.Future[bool]] = {}
        self._by_sm_id: dict[str, Session] = {}
        for op, handler in (
            (reg.Deliver, self.router.delivered),
            (reg.Push, self._push),
            (reg.Kick, self._kick),
            (reg.Account, lambda op: self.spawn(self._account_changed(op.username))),
            (reg.Claim, lambda op: self.spawn(self._give_away(op))),
            (reg.Claimed, self._claimed),
        ):
            self.registry.on(op, handler)

    def spawn(self, coroutine: Coroutine[object, object, object]) -> None:
        """Run something beside the current stanza; its failure is logged."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._spawned)

    def _spawned(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a background task failed", exc_info=task.exception())

    # sessions

    async def bind(self, link: Link, username: str, resource: str | None, address: str, transport: str) -> Session:
        """Bind a resource (RFC 6120, section 7). The newer session wins a conflict (section 7.7.2.2).

        Raises StanzaError: bad-request for an impossible resource, resource-constraint for one session too many.
        """
        user = await self.users.load(username)
        if user is None or not user.enabled:
            raise StreamError("not-authorized", "This account is disabled.")
        try:
            resource = prepare_resource(resource) if resource else secrets.token_urlsafe(9)
        except ValueError as error:
            raise StanzaError("bad-request", str(error)) from None
        others = self.registry.of(user.jid)
        if resource not in others and len(others) >= self.config.limits.sessions_per_user:
            self.counts.limits_hit += 1
            raise StanzaError("resource-constraint", "This account has too many sessions.")
        held = others.get(resource)
        if held is not None:
            await self._replace(held)
        entry = Entry(user.jid, resource, self.bus.worker, self.ids.next(), None, False, int(time.time()), address, transport)
        session = Session(user, entry, link)
        await self.registry.add(session)
        self.hooks.session_bound.run(session)
        return session

    async def _replace(self, entry: Entry) -> None:
        conflict = reg.Kick(entry.bare, entry.resource, entry.uid, "conflict", "Another session took this resource.")
        if entry.worker != self.bus.worker:
            self.registry.tell(entry.worker, conflict)
            return
        session = self.registry.sessions.get(entry.jid)
        if session is not None:
            await self.end_session(session, StreamError("conflict", conflict.text))

    def _kick(self, op: reg.Kick) -> None:
        session = self.registry.sessions.get(f"{op.bare}/{op.resource}")
        if session is not None and op.uid in (0, session.entry.uid):
            self.spawn(self.end_session(session, StreamError(op.condition, op.text)))

    async def end_session(self, session: Session, error: StreamError | None = None) -> None:
        """End a session for good: contacts see it go, what it has not acknowledged finds another way."""
        if session.ended:
            return
        session.ended = True
        if session.sm_id:
            self._by_sm_id.pop(session.sm_id, None)
        link, session.link = session.link, None
        if link is not None:
            link.end(error)
        await self.registry.remove(session)
        self.hooks.session_ended.run(session)
        left = session.sm.unacked() if session.sm is not None else []
        left.extend(session.held or ())
        for data in left:
            await self.router.reroute(session.entry.bare, data)

    async def connection_lost(self, session: Session, clean: bool) -> None:
        """The transport under a session is gone; where the client may resume, the session waits for it."""
        if session.ended:
            return
        session.link = None
        if clean or session.sm_id is None or self.config.limits.resume_seconds == 0:
            await self.end_session(session)
        else:
            session.away_since = asyncio.get_running_loop().time()

    def _push(self, op: reg.Push) -> None:
        if op.what == "interested":
            self.users.roster_changed(op.bare)
        for entry in self.registry.of(op.bare).values():
            session = self.registry.sessions.get(entry.jid)
            if session is not None and getattr(session, op.what):
                session.send(readdress(op.data, session.full))

    async def _account_changed(self, username: str) -> None:
        await self.users.changed(username)
        user = await self.users.load(username)
        if user is None or not user.enabled:
            bare = f"{username}@{self.config.domain}"
            for session in [s for s in self.registry.sessions.values() if s.entry.bare == bare]:
                await self.end_session(session, StreamError("not-authorized", "This account is disabled."))

    # stream management (XEP-0198)

    def enable_sm(self, session: Session, resume: bool) -> str | None:
        """Count stanzas from now on; the id to resume by, None where the session cannot be resumed."""
        limits = self.config.limits
        session.sm = AckQueue(limits.unacked_stanzas, limits.unacked_bytes)
        session.received = 0
        if resume and limits.resume_seconds:
            session.sm_id = secrets.token_urlsafe(18)
            self._by_sm_id[session.sm_id] = session
        return session.sm_id

    async def resume(self, link: Link, username: str, sm_id: str, h: int) -> Session | None:
        """Take up a session where its client left it, from here or from another worker; None where there is none.

        Raises StreamError when ``h`` counts more than was sent (XEP-0198, section 5).
        """
        session = self._by_sm_id.get(sm_id)
        if session is None:
            session = await self._fetch(sm_id, username)
        if session is None or session.ended or session.user.username != username:
            return None
        session.sm.ack(h)
        old, session.link = session.link, None
        if old is not None:
            old.end(StreamError("conflict", "The stream was resumed on another connection."))
        session.link = link
        self.counts.resumed += 1
        self.hooks.session_resumed.run(session)
        return session

    async def _fetch(self, sm_id: str, username: str) -> Session | None:
        raw = await self.bus.take(f"sm:{sm_id}")
        others = self.bus.workers() - {self.bus.worker}
        if raw is None and others:
            future = self._claims[sm_id] = asyncio.get_running_loop().create_future()
            self.bus.broadcast(reg.encode(reg.Claim(sm_id, self.bus.worker)))
            try:
                await asyncio.wait_for(future, CLAIM_SECONDS)
            except TimeoutError:
                pass  # nobody has it, or its worker is dead: then what was put away is all there is
            finally:
                self._claims.pop(sm_id, None)
            raw = await self.bus.take(f"sm:{sm_id}")
        if raw is None:
            return None
        snapshot = _snapshot_decode(raw)
        user = await self.users.load(username)
        if user is None or snapshot.entry.bare != user.jid:
            return None
        return await self._rebuild(snapshot, user)

    async def _rebuild(self, snapshot: Snapshot, user: object) -> Session:
        entry = snapshot.entry
        entry.worker = self.bus.worker
        session = Session(user, entry, None)
        session.sm_id = snapshot.sm_id
        session.sm = AckQueue(self.config.limits.unacked_stanzas, self.config.limits.unacked_bytes)
        session.sm.restore(snapshot.acked, snapshot.queue)
        session.received = snapshot.received
        session.presence = snapshot.presence
        session.interested = snapshot.interested
        session.blocking_pushes = snapshot.blocking_pushes
        session.directed = set(snapshot.directed) or None
        session.away_since = asyncio.get_running_loop().time()
        self._by_sm_id[snapshot.sm_id] = session
        await self.registry.add(session)
        return session

    async def _put_away(self, session: Session) -> None:
        """Leave a session on the bus for whichever worker its client comes back to."""
        session.ended = True
        self._by_sm_id.pop(session.sm_id, None)
        self.registry.sessions.pop(session.full, None)
        link, session.link = session.link, None
        if link is not None:
            link.end(None)
        snapshot = session.snapshot(time.time())
        await self.bus.set(f"sm:{session.sm_id}", _snapshot_encode(snapshot), self.config.limits.resume_seconds + 60)

    async def _give_away(self, op: reg.Claim) -> None:
        session = self._by_sm_id.get(op.sm_id)
        if session is None:
            return
        await self._put_away(session)
        self.registry.tell(op.worker, reg.Claimed(op.sm_id, True))

    def _claimed(self, op: reg.Claimed) -> None:
        future = self._claims.get(op.sm_id)
        if future is not None and not future.done():
            future.set_result(op.found)

    # time

    async def tick(self) -> None:
        """Look at every session once: acknowledgements to ask for, absences that have lasted too long."""
        now = asyncio.get_running_loop().time()
        limit = self.config.limits.resume_seconds
        for session in list(self.registry.sessions.values()):
            if session.link is None:
                if not session.ended and now - session.away_since > limit:
                    await self.end_session(session)
            elif session.ack_due:
                session.ack_due = False
                session.link.request_ack()

    async def run_ticks(self) -> None:
        """Call `tick` until cancelled."""
        while True:
            await asyncio.sleep(TICK)
            try:
                await self.tick()
            except Exception:
                _log.exception("the regular look at sessions failed")

    async def stop(self) -> None:
        """Send every client away; those that can resume find their session on the next worker."""
        self.draining = True
        shutdown = StreamError("system-shutdown", "This worker restarts; please reconnect.")
        for session in list(self.registry.sessions.values()):
            if session.sm_id is not None and self.config.limits.resume_seconds:
                link = session.link
                if link is not None:
                    session.link = None
                    link.end(shutdown)
                await self._put_away(session)
            else:
                await self.end_session(session, shutdown)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

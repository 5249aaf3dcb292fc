"""One worker's server: what modules are given, and the life of sessions from bind to end."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nestbox.bus import BusError
from nestbox.core import registry as reg
from nestbox.core.errors import StanzaError, StreamError
from nestbox.core.guard import Guard
from nestbox.core.hooks import Hooks
from nestbox.core.jid import prepare_resource
from nestbox.core.logins import Logins
from nestbox.core.questions import Questions
from nestbox.core.registry import Entry, Registry
from nestbox.core.resumption import Resumption
from nestbox.core.router import Router
from nestbox.core.session import Link, Session
from nestbox.core.sources import Sources
from nestbox.core.users import User, Users
from nestbox.wire.element import Element
from nestbox.wire.stanza import readdress

if TYPE_CHECKING:
    from nestbox.bus.base import Bus
    from nestbox.config import Config
    from nestbox.core.hooks import IqContext
    from nestbox.core.ids import IdSource
    from nestbox.core.jid import JID
    from nestbox.core.visitor import VisitorHandler
    from nestbox.store import Store
    from nestbox.wire.element import Element

__all__ = ["Counts", "Server"]

TICK = 5.0  # seconds between looks at what has timed out
PARKED_TICKS = 12  # ticks between looks at sessions that no worker has
STOP_SECONDS = 0.2  # what others sent before they heard that we stop arrives within this
_log = logging.getLogger("nestbox.server")


@dataclass(slots=True)
class Counts:
    """What the hot path counts, as plain integers; the metrics page reads them.

    ``limits_hit`` is by the limit's name: a field of `nestbox.config.Limits`, or what a module calls one of its own.
    """

    messages_in: int = 0
    presences_in: int = 0
    iqs_in: int = 0
    stanzas_out: int = 0
    logins: int = 0
    logins_failed: int = 0
    logins_delayed: int = 0
    slowed: int = 0
    resumed: int = 0
    recovered: int = 0
    limits_hit: Counter[str] = field(default_factory=Counter)
    uploads: int = 0
    upload_bytes: int = 0
    pushes: int = 0
    pushes_failed: int = 0

    def refused(self, error: StanzaError | StreamError | None) -> None:
        """An error goes back to who caused it: where that was by going over a limit, count it."""
        if error is not None and error.limit:
            self.limits_hit[error.limit] += 1


class Server:
    """Joins configuration, store, bus, registry, router and hooks; modules add themselves to it in ``setup``."""

    def __init__(self, config: Config, store: Store, bus: Bus, ids: IdSource, secret: bytes | None = None) -> None:
        self.config = config
        self.secret = secret or secrets.token_bytes(32)  # all workers have the same
        self.store = store
        self.bus = bus
        self.ids = ids
        self.hooks = Hooks()
        self.counts = Counts()
        limits = config.limits
        self.sources = Sources(limits.trusted_addresses)
        self.guard = Guard(self.sources, limits.failed_logins_per_address, limits.failed_logins_per_account)
        self.registry = Registry(bus)
        self.users = Users(store, config.domain)
        self.router = Router(self)
        # Features for XEP-0030: of the host, and of accounts' bare JIDs.
        self.host_features: set[str] = set()
        self.account_features: set[str] = set()
        # Forms in the host's disco answer (XEP-0128).
        self.host_forms: list[Element] = []
        # What an account's bare JID is, as (category, type); and who answers for its nodes (XEP-0163).
        self.account_identities: list[tuple[str, str]] = [("account", "registered")]
        self.account_disco: Callable[[IqContext], Awaitable[Element]] | None = None
        # Nodes under which the host's features are known, too (XEP-0115).
        self.host_nodes: set[str] = set()
        # Who knows other nodes of the host: (tag of the query, node, sender) -> the answer, None for "not mine".
        self.disco_nodes: list[Callable[[str, str, JID], Element | None]] = []
        # The host's ad-hoc commands by node (XEP-0050): `nestbox.modules.commands.Command`.
        self.commands: dict[str, object] = {}
        # Stream features after authentication, as canonical bytes (RFC 6120, section 4.3.2).
        self.stream_features: list[bytes] = []
        # What Bind 2 can switch on, by tag (XEP-0386, section 3.2): handler(session, element), before others see the
        # session; and what a client is told when it is bound so: coroutine(session) of children of <bound/>.
        self.inline: dict[str, Callable[[Session, Element], None]] = {}
        self.bound: list[Callable[[Session], Awaitable[bytes]]] = []
        # What a client may send beside stanzas, by tag: handler(session, element).
        self.nonzas: dict[str, object] = {}
        # Iqs that those who have not logged in may send, by the payload's tag; and stream features that say so.
        self.visitor_iqs: dict[str, VisitorHandler] = {}
        self.visitor_features: list[bytes] = []
        # Set by XEP-0379: whether (account asked, asker, token) makes a subscription approved.
        self.preauthorised: Callable[[User, JID, str], Awaitable[bool]] | None = None
        # Set by XEP-0114 where components are expected: `nestbox.modules.components.Components`.
        self.components = None
        # What modules do when the worker stops, after its last session.
        self.stopping: list[Callable[[], Awaitable[None]]] = []
        self.started = time.time()
        self.draining = False
        self._tasks: set[asyncio.Task[object]] = set()
        self._ticks = 0
        self.questions = Questions(self)
        self.resumption = Resumption(self)
        self.logins = Logins(self)
        self.enable_sm = self.resumption.enable
        self.resume = self.resumption.resume
        for op, handler in (
            (reg.Deliver, self.router.delivered),
            (reg.Push, self._push),
            (reg.Kick, self._kick),
            (reg.Account, lambda op: self.spawn(self._account_changed(op.username))),
        ):
            self.registry.on(op, handler)

    def spawn(self, coroutine: Coroutine[object, object, object]) -> asyncio.Task[object]:
        """Run something beside the current stanza; its failure is logged."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._spawned)
        return task

    def _spawned(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a background task failed", exc_info=task.exception())

    # sessions

    async def bind(
        self,
        link: Link,
        username: str,
        resource: str | None,
        address: str,
        transport: str,
        prepare: Callable[[Session], None] = lambda session: None,
    ) -> Session:
        """Bind a resource (RFC 6120, section 7). The newer session wins a conflict (section 7.7.2.2).

        ``prepare`` is called before others see the session. Raises StanzaError: bad-request for an impossible resource,
        resource-constraint for one session too many; BusError.
        """
        user = await self.users.load(username)
        if user is None or not user.enabled:
            raise StreamError("not-authorized", "This account is disabled.")
        if self.draining:
            raise StreamError("system-shutdown", "This worker restarts; please reconnect.")
        try:
            resource = prepare_resource(resource) if resource else secrets.token_urlsafe(9)
        except ValueError as error:
            raise StanzaError("bad-request", str(error)) from None
        others = self.registry.of(user.jid)
        if resource not in others and len(others) >= self.config.limits.sessions_per_user:
            text = "This account has too many sessions."
            raise StanzaError("resource-constraint", text, limit="sessions_per_user")
        while (held := self.registry.of(user.jid).get(resource)) is not None:
            if not await self._replace(held):
                break
        since = int(time.time())
        entry = Entry(user.jid, resource, self.bus.worker, self.ids.next(), None, False, since, address, transport)
        session = Session(user, entry, link)
        prepare(session)
        try:
            await self.registry.add(session)
        except BusError:
            self.registry.leave(session)
            raise
        self.hooks.session_bound.run(session)
        return session

    async def _replace(self, entry: Entry) -> bool:
        """End the holder of an address; True when it was ours, and another may have come while we waited."""
        conflict = reg.Kick(entry.bare, entry.resource, entry.uid, "conflict", "Another session took this resource.")
        if entry.worker != self.bus.worker:
            self.registry.tell(entry.worker, conflict)
            return False
        session = self.registry.sessions.get(entry.jid)
        if session is None:
            return False
        await self.end_session(session, StreamError("conflict", conflict.text))
        return True

    def _kick(self, op: reg.Kick) -> None:
        session = self.registry.sessions.get(f"{op.bare}/{op.resource}")
        if session is not None and op.uid in (0, session.entry.uid):
            self.spawn(self.end_session(session, StreamError(op.condition, op.text)))

    async def end_session(self, session: Session, error: StreamError | None = None) -> None:
        """End a session for good: contacts see it go, what it has not acknowledged finds another way."""
        if session.ended:
            return
        session.ended = True
        self.resumption.forget(session)
        link, session.link = session.link, None
        if link is not None:
            link.end(error)
        try:
            await self.registry.remove(session)
        except BusError as error:  # the others learn of it when the bus is back, by `Registry.reload`
            _log.warning("a session has ended without the bus: %s", error)
        self.hooks.session_ended.run(session)
        await self.reroute_left(session)

    async def reroute_left(self, session: Session) -> None:
        """Find another way for what an ended session was owed."""
        left = session.sm.unacked() if session.sm is not None else []
        left.extend((session.held or {}).values())
        left.extend(what[0] for what in session.later or ())
        for data in left:
            try:
                await self.router.reroute(session.entry.bare, data)
            except Exception:  # one that fails must not take the others with it
                _log.exception("a stanza of an ended session could not be kept")

    def connection_lost(self, session: Session, clean: bool) -> Coroutine[object, object, None]:
        """The transport under a session is gone; where the client may resume, the session waits for it.

        The session knows at once, since a resumption may follow in the same turn; what else is to do must be awaited.
        """
        session.link = None
        session.away_since = asyncio.get_running_loop().time()
        return self._end_unless_awaited(session, clean)

    async def _end_unless_awaited(self, session: Session, clean: bool) -> None:
        may_resume = session.sm_id is not None and self.config.limits.resume_seconds and not clean
        if session.link is None and not may_resume:
            await self.end_session(session)
        elif session.link is None and not session.ended:
            self.hooks.session_away.run(session)

    def _push(self, op: reg.Push) -> None:
        if op.what == "interested":
            self.users.roster_changed(op.bare)
        for entry in self.registry.of(op.bare).values():
            session = self.registry.sessions.get(entry.jid)
            if session is not None and getattr(session, op.what):
                session.send(readdress(op.data, op.bare if op.data.startswith(b"<presence") else session.full))

    async def _account_changed(self, username: str) -> None:
        await self.users.changed(username)
        self.hooks.account_changed.run(username)
        bare = f"{username}@{self.config.domain}"
        sessions = [session for session in self.registry.sessions.values() if session.entry.bare == bare]
        if not sessions:
            return  # an import names thousands that nobody here has to do with
        user = await self.users.load(username)
        if user is None or not user.enabled:
            for session in sessions:
                await self.end_session(session, StreamError("not-authorized", "This account is disabled."))

    # other workers

    async def bus_was_away(self) -> None:
        """Messages between workers may be lost, and what the bus kept, too; or we were thought dead."""
        self.users.doubt()
        await self.resumption.bus_was_away()
        await self.registry.reload()

    # time

    async def tick(self) -> None:
        """End the sessions whose clients have been away for too long."""
        now = asyncio.get_running_loop().time()
        limit = self.config.limits.resume_seconds
        for session in list(self.registry.sessions.values()):
            if session.link is None and not session.ended and now - session.away_since > limit:
                self.counts.limits_hit["resume_seconds"] += 1
                await self.resumption.expire(session)
        self._ticks += 1
        if self._ticks % PARKED_TICKS == 0 and self.shared_bus:
            await self.resumption.end_parked()

    @property
    def shared_bus(self) -> bool:
        """Whether what is put on the bus outlives this process."""
        return self.config.bus.url != "local"

    async def run_ticks(self) -> None:
        """Call `tick` until cancelled."""
        while True:
            await asyncio.sleep(TICK)
            try:
                await self.tick()
            except Exception:
                _log.exception("the regular look at sessions failed")

    async def send_away(self, session: Session) -> None:
        """Leave a session to the other workers, or end it where its client cannot resume it."""
        if self.resumption.outlives(session):
            await self.resumption.park(session)
        else:
            await self.end_session(session, StreamError("system-shutdown", "This worker restarts; please reconnect."))

    async def stop(self) -> None:
        """Send every client away; those that can resume find their session on the next worker."""
        self.draining = True
        sessions = list(self.registry.sessions.values())
        for session in sessions:
            if self.resumption.outlives(session):
                link, session.link = session.link, None
                if link is not None:
                    link.drop()
        for session in sessions:
            await self.send_away(session)
        for step in self.stopping:
            try:
                await step()
            except Exception:
                _log.exception("a module did not stop in order")
        if self.shared_bus:
            await asyncio.sleep(STOP_SECONDS)
        self.questions.give_up()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

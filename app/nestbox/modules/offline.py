"""XEP-0160, Offline Messages (RFC 6121, section 8.5.2.2): what came while nobody was there.

A message that no session took is committed with the sender's batch and handed out, oldest first, to the first session
that becomes available with a priority that is not negative. Its row is deleted when it goes into the session's queue of
unacknowledged stanzas: that queue moves with the session, and what is left in it at the end comes back here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from nestbox.core import registry as reg
from nestbox.core.delay import add_delay
from nestbox.core.errors import StanzaError
from nestbox.core.ids import id_to_ms
from nestbox.modules import Xep
from nestbox.modules.content import ONE_TO_ONE, is_chat_state_only, keepable
from nestbox.modules.stanza_ids import stanza_id_bytes
from nestbox.store.errors import StoreBusy, StoreError
from nestbox.wire.stanza import id_by, parse_stanza

if TYPE_CHECKING:
    from nestbox.core.hooks import MessageContext
    from nestbox.core.server import Server
    from nestbox.core.session import Session
    from nestbox.core.users import User

__all__ = ["XEPS", "setup"]

XEPS = (Xep(160, "1.0.1"), Xep(203, "2.0"))

OLDER = "offline"  # the name of this wait, for `Session.wait_for`
PAGE = 50  # messages fetched at once
COUNT_SECONDS = 5.0  # for how long a count of what waits is believed
COUNTS_MAX = 10_000  # accounts whose count is remembered
RETRY_SECONDS = 1.0  # between two looks at a store that does not answer
LAST_COMMIT_SECONDS = 1.0  # after a worker's death: its last transaction may still be on its way
_log = logging.getLogger("nestbox.offline")


@dataclass(slots=True)
class _Count:
    waiting: int
    read_at: float  # time.monotonic()


def setup(server: Server) -> None:
    """Keep what nobody took and hand it out."""
    offline = _Offline(server)
    server.hooks.message_undelivered.add(offline.keep)
    server.hooks.session_available.add(offline.available)
    server.hooks.session_resumed.add(offline.available)
    server.registry.on(reg.Waiting, offline.arrived)
    server.registry.reloaded.add(offline.reloaded)
    server.registry.worker_gone.add(offline.worker_gone)
    server.bound.append(offline.clear)
    for features in (server.host_features, server.account_features):
        features.add("msgoffline")  # XEP-0160, section 5


class _Offline:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._committer = server.store.committer
        self._limit = server.config.limits.offline_messages
        self._counts: OrderedDict[int, _Count] = OrderedDict()
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._catching_up: set[Session] = set()

    # in

    def keep(self, context: MessageContext) -> bool:
        stanza, recipient = context.stanza, context.recipient
        if stanza.type not in ONE_TO_ONE:
            return False
        if not keepable(stanza.element):
            return is_chat_state_only(stanza.element)  # nobody needs to hear that this was dropped
        self._admit(recipient)
        archive_id = context.archive_id or id_by(stanza, recipient.jid)
        row_id = archive_id or self._server.ids.next()
        delay = add_delay(stanza, self._server.config.domain, id_to_ms(row_id))
        try:
            context.batch = batch = self._committer.offline(recipient.id, row_id, stanza.encode())
        except StoreBusy:
            raise StanzaError("resource-constraint", "The server cannot store messages now; try again.") from None
        if delay is not None:
            stanza.remove(delay)  # the sender's other clients get a copy without it
        recipient.offline = True
        # The account may have come online on a worker that knew of no messages.
        waiting = reg.Waiting(recipient.jid, "offline")
        self._committer.when(batch, lambda durable: self._server.registry.tell_all(waiting))
        return True

    def _admit(self, user: User) -> None:
        """Raise StanzaError when the account has as much waiting as it may; what we know may be seconds old."""
        counts = self._counts
        count = counts.get(user.id)
        now = time.monotonic()
        if count is None or now - count.read_at > COUNT_SECONDS:
            waiting = 0 if count is None else count.waiting
            counts[user.id] = count = _Count(min(waiting, self._limit - 1), now)
            self._server.spawn(self._read_count(user.id, count))
            if len(counts) > COUNTS_MAX:
                counts.popitem(last=False)
        if count.waiting >= self._limit:
            text = "Too many messages wait for this account."
            raise StanzaError("resource-constraint", text, limit="offline_messages")
        count.waiting += 1

    async def _read_count(self, user_id: int, count: _Count) -> None:
        await self._committer.flush()
        count.waiting = await self._server.store.offline.count(user_id)

    # out

    def arrived(self, op: reg.Waiting) -> None:
        """Somebody put something into the store for an account, of which we may know otherwise."""
        self._server.users.waiting(op)
        if op.what != "offline":
            return
        for entry in self._server.registry.of(op.bare).values():
            session = self._server.registry.sessions.get(entry.jid)
            if session is not None and _ready(session):
                self._catch_up(session)
                return

    def reloaded(self) -> None:
        self._server.spawn(self._look())

    def worker_gone(self, worker: int) -> None:
        self.reloaded()
        asyncio.get_running_loop().call_later(LAST_COMMIT_SECONDS, self.reloaded)

    async def _look(self) -> None:
        """Hand out what waits for those here of which nobody told: the bus was away, or a worker died."""
        if not self._server.registry.sessions:
            return  # as when the worker starts
        try:
            waiting = await self._server.store.offline.owners()
        except StoreError as error:
            _log.warning("what waits is looked at again in a moment: %s", error)
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self.reloaded)
            return
        for session in list(self._server.registry.sessions.values()):
            if session.user.id in waiting and _ready(session):
                session.user.offline = True
                self._catch_up(session)

    def available(self, session: Session) -> None:
        if session.user.offline and _ready(session):
            self._catch_up(session)

    async def clear(self, session: Session) -> bytes:
        """Forget what a client that binds by XEP-0386 gets from the archive (section 3.2); the rest it is sent."""
        user = session.user
        if not user.offline:
            return b""
        async with self._lock(user.id):
            await self._committer.flush()
            rows = await self._server.store.offline.fetch(user.id, self._limit)
            kept = [row_id for row_id, data in rows if id_by(parse_stanza(data), user.jid) is not None]
            if kept:
                await self._server.store.offline.delete(user.id, kept)
            self._counts.pop(user.id, None)
        return b""

    def _lock(self, user_id: int) -> asyncio.Lock:
        lock = self._locks.get(user_id)
        if lock is None:
            lock = self._locks[user_id] = asyncio.Lock()
        return lock

    def _catch_up(self, session: Session) -> None:
        """Give a session what waits; what comes for it meanwhile it is given afterwards (RFC 6120, section 10.1)."""
        if session in self._catching_up:
            return  # it looks again before it ends, as ``user.offline`` is set
        self._catching_up.add(session)
        if not self._lock(session.user.id).locked():  # another of its sessions would be given the older ones
            session.wait_for(OLDER)
        self._server.spawn(self._hand_out(session))

    async def _hand_out(self, session: Session) -> None:
        user = session.user
        lock = self._lock(user.id)
        if lock.locked():
            session.caught_up(OLDER)
        try:
            async with lock:  # two at once would hand out the same rows twice
                while _ready(session):
                    try:
                        if not await self._hand_out_page(session):
                            break
                    except StoreError as error:
                        _log.warning("what waits for %s is handed out later: %s", user.jid, error)
                        user.offline = True
                        session.caught_up(OLDER)
                        await asyncio.sleep(RETRY_SECONDS)
                self._counts.pop(user.id, None)
        finally:
            self._catching_up.discard(session)
            if not session.ended:  # else they have found another way
                session.caught_up(OLDER)

    async def _hand_out_page(self, session: Session) -> bool:
        """True when there may be more. Raises StoreError."""
        user = session.user
        session.wait_for(OLDER)
        await self._committer.flush()
        user.offline = False  # unless we hear otherwise while we look
        rows = await self._server.store.offline.fetch(user.id, PAGE)
        user.offline = user.offline or bool(rows)
        if not rows or not _ready(session):
            return user.offline
        given = self._that_fit(session, rows)
        await self._give(session, given)
        if len(given) < len(rows):
            session.caught_up(OLDER)  # they must not wait for a slow client, they are nowhere else
            await asyncio.sleep(0.1)  # the client has enough to acknowledge for now
        return True

    async def _give(self, session: Session, rows: list[tuple[int, bytes]]) -> None:
        """Send messages and delete them. Those that the archive has are deleted first: where the worker dies in between
        they are there, and nobody is sent them twice. The others are sent first, or they might be nowhere."""
        user, store = session.user, self._server.store.offline
        archived = [row_id for row_id, data in rows if stanza_id_bytes(user.jid, row_id) in data]
        others = [row_id for row_id, _ in rows if row_id not in archived]
        try:
            if archived:
                await store.delete(user.id, archived)
        finally:  # also where it is not known whether they are deleted
            for row_id, data in rows:
                if session.ended:
                    self._server.spawn(self._server.router.reroute(user.jid, data))
                else:
                    session.give_older(data, row_id)
        if others:
            await self._server.resumption.keep(session)  # whoever finds the rows knows that it has them
            await store.delete(user.id, others)

    def _that_fit(self, session: Session, rows: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """Those for which the client has acknowledged enough: half of the limits is left for live messages."""
        sm, limits = session.sm, self._server.config.limits
        if sm is None:
            return rows
        count, size = len(sm), sm.size
        fit = []
        for row in rows:
            count, size = count + 1, size + len(row[1])
            if count > 1 and (2 * count > limits.unacked_stanzas or 2 * size > limits.unacked_bytes):
                break
            fit.append(row)
        return fit


def _ready(session: Session) -> bool:
    if session.ended or session.link is None:
        return False
    priority = session.entry.priority
    return priority is not None and priority >= 0

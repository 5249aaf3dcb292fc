"""A bound resource on this worker: what it is owed, and what it has sent that is not durable yet."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from nestbox.core.delay import delayed
from nestbox.core.errors import StreamError
from nestbox.core.jid import JID
from nestbox.core.registry import Entry
from nestbox.protocol.sm import AckQueue

if TYPE_CHECKING:
    from nestbox.core.journal import Journal
    from nestbox.core.users import User
    from nestbox.store.committer import Committer

__all__ = ["MOVED", "Link", "Session", "Snapshot"]

HELD_MAX = 200  # stanzas that wait for an inactive client (XEP-0352) before they are sent after all
HELD_BYTES = 8 * 1024  # a larger one does not wait
MOVED = "moved"  # one of the places from which `Session.older` come: the worker that had it before
ASK_SECONDS = 1.0  # between two questions for an acknowledgement in the long run: an answer costs as much as a stanza
ASK_AHEAD = 10.0  # seconds of questions that may come at once: whoever has few stanzas is asked after each
ASK_STANZAS = 10  # as many that are not acknowledged are a reason to ask in any case
GIVEN_MAX = 64  # messages of which we remember that a session was given them; more than one page of offline messages
_numbers = itertools.count()


class Link(Protocol):
    """The connection under a session, as far as the core needs it."""

    def send_stanza(self, data: bytes) -> None:
        """Frame canonical bytes and write them."""

    def request_ack(self) -> None:
        """Ask the client what it has handled (XEP-0198, section 4)."""

    def send_ack(self, h: int) -> None:
        """Tell the client what we have handled."""

    def end(self, error: StreamError | None) -> None:
        """Close the stream, with an error where given."""

    def drop(self) -> None:
        """Close the connection under the stream without a word, so that the client resumes (XEP-0198, section 8).

        After </stream:stream> some clients think that their session has ended; a lost connection none does.
        """


class Snapshot(msgspec.Struct, array_like=True):
    """A session on its way to another worker (XEP-0198 resumption)."""

    sm_id: str
    entry: Entry
    received: int
    queue: list[bytes]
    acked: int
    presence: bytes | None
    interested: bool
    blocking_pushes: bool
    directed: list[str]
    detached_at: float
    recovered: bool = False  # its worker was killed: contacts have seen it go
    given: list[int] = []


class Session:
    """One bound resource.

    ``presence`` is its last available presence in canonical bytes without ``to``; ``directed`` are the addresses
    outside the roster that have its presence (RFC 6121, section 4.6); ``interested`` asked for roster pushes;
    ``held`` waits while the client is inactive (XEP-0352), None while it is active; of one sender's presence only the
    newest does, under the sender's address, all else under a number; ``later`` is what came while ``older`` stanzas
    were on their way to it, by where those come from, None when none are; ``link`` is None while the
    client is away and may resume; ``away_since`` is then the loop's time in seconds; ``handling`` is set while a stanza
    of the client waits for something; ``overflow`` is called once when the client leaves too much unacknowledged;
    ``given`` are the ids, in the store, of the last messages that it was sent: none of them is sent again;
    ``behind`` is the last batch of the store that something it sent waits for; ``told`` is how much of what the
    client sent was durable when somebody last looked, ``kept`` how much is known outside this worker, in the store
    or in the journal: no more may be acknowledged, or another worker would take it back; ``journaled`` is what the
    journal has of it: the numbers before the first and of the last stanza, and what the session was then;
    ``asked`` is set while a question for an acknowledgement is open, ``ask_at`` is the loop's time in seconds at
    which the next one would come at the rate of the long run, ``asking`` waits for that where it must;
    ``away`` is given each stanza that is sent while the client is away; ``alerted`` is what the client had acknowledged
    when a push notification was last sent for it (XEP-0357), None when none was.
    ``caps`` is the hash of its capabilities that was last seen (XEP-0115), ``notify`` the pubsub nodes that its client
    asks to hear of (XEP-0163, section 4.2); ``moved_at`` is set when it came from another worker: the Unix time since
    when it may have missed some of that.
    """

    __slots__ = (
        "alerted",
        "ask_at",
        "asked",
        "asking",
        "away",
        "away_since",
        "behind",
        "blocking_pushes",
        "caps",
        "directed",
        "ended",
        "entry",
        "full",
        "given",
        "handling",
        "held",
        "interested",
        "jid",
        "journal",
        "journaled",
        "kept",
        "later",
        "link",
        "moved_at",
        "notify",
        "older",
        "overflow",
        "pending",
        "presence",
        "received",
        "sm",
        "sm_id",
        "told",
        "user",
    )

    def __init__(self, user: User, entry: Entry, link: Link | None) -> None:
        self.user = user
        self.entry = entry
        self.link = link
        local, _, domain = entry.bare.partition("@")
        self.jid = JID(local, domain, entry.resource)
        self.full = str(self.jid)
        self.presence: bytes | None = None
        self.directed: set[str] | None = None
        self.interested = False
        self.blocking_pushes = False
        self.held: dict[object, bytes] | None = None
        self.later: deque[tuple[bytes, bool, str | None, int]] | None = None  # as `send` was given them
        self.older: set[str] | None = None
        self.ended = False
        self.away_since = 0.0
        self.behind = 0
        self.handling: asyncio.Future[None] | None = None
        self.overflow: Callable[[Session], None] | None = None
        self.away: Callable[[Session, bytes], None] | None = None
        self.alerted: int | None = None
        self.caps: tuple[str, str, str] | None = None
        self.notify: frozenset[str] = frozenset()
        self.moved_at: float | None = None
        # stream management (XEP-0198)
        self.sm: AckQueue | None = None
        self.sm_id: str | None = None
        self.received = 0
        self.told = self.kept = 0
        self.given: deque[int] | None = None
        self.journal: Journal | None = None
        self.journaled: tuple[int, int, tuple[object, ...]] | None = None
        self.pending: deque[tuple[int, int, bool]] | None = None  # number, batch, whether the store knows it with that
        self.asked = False
        self.ask_at = 0.0
        self.asking: asyncio.TimerHandle | None = None

    # towards the client

    def send(self, data: bytes, urgent: bool = True, presence_of: str | None = None, stored_id: int = 0) -> None:
        """Send canonical bytes; what is not ``urgent`` may wait while the client is inactive.

        ``presence_of`` is the full JID whose last presence this is: an older one need not be sent any more;
        ``stored_id`` is a message's id in the archive or the offline store, 0 for all else.
        """
        if self.later is not None and (stored_id or MOVED in self.older):
            self.later.append((data, urgent, presence_of, stored_id))
            if len(self.later) >= HELD_MAX:
                self.caught_up()
            return
        if stored_id and not self._is_new(stored_id):
            return
        if self.held is None:
            self._emit(data)
        else:
            self._hold(data, urgent, presence_of)

    def wait_for(self, older: str) -> None:
        """Keep the messages that come, until it has `caught_up` with the ``older`` ones from there.

        `MOVED`: keep all that comes.
        """
        if self.older is None:
            self.later, self.older = deque(), set()
        self.older.add(older)

    def give_older(self, data: bytes, stored_id: int = 0) -> None:
        """Send what came before all in ``later``."""
        if not stored_id or self._is_new(stored_id):
            self.release()
            self._emit(data)

    def caught_up(self, older: str | None = None) -> None:
        """Send what waited for ``older`` ones, unless it waits for others, too; None: whatever it waits for."""
        if older is not None and self.older is not None:
            self.older.discard(older)
            if self.older:
                return
        later, self.later, self.older = self.later, None, None
        for what in later or ():
            self.send(*what)

    def _hold(self, data: bytes, urgent: bool, presence_of: str | None) -> None:
        held = self.held
        key = presence_of or next(_numbers)
        held.pop(key, None)
        held[key] = data if urgent else delayed(data, self.jid.domain, time.time_ns() // 1_000_000)
        if urgent or len(held) >= HELD_MAX or len(data) >= HELD_BYTES:
            self.release()

    def _is_new(self, stored_id: int) -> bool:
        given = self.given
        if given is None:
            given = self.given = deque(maxlen=GIVEN_MAX)
        if stored_id in given:
            return False
        given.append(stored_id)
        return True

    def release(self) -> None:
        """Send what was held back for an inactive client."""
        held = self.held
        if held:
            waiting = list(held.values())
            held.clear()
            for data in waiting:
                self._emit(data)

    def _emit(self, data: bytes) -> None:
        if self.sm is not None and not self.sm.push(data):
            self._overflow()
            return
        if self.journal is not None:
            self.journal.note(self)
        if self.link is not None:
            self.link.send_stanza(data)
            if self.sm is not None and not self.asked:
                self._ask_soon(len(self.sm) >= ASK_STANZAS)
        elif self.away is not None:
            self.away(self, data)

    def _ask_soon(self, at_once: bool = False) -> None:
        loop = asyncio.get_running_loop()
        earliest = self.ask_at - ASK_AHEAD
        if at_once or loop.time() >= earliest:
            self.asked = True  # once for all that is sent in this turn
            loop.call_soon(self.ask)
        elif self.asking is None:
            self.asking = loop.call_at(earliest, self._ask_now)

    def _ask_now(self) -> None:
        self.asking = None
        if not self.asked:
            self.ask()

    def ask(self) -> None:
        """Ask for an acknowledgement if one is owed; one question at a time is open."""
        self.asked = self.link is not None and self.sm is not None and len(self.sm) > 0
        if self.asked:
            now = asyncio.get_running_loop().time()
            self.ask_at = min(max(self.ask_at, now), now + ASK_AHEAD) + ASK_SECONDS
            self.link.request_ack()

    def acknowledge(self, h: int) -> None:
        """The client has handled ``h`` stanzas. Raises StreamError for more than it was sent (XEP-0198, section 4)."""
        if self.sm is not None:
            self.sm.ack(h)
            if self.journal is not None:
                self.journal.note(self)
            self.asked = False
            if len(self.sm):
                self._ask_soon()

    def _overflow(self) -> None:
        """The client does not acknowledge: end the session, and let what it is owed find another way."""
        overflow, self.overflow = self.overflow, None
        if overflow is not None:
            overflow(self)

    # from the client

    def count(self, batch: int, committer: Committer) -> None:
        """One more stanza is dealt with; it may be acknowledged once ``batch`` is durable (0: at once)."""
        if self.sm is None:
            return
        self.received = (self.received + 1) & 0xFFFFFFFF
        if batch > committer.committed:
            marked = self.journal is not None and committer.mark(batch, self.sm_id, self.user.id, self.received)
            if self.pending is None:
                self.pending = deque()
            self.pending.append((self.received, batch, marked))

    async def count_later(self, outcome: Awaitable[int], committer: Committer) -> None:
        """Count a stanza when it is dealt with; a resumption waits for that, or the client would send it again."""
        self.handling = done = asyncio.get_running_loop().create_future()
        try:
            batch = await outcome
            self.count(batch, committer)
        finally:
            self.handling = None
            done.set_result(None)

    def undo(self, batch: int) -> bool:
        """Take back the count of the first stanza of ``batch``, which will never be durable, and of all after it.

        True when there was one: the client must send them again, on another stream.
        """
        pending = list(self.pending or ())
        for index, (count, waits_for, _) in enumerate(pending):
            if waits_for == batch:
                self.received = (count - 1) & 0xFFFFFFFF
                self.pending = deque(pending[:index]) or None
                return True
        return False

    def durable(self, committed: int) -> int:
        """How many stanzas are durable now, modulo 2**32: everything before the first that is not.

        The client may be told that number once it is ``kept``.
        """
        told = self._durable(committed)
        if told != self.told:
            self.told = told
            if self.journal is not None:
                self.journal.note(self)
        return told

    def _durable(self, committed: int) -> int:
        pending = self.pending
        if pending:
            while pending and pending[0][1] <= committed:
                count, _, marked = pending.popleft()
                if marked:
                    self.kept = count
            if pending:
                return (pending[0][0] - 1) & 0xFFFFFFFF
            self.pending = None
        return self.received

    def snapshot(self, now: float) -> Snapshot:
        """Everything another worker needs to go on in this session's place; ``now`` is Unix time in seconds."""
        self.caught_up()
        self.release()
        snapshot = self.what()
        snapshot.received = self.received
        if self.sm is not None:
            snapshot.queue, snapshot.acked = self.sm.unacked(), self.sm.acked
        snapshot.detached_at = now
        snapshot.given = list(self.given or ())
        return snapshot

    def what(self) -> Snapshot:
        """What the session is, without what it was sent and how far it has counted."""
        return Snapshot(
            sm_id=self.sm_id or "",
            entry=self.entry,
            received=0,
            queue=[],
            acked=0,
            presence=self.presence,
            interested=self.interested,
            blocking_pushes=self.blocking_pushes,
            directed=sorted(self.directed or ()),
            detached_at=0.0,
        )

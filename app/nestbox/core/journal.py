"""What a session needs to go on after its worker was killed, kept on the bus beside it (design, section 4).

Every session that can be resumed has a hash there: what it is, how far both sides have counted, and each stanza that
its client has not acknowledged. What changed within a window is written at once; a stanza that was acknowledged within
it is never written, nor, where nothing else has changed, how far its client has counted, which it will say itself. What
the session has *received* is also in the store, in the transaction of the rows that it caused (`Committer.mark`), so
that a client never sends again what is kept already.
"""

from __future__ import annotations

import asyncio
import struct
from array import array
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from nestbox.core.session import Session, Snapshot
from nestbox.store.errors import StoreError

if TYPE_CHECKING:
    from nestbox.core.server import Server

__all__ = ["Journal"]

WINDOW = 0.01  # seconds; the least time between two writes
_BEHIND_MAX = 1_000  # acknowledged stanzas of which a journal that is empty may know nothing
_WRAP = 2**32
_COUNTS = struct.Struct("!II")  # received from the client, acknowledged by it; before the ids of what it was given
_WHAT, _HOW_FAR = "what", "counts"  # fields beside those of the stanzas, whose names are their numbers
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Snapshot).decode


def _later(received: int, stored: int | None) -> int:
    """The one that counts more, modulo 2**32."""
    return stored if stored is not None and 0 < (stored - received) % _WRAP < _WRAP // 2 else received


def _key(sm_id: str) -> str:
    return f"journal:{sm_id}"


class Journal:
    """The journals of this worker's sessions; `recover` reads those of a dead one."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._bus = server.bus
        self._dirty: set[Session] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, session: Session) -> None:
        """Keep a journal of a session from now on."""
        session.journal = self
        session.journaled = None
        self.note(session)

    def note(self, session: Session) -> None:
        """Something of the session has changed: it was sent a stanza, or one was acknowledged."""
        if not self._dirty:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(WINDOW, self.write)
        self._dirty.add(session)

    def keep(self, session: Session, done: Callable[[], None]) -> None:
        """Write at once how far the session has counted, and call ``done`` when its client may be told."""
        received = session.told

        def kept() -> None:
            if 0 < (received - session.kept) % _WRAP < _WRAP // 2:
                session.kept = received
            done()

        self._dirty.discard(session)
        self._write(session, kept)

    def end(self, session: Session) -> None:
        """The session has ended, or another worker has it: its journal is not needed any more."""
        session.journal = None
        self._dirty.discard(session)
        if session.journaled is not None:
            self._bus.discard(_key(session.sm_id))

    def write_anew(self, sessions: list[Session]) -> None:
        """The bus may have forgotten everything."""
        for session in sessions:
            if session.journal is not None:
                session.journaled = None
                self.note(session)

    def write(self) -> None:
        """Write what has changed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        dirty, self._dirty = self._dirty, set()
        for session in dirty:
            self._write(session)

    def _write(self, session: Session, done: Callable[[], None] | None = None) -> None:
        sm, before, entry, given = session.sm, session.journaled, session.entry, session.given
        what = (
            session.presence, session.interested, session.blocking_pushes, len(session.directed or ()), entry.priority,
            entry.carbons,
        )  # fmt: skip
        now = (what, session.told, given[-1] if given else 0)
        acked, length = sm.acked, len(sm)
        sent = (acked + length) % _WRAP
        key = _key(session.sm_id)
        if before is None:
            self._bus.discard(key)
            first, last, was = acked, acked, (None, 0, 0)
        else:
            first, last, was = before  # the numbers before the first stanza that is there, and of the last
            behind = (acked - first) % _WRAP
            if now == was and first == last and not length and done is None and behind < _BEHIND_MAX:
                return
        fields = {}
        if what != was[0]:
            fields[_WHAT] = _encode(session.what())
        # The queue's end is what was sent since, less what was acknowledged meanwhile.
        new = min((sent - last) % _WRAP, length)
        number = (sent - new) % _WRAP
        for data in islice(sm, length - new, None) if new else ():
            number = (number + 1) % _WRAP
            fields[str(number)] = data
        fields[_HOW_FAR] = _COUNTS.pack(session.told, acked) + (array("Q", given).tobytes() if given else b"")
        gone = ()
        if acked != first and first != last:
            count = min((acked - first) % _WRAP, (last - first) % _WRAP)
            gone = [str((first + number) % _WRAP) for number in range(1, count + 1)]
        self._bus.post(key, fields, gone, done)
        session.journaled = (acked, sent, now)

    async def whose(self, sm_id: str) -> str | None:
        """The bare JID whose journal it is; None where there is none, or somebody has recovered it."""
        what = await self._bus.hget(_key(sm_id), _WHAT)
        return None if what is None else _decode(what).entry.bare

    async def stored(self, sm_id: str) -> int | None:
        """How far a session has counted by the store: its worker may have committed something after it was held for
        dead. None where that is not known."""
        try:
            return await self._server.store.streams.received(sm_id)
        except StoreError:  # then its client may send again what is stored
            return None

    @staticmethod
    def at_least(raw: bytes, stored: int | None) -> bytes:
        """The snapshot of a session that has counted as far as the store says, if not further."""
        snapshot = _decode(raw)
        received = _later(snapshot.received, stored)
        return raw if received == snapshot.received else _encode(msgspec.structs.replace(snapshot, received=received))

    def discard(self, sm_id: str) -> None:
        """Remove the journal of a session that was recovered."""
        self._bus.discard(_key(sm_id))

    async def recover(self, sm_id: str) -> Snapshot | None:
        """The session of a dead worker, for one of those that ask; None where there is no journal.

        Raises StoreError, and then leaves the journal as it is.
        """
        stored = await self._server.store.streams.received(sm_id)
        fields = await self._bus.hgetall(_key(sm_id))
        what, counts = fields.pop(_WHAT, None), fields.pop(_HOW_FAR, None)
        if what is None or counts is None or not await self._bus.hdel(_key(sm_id), _WHAT):
            return None
        received, acked = _COUNTS.unpack_from(counts)
        received = _later(received, stored)
        given = array("Q", counts[_COUNTS.size :]).tolist()
        numbers = sorted((int(number) - acked) % _WRAP for number in fields)
        queue = [fields[str((acked + number) % _WRAP)] for number in numbers if 0 < number < _WRAP // 2]
        found = {"received": received, "acked": acked, "queue": queue, "given": given, "recovered": True}
        return msgspec.structs.replace(_decode(what), **found)

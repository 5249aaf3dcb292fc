"""A room's state on the worker that owns it, and the ways to tell its occupants something.

What happens in a room happens in order: `serial` runs what changes it one after the other, at once while nothing waits
for the store.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from nestbox.bus import BusError
from nestbox.core.errors import StanzaError
from nestbox.core.jid import JID
from nestbox.modules.muc.config import Hat, RoomConfig
from nestbox.modules.muc.history import History
from nestbox.modules.muc.occupants import Occupant, Seat
from nestbox.modules.muc.privileges import rank
from nestbox.modules.muc.stanzas import hats, item, message, presence, statuses, user_x
from nestbox.store.rooms import Affiliate, RoomRow, archive_owner
from nestbox.wire import ns
from nestbox.wire.element import Element

if TYPE_CHECKING:
    from nestbox.modules.muc.service import Service

__all__ = ["OCCUPANT_ID", "Room"]

_log = logging.getLogger("nestbox.muc")
OCCUPANT_ID = f"{{{ns.OCCUPANT_ID}}}occupant-id"
_decode_config = msgspec.json.Decoder(RoomConfig).decode


class Room:
    """One room. ``id`` is 0 until it exists; ``affiliates`` are by bare JID, without those of affiliation none."""

    def __init__(self, service: Service, name: str, row: RoomRow | None) -> None:
        self.service = service
        self.server = service.server
        self.name = name
        self.jid = JID(name, service.host)
        self.address = self.jid.bare
        self.occupants: dict[str, Occupant] = {}
        self.seats: dict[str, Seat] = {}
        # Iqs on their way to occupants, by the id that they were given: who asked, under which id, and whom.
        self.pending: OrderedDict[str, tuple[str, str, str]] = OrderedDict()
        self.used = 0.0  # loop time at which it was last of use
        self._last: asyncio.Task[int] | None = None
        self._dirty: dict[str, None] = {}
        self._writer: asyncio.Task[object] | None = None
        self.load(row)

    def load(self, row: RoomRow | None) -> None:
        """Take over what the store has; None for a room that does not exist."""
        self.id = row.id if row is not None else 0
        self.config = _decode_config(row.config) if row is not None else RoomConfig()
        self.subject = row.subject if row is not None else b""
        self.affiliates = {each.jid: each for each in row.affiliates} if row is not None else {}
        self.secret = row.secret if row is not None else b""
        self.history = History(self.server.config.limits.room_history)

    @property
    def archive_owner(self) -> int:
        """The owner of the room's rows in the archive."""
        return archive_owner(self.id)

    @property
    def archived(self) -> bool:
        """Whether messages are kept for MAM."""
        return self.config.logging and self.server.config.archive.enabled

    # who is who

    def affiliation(self, jid: JID | str) -> str:
        """The affiliation of an address; a ban may be of its whole domain."""
        bare = jid if isinstance(jid, str) else jid.bare
        if self.service.is_admin(bare):
            return "owner"
        found = self.affiliates.get(bare)
        if found is None:
            found = self.affiliates.get(bare.rpartition("@")[2])
            if found is not None and found.affiliation != "outcast":
                found = None
        return found.affiliation if found is not None else "none"

    def jids(self, affiliation: str) -> list[str]:
        """The bare JIDs that have an affiliation."""
        return [each.jid for each in self.affiliates.values() if each.affiliation == affiliation]

    def reserved(self, nick: str) -> Affiliate | None:
        """Who has reserved a nick."""
        return next((each for each in self.affiliates.values() if each.nick == nick), None)

    def hats_of(self, bare: str) -> dict[str, Hat]:
        """The hats of an address. Those of a deleted account are not those of the next one with its name."""
        wearer, known = self.config.wearers.get(bare), self.affiliates.get(bare)
        if wearer is None or known is None or known.affiliation == "outcast" or known.user_id != wearer.user_id:
            return {}
        return {uri: self.config.hats[uri] for uri in wearer.hats}

    def occupant(self, sender: JID) -> Occupant:
        """The occupant that a session is. Raises StanzaError not-acceptable for one who is not in the room."""
        seat = self.seats.get(str(sender))
        if seat is None:
            raise StanzaError("not-acceptable", "You are not in this room.")
        return seat.occupant

    def named(self, nick: str) -> Occupant:
        """The occupant with a nick. Raises StanzaError item-not-found."""
        found = self.occupants.get(nick)
        if found is None:
            raise StanzaError("item-not-found", "Nobody here has that nickname.")
        return found

    def require(self, jid: JID, affiliation: str) -> None:
        """Raise StanzaError forbidden unless an address has at least an affiliation; item-not-found for no room."""
        self.check_exists(jid)
        if rank(self.affiliation(jid)) < rank(affiliation):
            raise StanzaError("forbidden", f"This needs the affiliation {affiliation}.")

    def check_exists(self, jid: JID) -> None:
        """Raise StanzaError item-not-found where there is no room; a locked one exists for its owners only."""
        if not self.id or (self.config.locked and self.affiliation(jid) != "owner"):
            raise StanzaError("item-not-found", "There is no such room.")

    def may_enter(self, jid: JID) -> bool:
        """Whether an address that knows the password may enter."""
        affiliation = self.affiliation(jid)
        return affiliation != "outcast" and not (self.config.members_only and affiliation == "none")

    def sees_jids(self, occupant: Occupant) -> bool:
        """Whether an occupant is shown real addresses."""
        return not self.config.anonymous or occupant.role == "moderator"

    def occupant_jid(self, nick: str) -> str:
        """The address of a nick."""
        return f"{self.address}/{nick}"

    def make_occupant(self, nick: str, bare: str, role: str) -> Occupant:
        """Somebody new, not yet in the room. Its occupant id is a hash with the room's secret (XEP-0421, 3.1)."""
        digest = hmac.digest(self.secret, bare.encode(), "sha256")
        value = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        element = Element(OCCUPANT_ID, {"id": value})
        data = f'<occupant-id xmlns="{ns.OCCUPANT_ID}" id="{value}"/>'.encode()
        return Occupant(nick, self.occupant_jid(nick), bare, role, element, data)

    # in order

    def serial(self, work: Callable[[], int | Awaitable[int]]) -> int | Awaitable[int]:
        """Run what changes the room, after what is under way; at once where nothing is."""
        if self._last is None:
            outcome = work()
            return outcome if isinstance(outcome, int) else self._begin(_await(outcome))
        return self._begin(_after(self._last, work))

    def _begin(self, coroutine: Awaitable[int]) -> Awaitable[int]:
        self._last = task = asyncio.get_running_loop().create_task(coroutine)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[int]) -> None:
        if self._last is task:
            self._last = None

    @property
    def busy(self) -> bool:
        """Whether something is under way that its release must wait for."""
        return self._last is not None or self._writer is not None

    async def settle(self) -> None:
        """Wait until nothing is under way."""
        while waits := {self._last, self._writer} - {None}:
            await asyncio.wait(waits)

    # telling

    def send(self, seats: Iterable[Seat], data: bytes, urgent: bool = True, sender: str | None = None) -> None:
        """Send canonical bytes without ``to`` to seats, from the room or one of its occupants."""
        self.service.fanout.send(sender or self.address, seats, data, urgent)

    def tell_all(self, codes: Iterable[int]) -> None:
        """Tell all occupants that the configuration has changed (section 10.2.1)."""
        self.send(self.seats.values(), message(self.address, user_x(statuses(codes))))

    def presence_of(self, occupant: Occupant, with_jid: bool) -> bytes:
        """The presence of an occupant as others are shown it."""
        told = occupant.told.get(with_jid)
        if told is None:
            told = occupant.told[with_jid] = self._presence(occupant, with_jid, ())
        return told

    def _presence(
        self,
        occupant: Occupant,
        with_jid: bool,
        codes: Iterable[int],
        actor: str | None = None,
        reason: str | None = None,
        kind: str | None = None,
    ) -> bytes:
        jid, affiliation = occupant.first.full if with_jid else None, self.affiliation(occupant.bare)
        inner = item(affiliation, occupant.role, jid=jid, actor=actor, reason=reason) + statuses(codes)
        own = occupant.id_bytes + hats(self.hats_of(occupant.bare))
        return presence(occupant.jid, (occupant.first.presence if kind is None else b"") + own + user_x(inner), kind)

    def show(
        self,
        occupant: Occupant,
        codes: Iterable[int] = (),
        *,
        was: str = "",
        but: Seat | None = None,
        actor: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Show everybody an occupant's presence; to itself with 110 and ``codes``, and not to the seat ``but``.

        ``was`` is its former role, where that has changed; ``actor`` (a nick) and ``reason`` say by whom and why.
        """
        occupant.told.clear()
        if occupant.role in self.config.broadcast or was in self.config.broadcast:
            kind = None if occupant.role in self.config.broadcast else "unavailable"  # the others see it no more
            for with_jid, seats in self._others(occupant).items():
                if seats:
                    data = self._presence(occupant, with_jid, (), actor, reason, kind)
                    self.send(seats, data, False, occupant.jid)
        own = [seat for seat in occupant.seats.values() if seat is not but]
        if own:
            data = self._presence(occupant, True, (*codes, 110), actor, reason)
            self.send(own, data, True, occupant.jid)

    def show_itself(self, seat: Seat, codes: Iterable[int] = ()) -> None:
        """Show a seat its own occupant."""
        self.send([seat], self._presence(seat.occupant, True, (*codes, 110)), True, seat.occupant.jid)

    def show_gone(
        self,
        occupant: Occupant,
        seats: list[Seat],
        codes: Iterable[int] = (),
        *,
        to_others: bool = True,
        nick: str | None = None,
        inner: bytes = b"",
        extra: str = "",
        affiliation: str | None = None,
        actor: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Show everybody that an occupant is unavailable, and say so to its own ``seats``, which may have left already.

        ``nick`` is its new one; ``extra`` goes into the item's ``<x/>``; ``inner`` are children of its last presence.
        """
        affiliation = affiliation or self.affiliation(occupant.bare)
        role = occupant.role if nick is not None else "none"
        jid = next((seat.full for seat in seats), None)

        def data(with_jid: bool, codes: Iterable[int]) -> bytes:
            shown = item(affiliation, role, jid=jid if with_jid else None, nick=nick, actor=actor, reason=reason)
            x = user_x(shown + extra + statuses(codes))
            return presence(occupant.jid, inner + occupant.id_bytes + x, "unavailable")

        if to_others and occupant.role in self.config.broadcast:
            for with_jid, others in self._others(occupant).items():
                if others:
                    self.send(others, data(with_jid, codes), False, occupant.jid)
        self.send(seats, data(True, (*codes, 110)), True, occupant.jid)

    def _others(self, occupant: Occupant) -> dict[bool, list[Seat]]:
        """The seats of everybody else, by whether they are shown real addresses."""
        found: dict[bool, list[Seat]] = {False: [], True: []}
        for other in self.occupants.values():
            if other is not occupant:
                found[self.sees_jids(other)].extend(other.seats.values())
        return found

    # what the bus keeps for the next owner

    def add(self, occupant: Occupant, seat: Seat) -> None:
        """Somebody has a seat now."""
        self.occupants[occupant.nick] = occupant
        occupant.spoke(seat)
        self.seats[seat.full] = seat
        self.service.sat(seat.full, self, True)

    def remove(self, seat: Seat) -> None:
        """A seat is given up; with the last one the occupant is gone."""
        occupant = seat.occupant
        occupant.told.clear()
        occupant.seats.pop(seat.full, None)
        if self.seats.pop(seat.full, None) is not None:
            self.service.sat(seat.full, self, False)
            self.keep([seat])
        if not occupant.seats and self.occupants.get(occupant.nick) is occupant:
            del self.occupants[occupant.nick]
        self.used = asyncio.get_running_loop().time()

    def keep(self, seats: Iterable[Seat]) -> None:
        """Write seats as they are now, or are no more, to the bus, soon."""
        self._dirty.update((seat.full, None) for seat in seats)
        if self._dirty and self._writer is None:
            self._writer = self.server.spawn(self._write())

    async def _write(self) -> None:
        bus, key = self.server.bus, self.service.key(self.name)
        try:
            while self._dirty:
                full = next(iter(self._dirty))
                del self._dirty[full]
                seat = self.seats.get(full)
                if seat is not None:
                    await bus.hset(key, full, seat.record())
                else:
                    await bus.hdel(key, full)
        except BusError as error:
            _log.warning("the seats in %s could not be kept: %s", self.name, error)
        finally:
            self._writer = None


async def _await(outcome: Awaitable[int]) -> int:
    return await outcome


async def _after(before: asyncio.Task[int], work: Callable[[], int | Awaitable[int]]) -> int:
    await asyncio.wait((before,))
    outcome = work()
    return outcome if isinstance(outcome, int) else await outcome

"""The rooms' host: takes stanzas for rooms here, opens and closes rooms, and sees sessions come and go."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from nestbox.core.errors import StanzaError
from nestbox.core.hooks import MessageContext
from nestbox.core.jid import JID
from nestbox.core.registry import Entry
from nestbox.modules.content import ONE_TO_ONE
from nestbox.modules.muc import iqs, messages, presence
from nestbox.modules.muc.fanout import Fanout
from nestbox.modules.muc.occupants import Record, Seat
from nestbox.modules.muc.ownership import Ownership
from nestbox.modules.muc.room import Room
from nestbox.store.rooms import Affiliate, RoomRow
from nestbox.wire.stanza import Stanza

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.core.session import Session

__all__ = ["Service"]

SWEEP_SECONDS = 60.0  # between looks at rooms that nobody is in; one that was not used for that long is closed
OPEN_MAX = 5_000  # rooms that may be open while nobody is in them, such as names that somebody tries
FRESH_SECONDS = 1.0  # for which a room that was just opened waits for the stanza that it was opened for
AWAY_SPARE = 60  # seconds for which a seat is kept after its session can no longer be resumed
REPLAY_MAX = 200  # messages for one who was away
_decode_record = msgspec.msgpack.Decoder(Record).decode


class Service:
    """All rooms. ``rooms`` are those that this worker owns, ``seated`` says in which of them a session has a seat."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.host = f"rooms.{server.config.domain}"
        self.rooms: dict[str, Room] = {}
        self.seated: dict[str, set[Room]] = {}
        self.fanout = Fanout(server)
        self.ownership = Ownership(self)
        self._opening: dict[str, asyncio.Task[Room]] = {}
        self._admins = {f"{name}@{server.config.domain}" for name in server.config.admins}
        self._sweeping = False
        registry = server.registry
        registry.gone.add(self._gone)
        registry.entered.add(self._entered)
        server.hooks.account_changed.add(self._account_changed)

    def is_admin(self, bare: str) -> bool:
        """Whether an account owns the whole service."""
        return bare in self._admins

    def key(self, name: str) -> str:
        """The hash on the bus with a room's seats."""
        return f"muc:{name}"

    # stanzas

    def handle(self, sender: JID, to: JID, stanza: Stanza, session: Session | None) -> int | Awaitable[int]:
        """A stanza for the host or a room (`Router.hosts`)."""
        if stanza.kind == "iq" and stanza.type in ("result", "error") and not to.resource:
            self.server.questions.answered(stanza)
            return 0
        if not to.local:
            return iqs.to_host(self, sender, stanza)
        context = None
        if to.resource and session is not None and stanza.kind == "message" and stanza.type in ONE_TO_ONE:
            context = MessageContext(stanza, sender, to, session, session.user, None)
            if self.server.hooks.message.run(context):
                return 0
        room = self.rooms.get(to.local)
        if room is not None:
            outcome = self.act(room, sender, to, stanza, session is not None)
        else:
            outcome = self.ownership.pass_on(sender, to, stanza, session is not None)
        return outcome if context is None else self._sent(outcome, context)

    async def _sent(self, outcome: int | Awaitable[int], context: MessageContext) -> int:
        """A private message that was taken is in its sender's archive and on its other devices, like any other."""
        batch = outcome if isinstance(outcome, int) else await outcome
        hooks = self.server.hooks
        hooks.message_archive.run(context)
        delivered = partial(hooks.message_delivered.run, context)
        self.server.router.deliveries.when_stored(context.session, context.batch, context.stanza, delivered)
        return max(batch, context.batch)

    def act(self, room: Room, sender: JID, to: JID, stanza: Stanza, client: bool) -> int | Awaitable[int]:
        """Handle a stanza for a room of this worker; ``client`` says that a client sent it, not the server."""
        room.used = asyncio.get_running_loop().time()
        if stanza.kind == "message":
            return room.serial(lambda: messages.handle(room, sender, to, stanza, client))
        if stanza.kind == "presence":
            return room.serial(lambda: presence.handle(room, sender, to, stanza))
        if iqs.changes(to, stanza):
            return room.serial(lambda: iqs.handle(room, sender, to, stanza))
        return iqs.handle(room, sender, to, stanza)

    # rooms come and go

    async def open(self, name: str) -> Room:
        """The room, whether it exists or not; this worker has the claim. Raises StoreError and BusError."""
        room = self.rooms.get(name)
        if room is not None:
            return room
        task = self._opening.get(name)
        if task is None:
            task = self._opening[name] = asyncio.get_running_loop().create_task(self._open(name))
            task.add_done_callback(lambda task: self._opening.pop(name))
        return await asyncio.shield(task)

    async def _open(self, name: str) -> Room:
        room = Room(self, name, await self.server.store.rooms.get(name))
        room.used = asyncio.get_running_loop().time()
        if room.id:
            limit = self.server.config.limits.room_history
            page = await self.server.store.archive.query(room.archive_owner, limit=limit, backward=True)
            room.history.load((row.id, row.stanza) for row in page.rows)
        records = await self.server.bus.hgetall(self.key(name))
        if records and not room.id:
            await self.server.bus.delete(self.key(name))
        elif records:
            for full, raw in records.items():
                self._sit_down(room, full, _decode_record(raw))
        self.rooms[name] = room
        self.check_seats(room)
        if room.id and not room.seats:
            presence.left_empty(room)
        self._sweep_later()
        if len(self.rooms) > OPEN_MAX:
            self._close_empty(FRESH_SECONDS)
        return room

    @staticmethod
    def _sit_down(room: Room, full: str, record: Record) -> None:
        """Give somebody the seat back that he has had on another worker."""
        bare, _, resource = full.partition("/")
        occupant = room.occupants.get(record.nick)
        if occupant is None:
            occupant = room.make_occupant(record.nick, bare, record.role)
        seat = Seat(full, bare, resource, record.uid, record.presence, occupant)
        seat.away_since, seat.missed = record.away_since, record.missed
        room.add(occupant, seat)

    async def create(self, room: Room, creator: JID) -> None:
        """Make a room, locked until it is configured, with its first owner. Raises StanzaError."""
        user = await self.server.users.load(creator.local) if creator.domain == self.server.config.domain else None
        if user is None:
            raise StanzaError("not-allowed", "Only people of this server make rooms.")
        store = self.server.store.rooms
        if await store.count_owned(user.id) >= self.server.config.limits.rooms_per_user:
            raise StanzaError("resource-constraint", "You own too many rooms.", limit="rooms_per_user")
        config = msgspec.structs.replace(room.config, locked=True)
        owner = Affiliate(user.jid, "owner", user_id=user.id)
        row = RoomRow(0, room.name, secrets.token_bytes(32), msgspec.json.encode(config), b"", [owner])
        row.id = await store.create(row, listed=False)
        room.load(row)

    async def erase(self, room: Room) -> None:
        """The room is no more; nobody is in it."""
        room_id, room.id = room.id, 0
        await self.server.store.rooms.delete(room_id)
        room.load(None)

    def forget(self, room: Room) -> None:
        """The room is not this worker's any longer."""
        self.rooms.pop(room.name, None)
        for full in room.seats:
            self._stood_up(full, room)

    def _stood_up(self, full: str, room: Room) -> None:
        rooms = self.seated.get(full, set())
        rooms.discard(room)
        if not rooms:
            self.seated.pop(full, None)

    def sat(self, full: str, room: Room, here: bool) -> None:
        """A session has a seat in a room now, or no more."""
        if here:
            self.seated.setdefault(full, set()).add(room)
        else:
            self._stood_up(full, room)

    def _sweep_later(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = False
        self._close_empty(SWEEP_SECONDS)
        for room in list(self.rooms.values()):
            if any(seat.away_since for seat in room.seats.values()):
                self.check_seats(room)
        if self.rooms:
            self._sweep_later()

    def _close_empty(self, seconds: float) -> None:
        """Close rooms in which nobody is, and which were not used for so long."""
        now = asyncio.get_running_loop().time()
        for room in list(self.rooms.values()):
            if not room.seats and not room.busy and now - room.used >= seconds:
                self.forget(room)
                self.server.spawn(self.ownership.release(room.name))

    # sessions come and go

    def check_seats(self, room: Room, now: int | None = None) -> None:
        """Make those leave whose session is gone; one that was put away may come back for a while."""
        oldest = (now or int(time.time())) - self.server.config.limits.resume_seconds - AWAY_SPARE
        for seat in list(room.seats.values()):
            if not seat.uid:
                continue
            entry = self.server.registry.of(seat.bare).get(seat.resource)
            if entry is not None and seat.uid in (entry.uid, entry.was):
                self._back(room, seat, entry.uid)
            elif seat.away_since < oldest:
                presence.leave(room, seat, (333,))

    def _gone(self, entry: Entry, parked: bool) -> None:
        for room in list(self.seated.get(entry.jid, ())):
            seat = room.seats[entry.jid]
            if seat.uid != entry.uid:
                continue
            if parked:
                seat.away_since, seat.missed = int(time.time()), self.server.ids.next()
                room.keep([seat])
            else:
                failed = entry.worker not in self.server.bus.workers()
                presence.leave(room, seat, (333,) if failed else ())

    def _entered(self, entry: Entry) -> None:
        for room in list(self.seated.get(entry.jid, ())):
            seat = room.seats[entry.jid]
            if seat.uid in (entry.uid, entry.was):
                self._back(room, seat, entry.uid)

    def _back(self, room: Room, seat: Seat, uid: int) -> None:
        """A session that was put away is there again: it gets what it has missed."""
        seat.uid = uid
        if seat.away_since:
            missed, seat.away_since, seat.missed = seat.missed, 0, 0
            room.keep([seat])
            presence.show_all(room, seat)
            for data in room.history.since(missed)[-REPLAY_MAX:]:
                room.send([seat], data)

    def _account_changed(self, username: str) -> None:
        bare = f"{username}@{self.server.config.domain}"
        if any(bare in room.affiliates for room in self.rooms.values()):
            self.server.spawn(self._check_account(username, bare))

    async def _check_account(self, username: str, bare: str) -> None:
        """Whoever gets a deleted account's name must not get its rights."""
        if await self.server.users.load(username) is None:
            for room in self.rooms.values():
                room.affiliates.pop(bare, None)

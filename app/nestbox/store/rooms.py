"""Rooms of XEP-0045 and who is affiliated with them. Their messages are in the archive, as `archive_owner` says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import delete, func, insert, select, update

from nestbox.store.database import Database
from nestbox.store.schema import archive, room_affiliations, rooms
from nestbox.store.upsert import upsert

__all__ = ["Affiliate", "RoomRow", "Rooms", "archive_owner"]


def archive_owner(room_id: int) -> int:
    """The owner under which the archive keeps a room's messages: no account has a negative id."""
    return -room_id


@dataclass(slots=True)
class Affiliate:
    """Somebody's affiliation (owner, admin, member, outcast; none erases the row), reserved nick and account."""

    jid: str
    affiliation: str
    nick: str | None = None
    reason: str | None = None
    user_id: int | None = None


@dataclass(slots=True)
class RoomRow:
    """A room; what the JSON holds is the rooms module's own."""

    id: int
    name: str
    secret: bytes
    config: bytes
    subject: bytes
    affiliates: list[Affiliate] = field(default_factory=list)


class Rooms:
    """Every method may raise StoreError. Names and JIDs are prepared."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, row: RoomRow, *, listed: bool) -> int:
        """Make a room with its affiliates; its id (``row.id`` is not looked at)."""
        values = {
            "name": row.name,
            "listed": listed,
            "secret": row.secret,
            "config_json": row.config,
            "subject": row.subject,
        }
        async with self._database.write() as connection:
            room_id = (await connection.execute(insert(rooms).values(values))).inserted_primary_key[0]
            for affiliate in row.affiliates:
                await connection.execute(insert(room_affiliations).values(_values(room_id, affiliate)))
        return room_id

    async def get(self, name: str) -> RoomRow | None:
        """A room with its affiliates, without its vCard."""
        query = select(rooms.c.id, rooms.c.secret, rooms.c.config_json, rooms.c.subject)
        async with self._database.read() as connection:
            row = (await connection.execute(query.where(rooms.c.name == name))).first()
            if row is None:
                return None
            found = await connection.execute(select(room_affiliations).where(room_affiliations.c.room_id == row.id))
            affiliates = [
                Affiliate(each.jid, each.affiliation, _text(each.nick), _text(each.reason), each.user_id)
                for each in found
            ]
        return RoomRow(row.id, name, row.secret, row.config_json, row.subject, affiliates)

    async def set_config(self, room_id: int, config: bytes, *, listed: bool) -> None:
        """Replace the configuration."""
        await self._update(room_id, {"config_json": config, "listed": listed})

    async def set_subject(self, room_id: int, subject: bytes) -> None:
        """Replace the subject."""
        await self._update(room_id, {"subject": subject})

    async def set_vcard(self, room_id: int, config: bytes, vcard: bytes | None) -> None:
        """Replace the vCard, and the configuration, which knows the picture's hash."""
        await self._update(room_id, {"config_json": config, "vcard": vcard})

    async def _update(self, room_id: int, values: dict[str, object]) -> None:
        async with self._database.write() as connection:
            await connection.execute(update(rooms).where(rooms.c.id == room_id).values(values))

    async def vcard(self, room_id: int) -> bytes | None:
        """The serialised vCard."""
        async with self._database.read() as connection:
            return (await connection.execute(select(rooms.c.vcard).where(rooms.c.id == room_id))).scalar_one_or_none()

    async def affiliate(self, room_id: int, affiliates: Iterable[Affiliate]) -> None:
        """Write affiliations in one transaction."""
        async with self._database.write() as connection:
            for each in affiliates:
                if each.affiliation == "none":
                    table = room_affiliations.c
                    erase = delete(room_affiliations).where(table.room_id == room_id, table.jid == each.jid)
                    await connection.execute(erase)
                else:
                    statement = upsert(self._database.kind, room_affiliations, _values(room_id, each))
                    await connection.execute(statement)

    async def delete(self, room_id: int) -> None:
        """Erase a room with all that is kept for it."""
        async with self._database.write() as connection:
            await connection.execute(delete(room_affiliations).where(room_affiliations.c.room_id == room_id))
            await connection.execute(delete(archive).where(archive.c.owner == archive_owner(room_id)))
            await connection.execute(delete(rooms).where(rooms.c.id == room_id))

    async def listed(
        self, limit: int, *, after: str | None = None, before: str | None = None, backward: bool = False
    ) -> list[tuple[str, bytes]]:
        """A page of the rooms shown to everybody: names and configurations in the order of the names' bytes."""
        query = select(rooms.c.name, rooms.c.config_json).where(rooms.c.listed)
        if after is not None:
            query = query.where(rooms.c.name > after)
        if before is not None:
            query = query.where(rooms.c.name < before)
        query = query.order_by(rooms.c.name.desc() if backward else rooms.c.name).limit(limit)
        async with self._database.read() as connection:
            found = [(row.name, row.config_json) for row in await connection.execute(query)]
        return found[::-1] if backward else found

    async def count_listed(self) -> int:
        """How many rooms are shown to everybody."""
        async with self._database.read() as connection:
            query = select(func.count()).select_from(rooms).where(rooms.c.listed)
            return (await connection.execute(query)).scalar_one()

    async def count_owned(self, user_id: int) -> int:
        """How many rooms an account owns."""
        table = room_affiliations.c
        query = select(func.count()).select_from(room_affiliations)
        query = query.where(table.user_id == user_id, table.affiliation == "owner")
        async with self._database.read() as connection:
            return (await connection.execute(query)).scalar_one()


def _values(room_id: int, affiliate: Affiliate) -> dict[str, object]:
    return {
        "room_id": room_id,
        "jid": affiliate.jid,
        "affiliation": affiliate.affiliation,
        "nick": None if affiliate.nick is None else affiliate.nick.encode(),
        "reason": None if affiliate.reason is None else affiliate.reason.encode(),
        "user_id": affiliate.user_id,
    }


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()

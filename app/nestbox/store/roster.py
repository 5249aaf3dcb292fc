"""Rosters (RFC 6121, section 2) with their versions, and subscription requests that wait (section 3.1.3)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import Row as SqlRow
from sqlalchemy import Table, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from nestbox.store.database import Database
from nestbox.store.errors import NoSuchAccount, StoreFull
from nestbox.store.reader import Lookup, Reader, Row, text
from nestbox.store.schema import accounts, roster, roster_requests
from nestbox.store.upsert import upsert

__all__ = ["Contact", "Decide", "Roster", "RosterItem"]

_ROSTER = """
SELECT a.id, a.roster_ver, r.jid, r.name, r.subscription, r.ask, r.approved, r.groups_json, r.ver
FROM accounts a LEFT JOIN roster r ON r.user_id = a.id AND r.subscription <> 'remove'
WHERE a.id IN ({}) ORDER BY a.id, r.jid
"""
KEPT_REMOVALS = 64  # an older client gets the whole roster instead
MAX_REQUESTS = 1_000


@dataclass(slots=True)
class RosterItem:
    """A contact. ``subscription`` is none, to, from, both, or in `Roster.changes` remove; the store sets ``ver``."""

    jid: str
    name: str = ""
    subscription: str = "none"
    ask: bool = False
    approved: bool = False
    groups: list[str] = field(default_factory=list)
    ver: int = 0


class Contact(NamedTuple):
    """What an account has to do with another: the item in its roster, and the request that waits for its answer."""

    item: RosterItem | None
    request: bytes | None


Decide = Callable[[Contact], Contact]


class Roster:
    """Every method may raise StoreError; those that write raise NoSuchAccount when the account is gone."""

    def __init__(self, database: Database, reader: Reader) -> None:
        self._database = database
        self._rosters = Lookup(reader, _ROSTER)

    async def load(self, user_id: int) -> tuple[int, list[RosterItem]]:
        """The roster's version and all contacts, in the order of their addresses."""
        rows = await self._rosters.get(user_id)
        if not rows or rows[0][2] is None:
            return (rows[0][1] if rows else 0), []
        return rows[0][1], [_quick_item(row) for row in rows]

    async def items(self, user_id: int) -> list[RosterItem]:
        """All contacts, in the order of their addresses."""
        query = select(roster).where(roster.c.user_id == user_id, roster.c.subscription != "remove")
        async with self._database.read() as connection:
            return [_item(row) for row in await connection.execute(query.order_by(roster.c.jid))]

    async def get(self, user_id: int, jid: str) -> RosterItem | None:
        """One contact by its bare JID."""
        query = select(roster).where(
            roster.c.user_id == user_id, roster.c.jid == jid, roster.c.subscription != "remove"
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else _item(row)

    async def put(self, user_id: int, item: RosterItem) -> int:
        """Write a contact and return the roster's new version, which ``item.ver`` gets, too."""
        async with self._database.write() as connection:
            item.ver = await _next_version(connection, user_id)
            await connection.execute(upsert(self._database.kind, roster, _row(user_id, item)))
        return item.ver

    async def remove(self, user_id: int, jid: str) -> int:
        """Take a contact out and return the roster's new version; only that it was removed is kept, for `changes`."""
        async with self._database.write() as connection:
            ver = await _next_version(connection, user_id)
            gone = RosterItem(jid, subscription="remove", ver=ver)
            await connection.execute(upsert(self._database.kind, roster, _row(user_id, gone)))
            await _forget_old_removals(connection, user_id)
        return ver

    async def change(self, user_id: int, jid: str, decide: Decide, limit: int) -> tuple[Contact, Contact, int]:
        """Change a contact and its request in one transaction, whoever else changes this roster.

        Returns both as they were and as they are, and the roster's version where the item has changed (else 0).

        ``decide`` is given the contact as it is and returns it as it shall be: an item to write (its ``ver`` is set),
        or None to remove it. What it raises is passed on and nothing is changed. Raises StoreFull for a new item beyond
        ``limit`` or a request beyond `MAX_REQUESTS`.
        """
        async with self._database.write() as connection:
            # Everybody who changes this roster waits here for the one before.
            await connection.execute(select(accounts.c.id).where(accounts.c.id == user_id).with_for_update())
            before = await _contact(connection, user_id, jid)
            after = decide(before)
            ver = 0
            if after.item != before.item:
                if before.item is None and await _count(connection, roster, user_id) >= limit:
                    raise StoreFull("The roster is full.", limit="roster_items")
                item = after.item or RosterItem(jid, subscription="remove")
                item.ver = ver = await _next_version(connection, user_id)
                await connection.execute(upsert(self._database.kind, roster, _row(user_id, item)))
                if after.item is None:
                    await _forget_old_removals(connection, user_id)
            if after.request != before.request:
                await self._set_request(connection, user_id, jid, after.request)
        return before, after, ver

    async def _set_request(self, connection: AsyncConnection, user_id: int, jid: str, presence: bytes | None) -> None:
        table = roster_requests
        if presence is None:
            await connection.execute(delete(table).where(table.c.user_id == user_id, table.c.jid == jid))
            return
        if await _count(connection, table, user_id) >= MAX_REQUESTS:
            raise StoreFull("Too many requests wait for an answer.", limit="roster_requests")
        row = {"user_id": user_id, "jid": jid, "presence": presence}
        await connection.execute(upsert(self._database.kind, table, row))

    async def version(self, user_id: int) -> int:
        """The roster's version; 0 is that of a roster never changed."""
        query = select(accounts.c.roster_ver).where(accounts.c.id == user_id)
        async with self._database.read() as connection:
            return (await connection.execute(query)).scalar_one_or_none() or 0

    async def changes(self, user_id: int, since_ver: int) -> list[RosterItem] | None:
        """What changed after a version, oldest first; None when it is too old or none of ours (section 2.6)."""
        limits = select(accounts.c.roster_ver, accounts.c.roster_floor).where(accounts.c.id == user_id)
        query = select(roster).where(roster.c.user_id == user_id, roster.c.ver > since_ver).order_by(roster.c.ver)
        async with self._database.read() as connection:
            row = (await connection.execute(limits)).first()
            if row is None or not row.roster_floor <= since_ver <= row.roster_ver:
                return None
            return [_item(row) for row in await connection.execute(query)]

    async def requests(self, user_id: int) -> list[tuple[str, bytes]]:
        """The bare JIDs that ask for a subscription, with their presence stanzas."""
        query = select(roster_requests.c.jid, roster_requests.c.presence).where(roster_requests.c.user_id == user_id)
        async with self._database.read() as connection:
            return [(row.jid, row.presence) for row in await connection.execute(query)]

    async def add_request(self, user_id: int, jid: str, presence: bytes) -> bool:
        """Keep a request, the latest of each asker; False when the account has `MAX_REQUESTS` already."""
        counted = select(func.count()).where(roster_requests.c.user_id == user_id, roster_requests.c.jid != jid)
        async with self._database.write() as connection:
            if (await connection.execute(counted)).scalar_one() >= MAX_REQUESTS:
                return False
            row = {"user_id": user_id, "jid": jid, "presence": presence}
            await connection.execute(upsert(self._database.kind, roster_requests, row))
        return True

    async def remove_request(self, user_id: int, jid: str) -> bool:
        """Forget a request that was answered or taken back; False when there was none."""
        statement = delete(roster_requests).where(roster_requests.c.user_id == user_id, roster_requests.c.jid == jid)
        async with self._database.write() as connection:
            return (await connection.execute(statement)).rowcount > 0


async def _contact(connection: AsyncConnection, user_id: int, jid: str) -> Contact:
    item = select(roster).where(roster.c.user_id == user_id, roster.c.jid == jid, roster.c.subscription != "remove")
    table = roster_requests
    request = select(table.c.presence).where(table.c.user_id == user_id, table.c.jid == jid)
    row = (await connection.execute(item)).first()
    return Contact(None if row is None else _item(row), (await connection.execute(request)).scalar_one_or_none())


async def _count(connection: AsyncConnection, table: Table, user_id: int) -> int:
    query = select(func.count()).select_from(table).where(table.c.user_id == user_id)
    if table is roster:
        query = query.where(roster.c.subscription != "remove")
    return (await connection.execute(query)).scalar_one()


async def _next_version(connection: AsyncConnection, user_id: int) -> int:
    statement = update(accounts).where(accounts.c.id == user_id).values(roster_ver=accounts.c.roster_ver + 1)
    if not (await connection.execute(statement)).rowcount:
        raise NoSuchAccount("The account was deleted.")
    return (await connection.execute(select(accounts.c.roster_ver).where(accounts.c.id == user_id))).scalar_one()


async def _forget_old_removals(connection: AsyncConnection, user_id: int) -> None:
    removed = (roster.c.user_id == user_id) & (roster.c.subscription == "remove")
    query = select(roster.c.ver).where(removed).order_by(roster.c.ver.desc()).offset(KEPT_REMOVALS).limit(1)
    floor = (await connection.execute(query)).scalar_one_or_none()
    if floor is not None:
        await connection.execute(delete(roster).where(removed, roster.c.ver <= floor))
        await connection.execute(update(accounts).where(accounts.c.id == user_id).values(roster_floor=floor))


def _row(user_id: int, item: RosterItem) -> dict[str, object]:
    return {
        "user_id": user_id,
        "jid": item.jid,
        "name": item.name.encode(),
        "subscription": item.subscription,
        "ask": item.ask,
        "approved": item.approved,
        "groups_json": json.dumps(item.groups, ensure_ascii=False).encode(),
        "ver": item.ver,
    }


def _item(row: SqlRow[tuple[object, ...]]) -> RosterItem:
    return RosterItem(
        row.jid, row.name.decode(), row.subscription, row.ask, row.approved, json.loads(row.groups_json), row.ver
    )


def _quick_item(row: Row) -> RosterItem:
    _, _, jid, name, subscription, ask, approved, groups, ver = row
    groups = json.loads(groups) if groups != b"[]" else []
    return RosterItem(text(jid), name.decode(), text(subscription), bool(ask), bool(approved), groups, ver)

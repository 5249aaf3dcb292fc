"""The message archive (XEP-0313): read by its primary key, kept in monthly partitions on MariaDB.

Rows are put in by the committer. Ids are those of `nestbox.core.ids`, so time filters and retention are ranges of ids.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Column, ColumnElement, Select, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from nestbox.core.ids import id_to_ms, ms_to_id
from nestbox.store import partitions
from nestbox.store.database import Database
from nestbox.store.replica import Replica
from nestbox.store.rooms import archive_owner
from nestbox.store.schema import accounts, archive, archive_prefs, offline, rooms
from nestbox.store.upsert import upsert

__all__ = ["Archive", "ArchiveRow", "Maintained", "Page", "Prefs"]

_DAY_MS = 86_400_000


@dataclass(slots=True)
class ArchiveRow:
    """A message: its id, which is the MAM id, and the stanza."""

    id: int
    stanza: bytes


@dataclass(slots=True)
class Page:
    """Rows in the order of time; ``complete`` says that nothing follows in the direction of paging."""

    rows: list[ArchiveRow]
    complete: bool


@dataclass(slots=True)
class Prefs:
    """What is archived (XEP-0441): ``default`` is always, never or roster; the lists are bare JIDs."""

    default: str = "always"
    always: list[str] = field(default_factory=list)
    never: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Maintained:
    """What a maintenance run did: partitions made and dropped (MariaDB), rows deleted one by one."""

    created: list[str]
    dropped: list[str]
    deleted: int


class Archive:
    """Every method may raise StoreError. ``owner`` is the id of the account, or `archive_owner` of the room."""

    def __init__(self, database: Database, replica: Replica) -> None:
        self._database = database
        self._replica = replica

    async def query(
        self,
        owner: int,
        *,
        with_: str | None = None,
        full: bytes | None = None,
        start: int | None = None,
        end: int | None = None,
        after: int | None = None,
        before: int | None = None,
        ids: Sequence[int] | None = None,
        limit: int = 50,
        backward: bool = False,
    ) -> Page:
        """One page. ``start`` and ``end`` are Unix milliseconds, inclusive; ``after`` and ``before`` ids, exclusive.

        ``with_`` is an address as the rows have it; ``backward`` takes the last ``limit`` rows of what matches, not
        the first. ``full`` narrows it to a full JID, escaped as in an attribute.
        """
        if limit <= 0:
            return Page([], False)
        query = page_query(_where(owner, with_, start, end, after, before, ids, full), limit, backward)
        async with self._replica.read() as connection:
            rows = [ArchiveRow(row.id, row.stanza) for row in await connection.execute(query)]
        complete = len(rows) <= limit
        del rows[limit:]
        if backward:
            rows.reverse()
        return Page(rows, complete)

    async def count(
        self,
        owner: int,
        *,
        with_: str | None = None,
        full: bytes | None = None,
        start: int | None = None,
        end: int | None = None,
        after: int | None = None,
        before: int | None = None,
        ids: Sequence[int] | None = None,
    ) -> int:
        """How many rows match."""
        where = _where(owner, with_, start, end, after, before, ids, full)
        async with self._replica.read() as connection:
            return (await connection.execute(select(func.count()).select_from(archive).where(*where))).scalar_one()

    async def ends(self, owner: int) -> tuple[int, int] | None:
        """The ids of the first and the last row; None for an empty archive."""
        # Each alone is one step in the index; both in one SELECT make SQLite read the whole archive.
        edges = (select(edge(archive.c.id)).where(archive.c.owner == owner) for edge in (func.min, func.max))
        query = select(*(edge.scalar_subquery() for edge in edges))
        async with self._replica.read() as connection:
            first, last = (await connection.execute(query)).one()
        return None if first is None else (first, last)

    async def replace(self, owner: int, id: int, stanza: bytes) -> None:
        """Put another stanza in the place of one, such as what is left of a retracted message."""
        statement = update(archive).where(archive.c.owner == owner, archive.c.id == id).values(stanza=stanza)
        async with self._database.write() as connection:
            await connection.execute(statement)

    async def prefs(self, owner: int) -> Prefs:
        """The account's preferences, or the defaults."""
        query = select(archive_prefs.c.prefs_json).where(archive_prefs.c.user_id == owner)
        async with self._database.read() as connection:
            raw = (await connection.execute(query)).scalar_one_or_none()
        return Prefs() if raw is None else Prefs(**json.loads(raw))

    async def set_prefs(self, owner: int, prefs: Prefs) -> None:
        """Replace the account's preferences."""
        value = {"default": prefs.default, "always": list(prefs.always), "never": list(prefs.never)}
        row = {"user_id": owner, "prefs_json": json.dumps(value, ensure_ascii=False).encode()}
        async with self._database.write() as connection:
            await connection.execute(upsert(self._database.kind, archive_prefs, row))

    async def totals(self) -> tuple[int, int | None]:
        """About how many rows there are (exactly on SQLite), and the Unix milliseconds of the oldest; None if empty."""
        async with self._database.read() as connection:
            if self._database.kind == "mariadb":
                rows = await partitions.row_estimate(connection)
            else:
                rows = (await connection.execute(select(func.count()).select_from(archive))).scalar_one()
            # The first row of each account is one step in the index; there is no index on the id alone.
            first = select(func.min(archive.c.id)).where(archive.c.owner == accounts.c.id).scalar_subquery()
            oldest = (await connection.execute(select(func.min(first)))).scalar_one()
        return rows, None if oldest is None else id_to_ms(oldest)

    async def maintain(self, months_ahead: int = 2, retention_days: int = 0, now_ms: int | None = None) -> Maintained:
        """Keep partitions ready for the coming months and remove what is older than ``retention_days`` (0: nothing).

        An account may have a shorter time of its own. Runs beside the workers. Whole months go by dropping their
        partition, the rest in short transactions. What a deletion left behind, since its account's messages were on
        their way, is erased, too.
        """
        now_ms = now_ms or time.time_ns() // 1_000_000

        def oldest(days: int | None) -> int:
            """The first id to keep; nothing is as old as 0."""
            return ms_to_id(now_ms - days * _DAY_MS) if days else 0

        cutoff = oldest(retention_days)
        done = Maintained([], [], 0)
        if self._database.kind == "mariadb":
            async with self._database.write() as connection:
                done.created = await partitions.extend(connection, now_ms, months_ahead)
                if cutoff:
                    done.dropped = await partitions.drop(connection, cutoff)
        async with self._database.read() as connection:
            kept = await _owners(connection, archive.c.owner)
            waiting = await _owners(connection, offline.c.user_id)
            known: dict[int, int] = {}
            for row in await connection.execute(select(accounts.c.id, accounts.c.archive_days)):
                known[row.id] = max(cutoff, oldest(row.archive_days))
            for room in (await connection.execute(select(rooms.c.id))).scalars():
                known[archive_owner(room)] = cutoff
        removals = [delete(archive).where(archive.c.owner == owner) for owner in kept if owner not in known]
        removals += [delete(offline).where(offline.c.user_id == owner) for owner in waiting if owner not in known]
        for owner in kept:
            if known.get(owner):
                removals.append(delete(archive).where(archive.c.owner == owner, archive.c.id < known[owner]))
        for start in range(0, len(removals), 50):
            async with self._database.write() as connection:
                for statement in removals[start : start + 50]:
                    done.deleted += (await connection.execute(statement)).rowcount
        return done


async def _owners(connection: AsyncConnection, column: Column[int]) -> list[int]:
    query = select(func.min(column))
    found = []
    owner = (await connection.execute(query)).scalar_one()
    while owner is not None:  # a jump in the index for each owner, not a scan
        found.append(owner)
        owner = (await connection.execute(query.where(column > owner))).scalar_one()
    return found


def _where(
    owner: int,
    with_: str | None,
    start: int | None,
    end: int | None,
    after: int | None,
    before: int | None,
    ids: Sequence[int] | None,
    full: bytes | None = None,
) -> list[ColumnElement[bool]]:
    where = [archive.c.owner == owner]
    if with_ is not None:
        where.append(archive.c.peer == with_)
        if full is not None:
            where.append(_names(full))
    if start is not None:
        where.append(archive.c.id >= ms_to_id(start))
    if end is not None:
        where.append(archive.c.id < ms_to_id(end + 1))
    if after is not None:
        where.append(archive.c.id > after)
    if before is not None:
        where.append(archive.c.id < before)
    if ids is not None:
        where.append(archive.c.id.in_(ids))
    return where


def _names(full: bytes) -> ColumnElement[bool]:
    """Whether the start tag, whose values have no >, is from or to a full JID."""
    tag = func.substr(archive.c.stanza, 1, func.instr(archive.c.stanza, b">"))
    return or_(*(func.instr(tag, b' %s="%s"' % (name, full)) > 0 for name in (b"from", b"to")))


def page_query(where: Sequence[ColumnElement[bool]], limit: int, backward: bool) -> Select[tuple[int, bytes]]:
    """One row more than the page has, to know whether it is the last."""
    order = archive.c.id.desc() if backward else archive.c.id.asc()
    return select(archive.c.id, archive.c.stanza).where(*where).order_by(order).limit(limit + 1)

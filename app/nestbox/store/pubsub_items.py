"""The items of pubsub nodes, in the order in which they were published."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Row, delete, func, select

from nestbox.store.database import Database
from nestbox.store.errors import StoreFull
from nestbox.store.pubsub import lock_node, trim
from nestbox.store.reader import Reader, text
from nestbox.store.reader import Row as RawRow
from nestbox.store.schema import pubsub_items
from nestbox.store.upsert import upsert

__all__ = ["Item", "Last", "Page", "PubsubItems"]

_CHUNK = 100  # homes asked for at once; they have no more than 2,000 such nodes, or the newest count
_ROW_BYTES = 64  # what an item costs beside its payload and id
# Asked at each login of a client that wants to hear of nodes.
_LAST = """
SELECT n.home, n.name, n.config_json, p.affiliation, r.subscription, r.groups_json,
  i.name, CASE WHEN i.size <= 16384 THEN i.payload END, i.publisher, i.seq, n.id
FROM pubsub_nodes n
JOIN pubsub_items i ON i.node_id = n.id
  AND i.seq = (SELECT MAX(s.seq) FROM pubsub_items s WHERE s.node_id = n.id)
LEFT JOIN pubsub_affiliations p ON p.node_id = n.id AND p.jid IN ({})
LEFT JOIN roster r ON r.user_id = n.user_id AND r.jid IN ({})
WHERE n.home IN ({}) AND n.name IN ({})
  AND (n.home IN ({}) OR NOT EXISTS (SELECT 1 FROM blocking b WHERE b.user_id = n.user_id AND b.jid IN ({})))
  AND i.seq >= {}
ORDER BY i.seq DESC LIMIT 2000
"""


class Item(NamedTuple):
    """An item: its id, its payload as an element of its own (b'' for none), and the publisher's bare JID."""

    name: str
    payload: bytes | None
    publisher: str
    seq: int


class Page(NamedTuple):
    """Items in the order of publication, and how many there are in all."""

    items: list[Item]
    count: int


class Last(NamedTuple):
    """The last item of a node, and what decides whether the one who asked may have it.

    A large item is without payload: `PubsubItems.named` has it.
    """

    home: str
    node: str
    config: bytes
    affiliation: str
    subscription: str
    groups_json: bytes
    node_id: int
    item: Item


class PubsubItems:
    """Every method may raise StoreError."""

    def __init__(self, database: Database, reader: Reader) -> None:
        self._database = database
        self._reader = reader

    async def publish(
        self, node_id: int, user_id: int, item: Item, keep: int, limit: int, only: str | None = None
    ) -> bool | None:
        """Put an item at the end of a node, in place of the one with its id; older ones than ``keep`` go.

        True when it was done, False when the id is taken by another publisher than ``only``, None when the node is
        gone. Raises StoreFull when the account's items would have more than ``limit`` bytes.
        """
        items = pubsub_items
        size = len(item.payload) + len(item.name.encode()) + _ROW_BYTES
        here = items.c.node_id == node_id
        async with self._database.write() as connection:
            if not await lock_node(connection, node_id):
                return None
            same = select(items.c.publisher).where(here, items.c.name == item.name)
            publisher = (await connection.execute(same)).scalar_one_or_none()
            if only is not None and publisher not in (None, only):
                return False
            last = (await connection.execute(select(func.max(items.c.seq)).where(here))).scalar_one() or 0
            row = {"node_id": node_id, "name": item.name, "user_id": user_id, "publisher": item.publisher}
            row |= {"seq": max(item.seq, last + 1), "size": size, "payload": item.payload}
            await connection.execute(upsert(self._database.kind, items, row))
            await trim(connection, node_id, keep)
            used = select(func.sum(items.c.size)).where(items.c.user_id == user_id)
            if int((await connection.execute(used)).scalar_one() or 0) > limit:
                raise StoreFull("The account's items have too many bytes.")
        return True

    async def retract(self, node_id: int, name: str, only: str | None = None) -> bool | None:
        """Delete an item: True; False when it is of another publisher than ``only``, None when there is none."""
        where = [pubsub_items.c.node_id == node_id, pubsub_items.c.name == name]
        async with self._database.write() as connection:
            query = select(pubsub_items.c.publisher).where(*where).with_for_update()
            publisher = (await connection.execute(query)).scalar_one_or_none()
            if publisher is None:
                return None
            if only is not None and publisher != only:
                return False
            await connection.execute(delete(pubsub_items).where(*where))
        return True

    async def purge(self, node_id: int) -> None:
        """Delete all items of a node."""
        async with self._database.write() as connection:
            await connection.execute(delete(pubsub_items).where(pubsub_items.c.node_id == node_id))

    async def named(self, node_id: int, names: Sequence[str], max_bytes: int) -> Page:
        """The items of these ids, where there are such: about ``max_bytes``, but at least one."""
        items = pubsub_items
        where = [items.c.node_id == node_id, items.c.name.in_(names)]
        async with self._database.read() as connection:
            sizes = select(items.c.seq, items.c.size).where(*where).order_by(items.c.seq)
            rows = (await connection.execute(sizes)).all()
            seqs = _fitting(rows, max_bytes)
            query = select(items).where(items.c.node_id == node_id, items.c.seq.in_(seqs)).order_by(items.c.seq)
            found = [_item(row) for row in await connection.execute(query)] if seqs else []
        return Page(found, len(rows))

    async def names(self, node_id: int, limit: int) -> list[str]:
        """The ids of a node's newest ``limit`` items, in the order of publication."""
        query = select(pubsub_items.c.name).where(pubsub_items.c.node_id == node_id)
        async with self._database.read() as connection:
            found = list((await connection.execute(query.order_by(pubsub_items.c.seq.desc()).limit(limit))).scalars())
        return found[::-1]

    async def page(
        self,
        node_id: int,
        *,
        limit: int,
        max_bytes: int,
        after: str | None = None,
        before: str | None = None,
        backward: bool = False,
    ) -> Page | None:
        """A page of at most ``limit`` items and about ``max_bytes``, but at least one; ``backward``: the last of them.

        ``after`` and ``before`` are ids, exclusive; None when there is no such item.
        """
        items = pubsub_items
        where: list[ColumnElement[bool]] = [items.c.node_id == node_id]
        async with self._database.read() as connection:
            count = (await connection.execute(select(func.count()).select_from(items).where(*where))).scalar_one()
            for name, is_after in ((after, True), (before, False)):
                if name is None:
                    continue
                place = select(items.c.seq).where(items.c.node_id == node_id, items.c.name == name)
                seq = (await connection.execute(place)).scalar_one_or_none()
                if seq is None:
                    return None
                where.append(items.c.seq > seq if is_after else items.c.seq < seq)
            order = items.c.seq.desc() if backward else items.c.seq
            sizes = select(items.c.seq, items.c.size).where(*where).order_by(order).limit(limit)
            seqs = _fitting((await connection.execute(sizes)).all(), max_bytes)
            found = []
            if seqs:
                inside = items.c.seq.between(min(seqs), max(seqs))
                query = select(items).where(items.c.node_id == node_id, inside).order_by(items.c.seq)
                found = [_item(row) for row in await connection.execute(query)]
        return Page(found, count)

    async def last(
        self, homes: Sequence[str], names: Collection[str], asker: str, addresses: Collection[str], since: int = 0
    ) -> list[Last]:
        """The last items of all nodes of these names at these homes whose owners do not block one of ``addresses``.

        ``asker`` is a bare JID; the affiliation and the roster entry are those that it has there. Items with a lower
        ``seq`` than ``since`` are left out.
        """
        found: list[Last] = []
        who, wanted, blocked = [asker], list(names), list(addresses)
        for start in range(0, len(homes), _CHUNK):
            some = homes[start : start + _CHUNK]
            rows = await self._reader.rows(_LAST, who, who, some, wanted, who, blocked, [since])
            found.extend(map(_last, reversed(rows)))
        return found


def _last(row: RawRow) -> Last:
    home, node, config, affiliation, subscription, groups_json, name, payload, publisher, seq, node_id = row
    item = Item(text(name), payload, text(publisher), seq)
    affiliation, subscription = text(affiliation or "none"), text(subscription or "none")
    return Last(text(home), text(node), config, affiliation, subscription, groups_json or b"[]", node_id, item)


def _item(row: Row[tuple[object, ...]]) -> Item:
    return Item(row.name, row.payload, row.publisher, row.seq)


def _fitting(rows: Sequence[Row[tuple[int, int]]], max_bytes: int) -> list[int]:
    """The numbers of the first rows that fit into so many bytes, one at the least."""
    fitting: list[int] = []
    for row in rows:
        max_bytes -= row.size
        if fitting and max_bytes < 0:
            break
        fitting.append(row.seq)
    return fitting

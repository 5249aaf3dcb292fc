"""The items of pubsub nodes, in the order in which they were published."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import delete, func, select

from nestbox.store.database import Database
from nestbox.store.errors import StoreFull
from nestbox.store.pubsub import lock_node, trim
from nestbox.store.reader import Reader, Row, text
from nestbox.store.schema import pubsub_items
from nestbox.store.upsert import upsert

__all__ = ["Item", "Last", "Page", "PubsubItems"]

_CHUNK = 100  # homes asked for at once; they have no more than 2,000 such nodes, or the newest count
_ROW_BYTES = 64  # what an item costs beside its payload and id
_SEQ_MAX = 2**63 - 1
_SIZES = "SELECT seq, size FROM pubsub_items WHERE node_id IN ({})"
_ITEMS = "SELECT name, payload, publisher, seq FROM pubsub_items WHERE node_id IN ({})"
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
                raise StoreFull("The account's items have too many bytes.", limit="pubsub_bytes")
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
        rows = await self._reader.rows(_SIZES + " AND name IN ({}) ORDER BY seq", [node_id], list(names))
        seqs = _fitting(rows, max_bytes)
        found = await self._reader.rows(_ITEMS + " AND seq IN ({}) ORDER BY seq", [node_id], seqs) if seqs else []
        return Page([_item(row) for row in found], len(rows))

    async def names(self, node_id: int, limit: int) -> list[str]:
        """The ids of a node's newest ``limit`` items, in the order of publication."""
        statement = "SELECT name FROM pubsub_items WHERE node_id IN ({}) ORDER BY seq DESC LIMIT {}"
        return [text(row[0]) for row in reversed(await self._reader.rows(statement, [node_id], [limit]))]

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
        rows = self._reader.rows
        low, high = 0, _SEQ_MAX
        for name in (after, before):
            if name is None:
                continue
            place = await rows(_SIZES + " AND name IN ({})", [node_id], [name])
            if not place:
                return None
            low, high = (place[0][0], high) if name is after else (low, place[0][0])
        order = "DESC" if backward else "ASC"
        inside = f"{_SIZES} AND seq > {{}} AND seq < {{}} ORDER BY seq {order} LIMIT {{}}"
        seqs = _fitting(await rows(inside, [node_id], [low], [high], [limit]), max_bytes)
        found: Sequence[Row] = []
        if seqs:
            between = _ITEMS + " AND seq BETWEEN {} AND {} ORDER BY seq"
            found = await rows(between, [node_id], [min(seqs)], [max(seqs)])
        count = await rows("SELECT COUNT(*) FROM pubsub_items WHERE node_id IN ({})", [node_id])
        return Page([_item(row) for row in found], count[0][0])

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


def _last(row: Row) -> Last:
    home, node, config, affiliation, subscription, groups_json, *item, node_id = row
    affiliation, subscription = text(affiliation or "none"), text(subscription or "none")
    return Last(text(home), text(node), config, affiliation, subscription, groups_json or b"[]", node_id, _item(item))


def _item(row: Sequence[Any]) -> Item:
    name, payload, publisher, seq = row
    return Item(text(name), payload, text(publisher), seq)


def _fitting(rows: Sequence[Row], max_bytes: int) -> list[int]:
    """Of (number, size) the numbers of the first that fit into so many bytes, one at the least."""
    fitting: list[int] = []
    for seq, size in rows:
        max_bytes -= size
        if fitting and max_bytes < 0:
            break
        fitting.append(seq)
    return fitting

"""The nodes of PEP and pubsub (XEP-0060, XEP-0163), and who may do what with them.

What is in the nodes is in `nestbox.store.pubsub_items`, who else has to do with them in `nestbox.store.pubsub_people`.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from nestbox.store.database import Database
from nestbox.store.errors import NoSuchAccount, StoreFull
from nestbox.store.reader import Reader, Row, text
from nestbox.store.schema import (
    accounts,
    pubsub_affiliations,
    pubsub_items,
    pubsub_nodes,
    pubsub_subscriptions,
)

__all__ = ["Node", "Pubsub", "View", "lock_node", "trim"]


# Asked by every request. 'subscribed' comes after 'pending': with several subscriptions the better one counts.
_VIEWS = """
SELECT n.id, n.user_id, a.username, n.home, n.name, n.config_json, n.created, p.affiliation,
  (SELECT MAX(s.state) FROM pubsub_subscriptions s WHERE s.node_id = n.id AND s.bare IN ({}))
FROM pubsub_nodes n JOIN accounts a ON a.id = n.user_id
LEFT JOIN pubsub_affiliations p ON p.node_id = n.id AND p.jid IN ({})
WHERE n.home IN ({})"""


class Node(NamedTuple):
    """A node: ``owner`` is the username of the account that made it, ``created`` Unix time in seconds."""

    id: int
    user_id: int
    owner: str
    home: str
    name: str
    config: bytes
    created: int


class View(NamedTuple):
    """A node as one address sees it: its affiliation ('none' for none), and the state of its subscription or ''."""

    node: Node
    affiliation: str
    state: str


class Pubsub:
    """``home`` is the address of a pubsub service: an account's bare JID (PEP) or a host. All may raise StoreError."""

    def __init__(self, database: Database, reader: Reader) -> None:
        self._database = database
        self._reader = reader

    async def view(self, home: str, name: str, bare: str) -> View | None:
        """A node as the bare JID sees it; None if there is none of that name."""
        rows = await self._reader.rows(_VIEWS + " AND n.name IN ({})", [bare], [bare], [home], [name])
        return _view(rows[0]) if rows else None

    async def views(self, home: str, bare: str) -> list[View]:
        """All nodes of a service as the bare JID sees them, in the order of their names."""
        rows = await self._reader.rows(_VIEWS + " ORDER BY n.name", [bare], [bare], [home])
        return [_view(row) for row in rows]

    async def create(
        self, user_id: int, home: str, name: str, config: bytes, created: int, limit: int, owner: str | None = None
    ) -> bool:
        """Make a node; False when there is one of that name. ``owner`` is the bare JID to be entered as its owner.

        Raises StoreFull when the account has ``limit`` nodes already, NoSuchAccount when it is gone.
        """
        nodes = pubsub_nodes
        async with self._database.write() as connection:
            # Everybody who makes a node for this account waits here for the one before.
            lock = select(accounts.c.id).where(accounts.c.id == user_id).with_for_update()
            if (await connection.execute(lock)).first() is None:
                raise NoSuchAccount("The account was deleted.")
            same = select(nodes.c.id).where(nodes.c.home == home, nodes.c.name == name)
            if (await connection.execute(same)).first() is not None:
                return False
            count = select(func.count()).select_from(nodes).where(nodes.c.user_id == user_id)
            if (await connection.execute(count)).scalar_one() >= limit:
                raise StoreFull("The account has too many nodes.", limit="pubsub_nodes")
            row = {"user_id": user_id, "home": home, "name": name, "config_json": config, "created": created}
            try:
                node_id = (await connection.execute(insert(nodes).values(row))).inserted_primary_key[0]
            except IntegrityError:  # somebody else was quicker, in a home that is not one account's
                return False
            if owner is not None:
                row = {"node_id": node_id, "jid": owner, "user_id": user_id, "subject_id": user_id}
                await connection.execute(insert(pubsub_affiliations).values(row | {"affiliation": "owner"}))
        return True

    async def configure(self, node_id: int, config: bytes, keep: int) -> None:
        """Change a node's configuration; only its newest ``keep`` items stay."""
        async with self._database.write() as connection:
            statement = update(pubsub_nodes).where(pubsub_nodes.c.id == node_id).values(config_json=config)
            await connection.execute(statement)
            await trim(connection, node_id, keep)

    async def delete(self, node_id: int) -> bool:
        """Delete a node with all that belongs to it; False when it was gone already."""
        async with self._database.write() as connection:
            if not await lock_node(connection, node_id):
                return False
            for table in (pubsub_items, pubsub_affiliations, pubsub_subscriptions):
                await connection.execute(delete(table).where(table.c.node_id == node_id))
            await connection.execute(delete(pubsub_nodes).where(pubsub_nodes.c.id == node_id))
        return True


async def lock_node(connection: AsyncConnection, node_id: int) -> bool:
    """Wait for whoever else changes this node; False when it is gone."""
    query = select(pubsub_nodes.c.id).where(pubsub_nodes.c.id == node_id).with_for_update()
    return (await connection.execute(query)).first() is not None


async def trim(connection: AsyncConnection, node_id: int, keep: int) -> int:
    """Delete all but the newest ``keep`` items of a node; how many went."""
    items = pubsub_items
    query = select(items.c.seq).where(items.c.node_id == node_id).order_by(items.c.seq.desc()).offset(keep).limit(1)
    newest = (await connection.execute(query)).scalar_one_or_none()
    if newest is None:
        return 0
    return (await connection.execute(delete(items).where(items.c.node_id == node_id, items.c.seq <= newest))).rowcount


def _view(row: Row) -> View:
    node_id, user_id, username, home, name, config, created, affiliation, state = row
    node = Node(node_id, user_id, text(username), text(home), text(name), config, created)
    return View(node, text(affiliation or "none"), text(state or ""))

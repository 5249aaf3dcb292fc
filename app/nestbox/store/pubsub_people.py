"""Who has to do with a pubsub node: affiliations and subscriptions (XEP-0060, sections 4.1 and 4.2)."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from nestbox.store.database import Database
from nestbox.store.errors import StoreFull
from nestbox.store.pubsub import lock_node
from nestbox.store.reader import Reader, text
from nestbox.store.schema import pubsub_affiliations, pubsub_subscriptions
from nestbox.store.upsert import upsert

__all__ = ["PubsubPeople", "Subscription"]


_SUBSCRIPTIONS = """
SELECT n.name, s.jid, s.bare, s.state, s.subid FROM pubsub_subscriptions s JOIN pubsub_nodes n ON n.id = s.node_id
WHERE {} ORDER BY n.name, s.jid
"""


class Subscription(NamedTuple):
    """``state`` is subscribed or pending; ``jid`` what was subscribed, bare or full; ``node`` the node's name."""

    node: str
    jid: str
    bare: str
    state: str
    subid: str


class PubsubPeople:
    """``user_id`` is the account that the node belongs to, ``subject_id`` the one that a row is about, if it is ours.

    Every method may raise StoreError.
    """

    def __init__(self, database: Database, reader: Reader) -> None:
        self._database = database
        self._reader = reader

    async def affiliations(self, node_id: int) -> dict[str, str]:
        """The affiliations of a node by bare JID; those with none are not among them."""
        statement = "SELECT jid, affiliation FROM pubsub_affiliations WHERE node_id IN ({}) ORDER BY jid"
        return {text(jid): text(affiliation) for jid, affiliation in await self._reader.rows(statement, [node_id])}

    async def affiliate(
        self, node_id: int, user_id: int, changes: dict[str, tuple[str, int | None]], limit: int, owned: bool
    ) -> bool:
        """Change affiliations: (affiliation, subject_id) by bare JID, in one transaction; outcasts lose subscriptions.

        False, and nothing is changed, when no owner would be left (``owned`` says that there must be one). Raises
        StoreFull beyond ``limit`` rows.
        """
        table = pubsub_affiliations
        here = table.c.node_id == node_id
        async with self._database.write() as connection:
            if not await lock_node(connection, node_id):
                return True
            current = {row.jid: row.affiliation for row in await connection.execute(select(table).where(here))}
            after = current | {jid: affiliation for jid, (affiliation, _) in changes.items()}
            if owned and "owner" not in after.values():
                return False
            if sum(affiliation != "none" for affiliation in after.values()) > limit:
                raise StoreFull("The node has too many affiliations.", limit="pubsub_subscriptions")
            for jid, (affiliation, subject_id) in changes.items():
                if affiliation == "none":
                    await connection.execute(delete(table).where(here, table.c.jid == jid))
                    continue
                row = {"node_id": node_id, "jid": jid, "user_id": user_id, "subject_id": subject_id}
                await connection.execute(upsert(self._database.kind, table, row | {"affiliation": affiliation}))
                if affiliation == "outcast":
                    lost = pubsub_subscriptions
                    await connection.execute(delete(lost).where(lost.c.node_id == node_id, lost.c.bare == jid))
        return True

    async def affiliated(self, home: str, bare: str) -> list[tuple[str, str]]:
        """The nodes of a service where an address is affiliated: (node, affiliation)."""
        statement = """SELECT n.name, p.affiliation FROM pubsub_affiliations p JOIN pubsub_nodes n ON n.id = p.node_id
            WHERE n.home IN ({}) AND p.jid IN ({}) ORDER BY n.name"""
        return [(text(name), text(what)) for name, what in await self._reader.rows(statement, [home], [bare])]

    async def subscriptions(self, node_id: int) -> list[Subscription]:
        """The subscriptions of a node, in the order of their addresses."""
        rows = await self._reader.rows(_SUBSCRIPTIONS.format("n.id IN ({})"), [node_id])
        return [Subscription(*map(text, row)) for row in rows]

    async def subscribed(self, home: str, bare: str) -> list[Subscription]:
        """The subscriptions of an address at a service, in the order of nodes and addresses."""
        rows = await self._reader.rows(_SUBSCRIPTIONS.format("n.home IN ({}) AND s.bare IN ({})"), [home], [bare])
        return [Subscription(*map(text, row)) for row in rows]

    async def subscribe(
        self, node_id: int, user_id: int, subject_id: int | None, subscription: Subscription, limit: int
    ) -> Subscription | None:
        """Enter a subscription, or change the state of the one that the address has; None when the node is gone.

        Raises StoreFull beyond ``limit`` of the node or of the account.
        """
        table = pubsub_subscriptions
        here = (table.c.node_id == node_id, table.c.jid == subscription.jid)
        async with self._database.write() as connection:
            if not await lock_node(connection, node_id):
                return None
            subid = (await connection.execute(select(table.c.subid).where(*here))).scalar_one_or_none()
            if subid is None:
                await _check_room(connection, node_id, subject_id, limit)
            subscription = subscription._replace(subid=subid or subscription.subid)
            row = {"node_id": node_id, "jid": subscription.jid, "user_id": user_id, "subject_id": subject_id}
            row |= {"bare": subscription.bare, "subid": subscription.subid, "state": subscription.state}
            await connection.execute(upsert(self._database.kind, table, row))
        return subscription

    async def unsubscribe(self, node_id: int, jid: str) -> bool:
        """End a subscription; False when there was none."""
        table = pubsub_subscriptions
        async with self._database.write() as connection:
            statement = delete(table).where(table.c.node_id == node_id, table.c.jid == jid)
            return (await connection.execute(statement)).rowcount > 0


async def _check_room(connection: AsyncConnection, node_id: int, subject_id: int | None, limit: int) -> None:
    table = pubsub_subscriptions
    for column, value in ((table.c.node_id, node_id), (table.c.subject_id, subject_id)):
        if value is None:
            continue
        count = select(func.count()).select_from(table).where(column == value)
        if (await connection.execute(count)).scalar_one() >= limit:
            raise StoreFull("There are too many subscriptions.", limit="pubsub_subscriptions")

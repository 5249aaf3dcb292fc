"""Push registrations (XEP-0357): which app server is told when something waits for an account."""

from __future__ import annotations

import builtins
import hashlib
from dataclasses import dataclass

from sqlalchemy import delete, func, select, update

from nestbox.store.database import Database
from nestbox.store.errors import StoreFull
from nestbox.store.schema import push
from nestbox.store.upsert import upsert

__all__ = ["Push", "Registration"]


@dataclass(frozen=True, slots=True)
class Registration:
    """Notifications go to ``node`` ('' for none) of the service ``jid``, for the client with this resource.

    ``options`` is the form to be sent with each, in canonical bytes, b"" for none.
    """

    jid: str
    node: str
    resource: str
    options: bytes = b""

    @property
    def key(self) -> bytes:
        """What tells it from the account's others: an app server's address and node are too long for a key."""
        return hashlib.sha256(f"{self.jid}\0{self.node}".encode()).digest()


class Push:
    """Every method may raise StoreError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, user_id: int) -> builtins.list[Registration]:
        """The registrations of an account."""
        query = select(push.c.jid, push.c.node, push.c.resource, push.c.options).where(push.c.user_id == user_id)
        async with self._database.read() as connection:
            rows = await connection.execute(query.order_by(push.c.jid, push.c.node))
            return [Registration(*row) for row in rows]

    async def enable(self, user_id: int, registration: Registration, limit: int) -> None:
        """Add or replace a registration; its failures are forgotten. Raises StoreFull beyond ``limit`` of them."""
        values = {
            "user_id": user_id,
            "id": registration.key,
            "jid": registration.jid,
            "node": registration.node,
            "resource": registration.resource,
            "options": registration.options,
            "failures": 0,
        }
        others = select(func.count()).where(push.c.user_id == user_id, push.c.id != registration.key)
        async with self._database.write() as connection:
            if (await connection.execute(others)).scalar_one() >= limit:
                raise StoreFull(f"At most {limit} registrations for push notifications.", limit="push_registrations")
            await connection.execute(upsert(self._database.kind, push, values))

    async def disable(self, user_id: int, jid: str, node: str | None) -> bool:
        """Remove a registration, or with ``node`` None all of a service; whether there was one."""
        query = delete(push).where(push.c.user_id == user_id, push.c.jid == jid)
        if node is not None:
            query = query.where(push.c.node == node)
        async with self._database.write() as connection:
            return (await connection.execute(query)).rowcount > 0

    async def failed(self, user_id: int, registration: Registration) -> int:
        """Count a failure; how many there were in a row."""
        mine = (push.c.user_id == user_id, push.c.id == registration.key)
        async with self._database.write() as connection:
            await connection.execute(update(push).where(*mine).values(failures=push.c.failures + 1))
            return (await connection.execute(select(push.c.failures).where(*mine))).scalar() or 0

    async def worked(self, user_id: int, registration: Registration) -> None:
        """Forget failures, if there were any."""
        mine = (push.c.user_id == user_id, push.c.id == registration.key, push.c.failures > 0)
        async with self._database.write() as connection:
            await connection.execute(update(push).where(*mine).values(failures=0))

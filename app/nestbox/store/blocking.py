"""Block lists (XEP-0191)."""

from __future__ import annotations

import builtins
from collections.abc import Iterable

from sqlalchemy import delete, select

from nestbox.store.database import Database
from nestbox.store.schema import blocking
from nestbox.store.upsert import upsert

__all__ = ["Blocking"]


class Blocking:
    """Addresses are prepared JIDs: bare, full, or a domain. Every method may raise StoreError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, user_id: int) -> builtins.list[str]:
        """The blocked addresses, in their order."""
        query = select(blocking.c.jid).where(blocking.c.user_id == user_id).order_by(blocking.c.jid)
        async with self._database.read() as connection:
            return builtins.list((await connection.execute(query)).scalars())

    async def add(self, user_id: int, jids: Iterable[str]) -> None:
        """Block addresses."""
        async with self._database.write() as connection:
            for jid in jids:
                await connection.execute(upsert(self._database.kind, blocking, {"user_id": user_id, "jid": jid}))

    async def remove(self, user_id: int, jids: Iterable[str]) -> None:
        """Unblock addresses; those not blocked do not matter."""
        async with self._database.write() as connection:
            for jid in jids:
                await connection.execute(delete(blocking).where(blocking.c.user_id == user_id, blocking.c.jid == jid))

    async def clear(self, user_id: int) -> None:
        """Unblock all."""
        async with self._database.write() as connection:
            await connection.execute(delete(blocking).where(blocking.c.user_id == user_id))

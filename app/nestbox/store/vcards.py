"""vCards (XEP-0054), one for each account, as the client sent it."""

from __future__ import annotations

from sqlalchemy import select

from nestbox.store.database import Database
from nestbox.store.schema import vcards
from nestbox.store.upsert import upsert

__all__ = ["Vcards"]


class Vcards:
    """Every method may raise StoreError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, user_id: int) -> bytes | None:
        """The serialised vCard."""
        query = select(vcards.c.xml).where(vcards.c.user_id == user_id)
        async with self._database.read() as connection:
            return (await connection.execute(query)).scalar_one_or_none()

    async def put(self, user_id: int, xml: bytes) -> None:
        """Replace the vCard."""
        async with self._database.write() as connection:
            await connection.execute(upsert(self._database.kind, vcards, {"user_id": user_id, "xml": xml}))

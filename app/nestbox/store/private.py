"""Private XML storage (XEP-0049): one element for each name."""

from __future__ import annotations

from sqlalchemy import func, select

from nestbox.store.database import Database
from nestbox.store.schema import private
from nestbox.store.upsert import upsert

__all__ = ["Private"]


class Private:
    """Names are ``{namespace}tag`` of at most 512 bytes. Every method may raise StoreError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, user_id: int, key: str) -> bytes | None:
        """The serialised element of a name."""
        query = select(private.c.xml).where(private.c.user_id == user_id, private.c.name == key)
        async with self._database.read() as connection:
            return (await connection.execute(query)).scalar_one_or_none()

    async def all(self, user_id: int) -> list[bytes]:
        """Every serialised element, in the order of their names."""
        query = select(private.c.xml).where(private.c.user_id == user_id).order_by(private.c.name)
        async with self._database.read() as connection:
            return list((await connection.execute(query)).scalars())

    async def put(self, user_id: int, key: str, xml: bytes) -> None:
        """Replace the element of a name."""
        row = {"user_id": user_id, "name": key, "xml": xml}
        async with self._database.write() as connection:
            await connection.execute(upsert(self._database.kind, private, row))

    async def size(self, user_id: int) -> int:
        """How many bytes the account keeps here, names and a little for each row included."""
        used = func.sum(func.length(private.c.xml) + func.length(private.c.name) + 16)
        async with self._database.read() as connection:
            return int((await connection.execute(select(used).where(private.c.user_id == user_id))).scalar_one() or 0)

"""Messages kept for an account that was not online (XEP-0160). They are put in by the committer."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, func, select

from nestbox.store.database import Database
from nestbox.store.schema import offline

__all__ = ["Offline"]

_CHUNK = 500


class Offline:
    """Every method may raise StoreError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def fetch(self, user_id: int, limit: int) -> list[tuple[int, bytes]]:
        """The oldest messages: ids and stanzas. They stay until `delete`, so that a crash loses none."""
        query = select(offline.c.id, offline.c.stanza).where(offline.c.user_id == user_id)
        async with self._database.read() as connection:
            rows = await connection.execute(query.order_by(offline.c.id).limit(limit))
            return [(row.id, row.stanza) for row in rows]

    async def delete(self, user_id: int, ids: Sequence[int]) -> None:
        """Remove messages that were delivered."""
        async with self._database.write() as connection:
            for start in range(0, len(ids), _CHUNK):
                chunk = ids[start : start + _CHUNK]
                await connection.execute(delete(offline).where(offline.c.user_id == user_id, offline.c.id.in_(chunk)))

    async def count(self, user_id: int) -> int:
        """How many messages wait."""
        query = select(func.count()).select_from(offline).where(offline.c.user_id == user_id)
        async with self._database.read() as connection:
            return (await connection.execute(query)).scalar_one()

    async def owners(self) -> set[int]:
        """The ids of the accounts for which messages wait."""
        async with self._database.read() as connection:
            return set((await connection.execute(select(offline.c.user_id).distinct())).scalars())

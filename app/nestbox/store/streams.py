"""How far clients' streams have got, as committed with their stanzas' rows (`nestbox.store.committer`)."""

from __future__ import annotations

import time

from sqlalchemy import delete, select

from nestbox.store.database import Database
from nestbox.store.schema import streams

__all__ = ["Streams"]

KEPT_DAYS = 7  # a stream that was quiet for longer is known by its journal alone


class Streams:
    """Every method may raise StoreError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def received(self, sm_id: str) -> int | None:
        """How many stanzas of its client a stream has got through, modulo 2**32; None where none caused a row."""
        query = select(streams.c.received).where(streams.c.sm_id == sm_id)
        async with self._database.read() as connection:
            return (await connection.execute(query)).scalar_one_or_none()

    async def forget_old(self) -> int:
        """Remove what is too old to matter; how many that were."""
        old = delete(streams).where(streams.c.at < time.time() - KEPT_DAYS * 86_400)
        async with self._database.write() as connection:
            return (await connection.execute(old)).rowcount

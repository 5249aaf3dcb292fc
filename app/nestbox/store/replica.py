"""Reads from a replica of MariaDB, when it has everything that was written before.

Before each read the primary says its position in the binary log (a GTID, no table is touched), and the replica is given
a moment to reach it. So a reader finds what any worker had committed before it asked, whichever server it is sent to.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from nestbox.store.database import Database
from nestbox.store.errors import StoreError

__all__ = ["Replica"]

WAIT_SECONDS = 0.02  # that a replica is given to catch up: about a commit's way
PAUSE_SECONDS = 10.0  # that one which fails is left alone
_POSITION = text("SELECT @@gtid_binlog_pos")
_REACHED = text("SELECT MASTER_GTID_WAIT(:position, :seconds)")
_log = logging.getLogger("nestbox.store")


class Replica:
    """``read`` is `Database.read` of the replica where that is as good as the primary, else of the primary.

    ``used`` counts reads of the replica, ``behind`` those for which it was too late or away.
    """

    def __init__(self, primary: Database, url: str | None) -> None:
        self._primary = primary
        self._replica = Database(url) if url else None
        self._ask_again = 0.0  # time.monotonic()
        self.used = 0
        self.behind = 0

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection to read with. Raises StoreError when no database answers."""
        async with AsyncExitStack() as stack:
            connection = await self._caught_up(stack)
            if connection is None:
                connection = await stack.enter_async_context(self._primary.read())
            yield connection

    async def _caught_up(self, stack: AsyncExitStack) -> AsyncConnection | None:
        if self._replica is None or time.monotonic() < self._ask_again:
            return None
        async with self._primary.read() as primary:
            position = (await primary.execute(_POSITION)).scalar_one()
        try:
            async with AsyncExitStack() as attempt:
                connection = await attempt.enter_async_context(self._replica.read())
                wait = {"position": position, "seconds": WAIT_SECONDS}
                if position and (await connection.execute(_REACHED, wait)).scalar_one() == 0:
                    self.used += 1
                    stack.push_async_exit(attempt.pop_all())
                    return connection
        except StoreError as error:
            self._ask_again = time.monotonic() + PAUSE_SECONDS
            _log.warning("the replica is not used for a while: %s", error)
        self.behind += 1
        return None

    async def reaches(self, seconds: float) -> bool:
        """Whether it has, within so many seconds, what the primary has now. Raises StoreError."""
        async with self._primary.read() as primary:
            position = (await primary.execute(_POSITION)).scalar_one()
        if self._replica is None or not position:
            return False
        async with self._replica.read() as connection:
            wait = {"position": position, "seconds": seconds}
            return (await connection.execute(_REACHED, wait)).scalar_one() == 0

    async def close(self) -> None:
        """End all connections to the replica."""
        if self._replica is not None:
            await self._replica.close()

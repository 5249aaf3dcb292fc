"""The connection to SQLite or MariaDB for all but the hot path.

Both are spoken to through SQLAlchemy's async engine, with a pool as small as a worker needs.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import URL, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from nestbox.store.errors import StoreError

__all__ = ["SQL_MODE", "Database", "sqlite_pragmas"]

SQL_MODE = "SET SESSION sql_mode = 'STRICT_ALL_TABLES'"  # too long is an error, never cut

# It logs the server's notes, such as that a primary key's name was ignored; in strict mode what matters is an error.
logging.getLogger("asyncmy").setLevel(logging.ERROR)
BUSY_SECONDS = 10  # how long a writer waits for the writers of the other workers
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "mysql": "mysql+asyncmy", "mariadb": "mysql+asyncmy"}


def sqlite_pragmas() -> tuple[str, ...]:
    """What every SQLite connection sets: durable at commit, readers beside one writer, 2 MiB of cache."""
    return (
        f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}",
        "PRAGMA journal_mode=WAL",
        "PRAGMA synchronous=FULL",
        "PRAGMA foreign_keys=ON",
        "PRAGMA cache_size=-2048",
        "PRAGMA secure_delete=FAST",  # erased means erased where it costs no extra write
    )


class Database:
    """``url`` is ``sqlite:////path`` or ``mysql://user@localhost/name?unix_socket=/path``; else StoreError."""

    def __init__(self, url: str) -> None:
        try:
            self.url: URL = make_url(url)
            self.kind = "sqlite" if self.url.get_backend_name() == "sqlite" else "mariadb"
            driver = _DRIVERS[self.url.drivername]
        except (ArgumentError, NoSuchModuleError, KeyError) as error:
            raise StoreError("The database URL must start with sqlite:/// or mysql://.") from error
        self._engine: AsyncEngine = self._create(driver)
        self._writer = self._engine.execution_options(nestbox_write=True)

    def _create(self, driver: str) -> AsyncEngine:
        if self.kind == "mariadb":
            return create_async_engine(
                self.url.set(drivername=driver),
                pool_size=2,
                max_overflow=1,
                pool_timeout=30,
                pool_pre_ping=True,  # MariaDB may have been restarted
                pool_recycle=3600,
                isolation_level="READ COMMITTED",
                connect_args={"connect_timeout": 10, "init_command": SQL_MODE},
            )
        engine = create_async_engine(
            self.url.set(drivername=driver), pool_size=2, max_overflow=1, pool_timeout=30, isolation_level=None
        )

        @event.listens_for(engine.sync_engine, "connect")
        def _prepare(connection: object, record: object) -> None:
            cursor = connection.cursor()  # type: ignore[attr-defined]
            connection.isolation_level = None  # type: ignore[attr-defined]  # BEGIN is ours, below
            for pragma in sqlite_pragmas():
                cursor.execute(pragma)
            cursor.close()

        @event.listens_for(engine.sync_engine, "begin")
        def _begin(connection: object) -> None:
            # A transaction that reads first and then writes cannot wait for the lock: SQLite refuses it at once.
            write = connection.get_execution_options().get("nestbox_write")  # type: ignore[attr-defined]
            connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")  # type: ignore[attr-defined]

        return engine

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection to read with. Raises StoreError when the database does not answer."""
        async with self._guard(self._engine) as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction: committed at the end, rolled back on an exception. Raises StoreError."""
        async with self._guard(self._writer) as connection:
            yield connection

    @asynccontextmanager
    async def _guard(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        try:
            async with engine.begin() as connection:
                yield connection
        except (DBAPIError, OSError, TimeoutError) as error:
            raise StoreError(f"The database refused: {_reason(error)}.") from error
        except SQLAlchemyError as error:
            raise StoreError(f"The database does not answer: {_reason(error)}.") from error

    async def ping(self) -> None:
        """Raise StoreError unless the database answers."""
        async with self.read() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """End all connections."""
        await self._engine.dispose()


def _reason(error: BaseException) -> str:
    """One line without the statement and its values, which may be private."""
    cause = getattr(error, "orig", None) or error
    args = getattr(cause, "args", ())
    message = args[-1] if args else cause
    return " ".join(str(message).split()).rstrip(".") or type(cause).__name__

"""Reads that every login makes: raw statements on a connection of their own, and many askers' keys in one statement.

The engine of `nestbox.store.database` costs a worker ten times what the database does for a row found by its key. While
one statement runs, whoever asks next waits for the statement after it, so that a thousand clients that come back at
once cost a few dozen statements, and everybody sees what was committed before they asked.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import asyncmy
from asyncmy import errors
from sqlalchemy import URL

from nestbox.store.database import sqlite_pragmas
from nestbox.store.errors import StoreError
from nestbox.store.writers import maria_options

__all__ = ["Lookup", "MariaReader", "Reader", "Row", "SqliteReader", "text"]

Row = tuple[Any, ...]
Key = str | int
_MAX_KEYS = 100  # in one statement, which then takes a few milliseconds


class Reader(Protocol):
    """Runs one statement at a time; ``{}`` in it stands for the next list of keys. Raises StoreError."""

    async def rows(self, statement: str, *keys: Sequence[Key]) -> Sequence[Row]:
        """All rows. Text may come as bytes."""

    async def close(self) -> None:
        """End the connection."""


class SqliteReader:
    """A connection in a thread of its own."""

    def __init__(self, url: URL) -> None:
        self._path = url.database or ":memory:"
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reader")

    async def rows(self, statement: str, *keys: Sequence[Key]) -> Sequence[Row]:
        statement, values = _bound(statement, keys, "?")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._rows, statement, values)

    async def close(self) -> None:
        if self._connection is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown()

    def _rows(self, statement: str, keys: Sequence[Key]) -> list[Row]:
        try:
            if self._connection is None:
                connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
                for pragma in sqlite_pragmas():
                    connection.execute(pragma)
                self._connection = connection
            return self._connection.execute(statement, keys).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"The database refused: {error}.") from error


class MariaReader:
    """A connection in autocommit, so that each statement sees all that was committed; made again when it broke."""

    def __init__(self, url: URL) -> None:
        self._options = maria_options(url)
        self._connection: Any = None
        self._free = asyncio.Lock()  # a connection answers one statement at a time

    async def rows(self, statement: str, *keys: Sequence[Key]) -> Sequence[Row]:
        statement, values = _bound(statement, keys, "%s")
        async with self._free:
            fresh = self._connection is None
            try:
                try:
                    return await self._query(statement, values)
                except (errors.OperationalError, errors.InterfaceError, OSError, EOFError):
                    if fresh:
                        raise
                    return await self._query(statement, values)  # the server was restarted
            except (errors.MySQLError, OSError, EOFError, TimeoutError) as error:
                raise StoreError(f"The database refused: {error}.") from error

    async def _query(self, statement: str, values: Sequence[Key]) -> Sequence[Row]:
        try:
            if self._connection is None:
                self._connection = await asyncmy.connect(**self._options)
            async with self._connection.cursor() as cursor:
                await cursor.execute(statement, values)
                return await cursor.fetchall()
        except BaseException:
            await self.close()  # an answer may still be on its way
            raise

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _bound(statement: str, keys: Sequence[Sequence[Key]], mark: str) -> tuple[str, list[Key]]:
    """The statement with a mark for each key, and the keys to bind."""
    return statement.format(*(",".join([mark] * len(each)) for each in keys)), [key for each in keys for key in each]


def text(value: str | bytes) -> str:
    """A column of text; MariaDB's are bytes."""
    return value.decode() if type(value) is bytes else value


class Lookup:
    """One statement whose first column is the key; `get` gives the rows of one key."""

    def __init__(self, reader: Reader, statement: str) -> None:
        self._reader = reader
        self._statement = statement
        self._waiting: dict[Key, asyncio.Future[list[Row]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def get(self, key: Key) -> list[Row]:
        """The rows of a key. Raises StoreError."""
        future = self._waiting.get(key)
        if future is None:
            future = self._waiting[key] = asyncio.get_running_loop().create_future()
            if self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._run())
        return await asyncio.shield(future)

    async def _run(self) -> None:
        while self._waiting:
            waiting = self._waiting
            if len(waiting) > _MAX_KEYS:
                keys = list(waiting)[:_MAX_KEYS]
                asked = {key: waiting.pop(key) for key in keys}
            else:
                self._waiting, asked = {}, waiting
            found: dict[Key, list[Row]] = {key: [] for key in asked}
            try:
                for row in await self._reader.rows(self._statement, list(asked)):
                    found[text(row[0])].append(row)
            except Exception as error:
                for future in asked.values():
                    future.set_exception(error)
                    future.exception()  # whoever asked may have gone
                continue
            for key, future in asked.items():
                future.set_result(found[key])
        self._task = None

"""The raw driver statements behind the committer, one writer for each database.

A writer owns one connection. `write` returns when the batch is durable, with the rows that the database refused for
what they hold; it raises Away when nothing is known to be written and the batch should be tried again. A row that is
there already, the same, was written by a try whose answer got lost, and counts as written.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import asyncmy
from asyncmy import errors
from sqlalchemy import URL

from nestbox.store.database import SQL_MODE, sqlite_pragmas

__all__ = ["Away", "Batch", "MariaWriter", "Refused", "SqliteWriter", "Writer", "maria_options"]

Row = tuple[Any, ...]
Refused = tuple[str, int, int, str]  # table, owner, id, reason
Statement = tuple[str, Sequence[Any]]  # with its bound values
_STATEMENT_BYTES = 1024 * 1024  # far below MariaDB's max_allowed_packet of 16 MiB
_DUPLICATE = 1062
_REFUSED = (errors.IntegrityError, errors.DataError)


class Away(Exception):
    """The database cannot be written to now."""


class Batch:
    """Rows that are committed together: (owner, id, peer, stanza) and (user_id, id, stanza).

    ``marks`` says by stream how many stanzas it has got through (`nestbox.store.streams`), with its account's id.
    """

    __slots__ = ("archive", "bytes", "marks", "offline", "rows")

    def __init__(self) -> None:
        self.archive: list[Row] = []
        self.offline: list[Row] = []
        self.marks: dict[str, tuple[int, int]] = {}
        self.rows = 0
        self.bytes = 0


class Writer(Protocol):
    """Writes batches, one at a time."""

    async def write(self, batch: Batch) -> list[Refused]:
        """Commit a batch and return the rows refused. Raises Away."""

    async def close(self) -> None:
        """End the connection."""


_INSERT = {
    "archive": "INSERT INTO archive (owner, id, peer, stanza) VALUES (?, ?, ?, ?)",
    "offline": "INSERT INTO offline (user_id, id, stanza) VALUES (?, ?, ?)",
}
_MARK = (
    "INSERT INTO streams (sm_id, user_id, received, at) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (sm_id) DO UPDATE SET received = excluded.received, at = excluded.at"
)
_NO_ESCAPES = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_BACKSLASH_ESCAPES'"
_MARIA_INSERT = {
    "archive": ("INSERT INTO archive (owner, id, peer, stanza) VALUES ", "(%s,%s,%s,%s)"),
    "offline": ("INSERT INTO offline (user_id, id, stanza) VALUES ", "(%s,%s,%s)"),
}
_MARIA_MARK = (
    "INSERT INTO streams (sm_id, user_id, received, at) VALUES %s "
    "ON DUPLICATE KEY UPDATE received = VALUES(received), at = VALUES(at)"
)
_SAME = {
    "archive": "SELECT 1 FROM archive WHERE owner = ? AND id = ? AND peer = ? AND stanza = ?",
    "offline": "SELECT 1 FROM offline WHERE user_id = ? AND id = ? AND stanza = ?",
}


class SqliteWriter:
    """A connection in a thread of its own; the writers of all workers queue for the file's lock."""

    def __init__(self, url: URL) -> None:
        self._path = url.database or ":memory:"
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="committer")

    async def write(self, batch: Batch) -> list[Refused]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._write, batch)

    async def close(self) -> None:
        if self._connection is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown()

    def _write(self, batch: Batch) -> list[Refused]:
        try:
            connection = self._connection or self._connect()
            try:
                return self._transaction(connection, batch, self._all)
            except sqlite3.IntegrityError:
                return self._transaction(connection, batch, self._each)
        except sqlite3.Error as error:
            raise Away(f"SQLite: {error}") from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        for pragma in sqlite_pragmas():
            connection.execute(pragma)
        self._connection = connection
        return connection

    def _transaction(
        self, connection: sqlite3.Connection, batch: Batch, insert: Callable[[str, list[Row]], list[Refused]]
    ) -> list[Refused]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            refused = insert("archive", batch.archive) + insert("offline", batch.offline)
            if batch.marks:
                now = int(time.time())
                connection.executemany(_MARK, [(sm_id, *mark, now) for sm_id, mark in batch.marks.items()])
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return refused

    def _all(self, table: str, rows: list[Row]) -> list[Refused]:
        if rows:
            self._connection.executemany(_INSERT[table], rows)
        return []

    def _each(self, table: str, rows: list[Row]) -> list[Refused]:
        refused = []
        for row in rows:
            try:
                self._connection.execute(_INSERT[table], row)
            except sqlite3.IntegrityError as error:
                if not self._connection.execute(_SAME[table], row).fetchone():
                    refused.append((table, row[0], row[1], str(error)))
        return refused


def maria_options(url: URL) -> dict[str, Any]:
    """How asyncmy connects, in autocommit."""
    options: dict[str, Any] = {
        "user": url.username,
        "password": url.password or "",
        "database": url.database,
        "autocommit": True,
        "charset": "utf8mb4",
        "connect_timeout": 10,
        "read_timeout": 30,
        "init_command": SQL_MODE,
    }
    query = dict(url.query)
    if "unix_socket" in query:
        return options | {"unix_socket": query["unix_socket"]}
    return options | {"host": url.host or "localhost", "port": url.port or 3306}


class MariaWriter:
    """A connection in autocommit: a batch of one statement, the usual one, is one round trip.

    It reads no backslash as an escape. So what the driver does to bind text is to double its quotes, which costs a row
    one microsecond instead of eight; but it is wrong for bytes then, and stanzas are bound as text.
    """

    def __init__(self, url: URL) -> None:
        self._options = maria_options(url) | {"init_command": _NO_ESCAPES}
        self._connection: Any = None

    async def write(self, batch: Batch) -> list[Refused]:
        statements = _statements("archive", batch.archive) + _statements("offline", batch.offline) + _marks(batch)
        try:
            if self._connection is None:
                self._connection = await asyncmy.connect(**self._options)
            try:
                await self._all(statements)
                return []
            except _REFUSED:
                return await self._each(batch)
        except (errors.MySQLError, OSError, EOFError, TimeoutError) as error:
            await self._drop()
            raise Away(f"MariaDB: {error}") from error
        except BaseException:
            await self._drop()  # an answer may still be on its way
            raise

    async def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.ensure_closed()

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def _run(self, sql: str, values: Sequence[Any] = ()) -> Sequence[Row]:
        async with self._connection.cursor() as cursor:
            await cursor.execute(sql, values)
            return await cursor.fetchall() if cursor.description else ()

    async def _all(self, statements: Sequence[Statement]) -> None:
        if len(statements) == 1:
            await self._run(*statements[0])
        else:  # one compound statement, so that the transaction is one round trip, too
            body = "; ".join(sql for sql, _ in statements)
            values = [value for _, some in statements for value in some]
            await self._run(f"BEGIN NOT ATOMIC START TRANSACTION; {body}; COMMIT; END", values)

    async def _each(self, batch: Batch) -> list[Refused]:
        await self._run("ROLLBACK")
        await self._run("BEGIN")
        refused = await self._halves("archive", batch.archive) + await self._halves("offline", batch.offline)
        for statement in _marks(batch):
            await self._run(*statement)
        await self._run("COMMIT")
        return refused

    async def _halves(self, table: str, rows: list[Row]) -> list[Refused]:
        """Insert rows, parting them until the refused ones stand alone; a failed statement leaves no row behind."""
        if not rows:
            return []
        try:
            for statement in _statements(table, rows):
                await self._run(*statement)
            return []
        except _REFUSED as error:
            if len(rows) == 1:
                row = rows[0]
                if error.args[0] == _DUPLICATE and await self._run(_SAME[table].replace("?", "%s"), _as_text(row)):
                    return []
                return [(table, row[0], row[1], str(error.args[-1]))]
        middle = len(rows) // 2
        return await self._halves(table, rows[:middle]) + await self._halves(table, rows[middle:])


def _marks(batch: Batch) -> list[Statement]:
    if not batch.marks:
        return []
    now = int(time.time())
    values = [value for sm_id, mark in batch.marks.items() for value in (sm_id, *mark, now)]
    return [(_MARIA_MARK % ",".join(["(%s,%s,%s,%s)"] * len(batch.marks)), values)]


def _statements(table: str, rows: list[Row]) -> list[Statement]:
    """Multi-row INSERTs."""
    head, row_sql = _MARIA_INSERT[table]
    statements: list[Statement] = []
    values: list[Any] = []
    count = size = 0
    for row in rows:
        if count and size + len(row[-1]) > _STATEMENT_BYTES:
            statements.append((head + ",".join([row_sql] * count), values))
            values, count, size = [], 0, 0
        values += _as_text(row)
        count += 1
        size += len(row[-1])
    if count:
        statements.append((head + ",".join([row_sql] * count), values))
    return statements


def _as_text(row: Row) -> Row:
    """A row with its stanza as `MariaWriter` binds it; what is no UTF-8 gets through as it is."""
    return *row[:-1], row[-1].decode(errors="surrogateescape")

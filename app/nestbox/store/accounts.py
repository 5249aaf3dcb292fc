"""Accounts: who may log in, and when they were last seen."""

from __future__ import annotations

import builtins
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, Row, Table, bindparam, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from nestbox.core.jid import prepare_localpart
from nestbox.store.database import Database
from nestbox.store.errors import AccountExists, NoSuchAccount
from nestbox.store.passwords import ScramKeys, derive
from nestbox.store.schema import accounts, credentials, metadata
from nestbox.store.tokens import revoke
from nestbox.store.upsert import upsert

__all__ = ["Account", "Accounts", "insert_accounts"]

_CHUNK = 500


@dataclass(slots=True)
class Account:
    """``created`` is Unix time in seconds; `Accounts.get` fills the rest.

    ``keys`` are by hash name (SHA-1, SHA-256, SHA-512); ``photo`` is the SHA-1 of the account's picture, '' for none.
    """

    id: int
    username: str
    enabled: bool
    created: int
    keys: dict[str, ScramKeys] = field(default_factory=dict)
    photo: str = ""


class Accounts:
    """Usernames are localparts; those given here need not be prepared. Every method may raise StoreError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, username: str, password: str) -> Account:
        """Add an account. Raises AccountExists, PasswordError, or ValueError for what no account can be called."""
        name = prepare_localpart(username)
        keys = await derive(password)
        if await self.create_many([(name, keys)]):
            raise AccountExists(f"There is already a user {name}.")
        account = await self.get(name)
        assert account is not None
        return account

    async def create_many(self, users: Iterable[tuple[str, Mapping[str, ScramKeys]]]) -> builtins.list[str]:
        """Add accounts in one transaction and return the names that existed before; those are left as they are."""
        wanted = {prepare_localpart(name): keys for name, keys in users}
        async with self._database.write() as connection:
            return await insert_accounts(connection, wanted)

    async def existing(self, usernames: Iterable[str]) -> builtins.list[str]:
        """Those of the prepared names that have an account, in the order given."""
        names = list(usernames)
        async with self._database.read() as connection:
            found = await _ids(connection, names)
        return [name for name in names if name in found]

    async def existing_ids(self, ids: Iterable[int]) -> set[int]:
        """Those of the ids that are an account's."""
        wanted, found = list(ids), set()
        async with self._database.read() as connection:
            for start in range(0, len(wanted), _CHUNK):
                query = select(accounts.c.id).where(accounts.c.id.in_(wanted[start : start + _CHUNK]))
                found.update(await connection.scalars(query))
        return found

    async def set_password(self, username: str, password: str) -> None:
        """Replace the keys; tokens that stood for them are worth nothing. Raises NoSuchAccount, PasswordError."""
        keys = await derive(password)
        async with self._database.write() as connection:
            user_id = await _id(connection, username)
            await revoke(connection, user_id)
            await connection.execute(delete(credentials).where(credentials.c.user_id == user_id))
            rows = [_key_row(user_id, digest, value) for digest, value in keys.items()]
            await connection.execute(insert(credentials), rows)

    async def add_keys(self, username: str, digest: str, keys: ScramKeys) -> None:
        """Add the keys of one more hash (XEP-0480). Raises NoSuchAccount."""
        async with self._database.write() as connection:
            row = _key_row(await _id(connection, username), digest, keys)
            await connection.execute(upsert(self._database.kind, credentials, row))

    async def set_enabled(self, username: str, enabled: bool) -> None:
        """Let an account log in or not; its tokens are worth nothing afterwards. Raises NoSuchAccount."""
        async with self._database.write() as connection:
            user_id = await _id(connection, username)
            await revoke(connection, user_id)
            await connection.execute(update(accounts).where(accounts.c.id == user_id).values(enabled=enabled))

    async def set_archive_days(self, username: str, days: int | None) -> None:
        """Keep an account's messages for so many days at the most, None: as the configuration says.

        Raises NoSuchAccount.
        """
        async with self._database.write() as connection:
            user_id = await _id(connection, username)
            await connection.execute(update(accounts).where(accounts.c.id == user_id).values(archive_days=days))

    async def delete(self, username: str) -> None:
        """Erase an account and all that is kept for it, in one transaction. Raises NoSuchAccount."""
        async with self._database.write() as connection:
            user_id = await _id(connection, username)
            await connection.run_sync(_erase, user_id)

    async def get(self, username: str) -> Account | None:
        """The account of a prepared username, with its keys."""
        query = (
            select(accounts.c.id, accounts.c.enabled, accounts.c.created, accounts.c.photo, credentials)
            .outerjoin_from(accounts, credentials)
            .where(accounts.c.username == username)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        if not rows:
            return None
        keys = {
            row.hash: ScramKeys(row.salt, row.iterations, row.stored_key, row.server_key) for row in rows if row.hash
        }
        return Account(rows[0].id, username, rows[0].enabled, rows[0].created, keys, rows[0].photo or "")

    async def list(
        self, prefix: str = "", after: str = "", limit: int = 100, enabled: bool | None = None
    ) -> builtins.list[Account]:
        """A page of accounts without keys, in the order of their names' bytes, those after ``after``."""
        query = select(accounts).where(accounts.c.username > after).order_by(accounts.c.username).limit(limit)
        if prefix:
            query = query.where(accounts.c.username >= prefix, accounts.c.username < prefix + "\U0010ffff")
        if enabled is not None:
            query = query.where(accounts.c.enabled == enabled)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [Account(row.id, row.username, row.enabled, row.created) for row in rows]

    async def export(self) -> builtins.list[Account]:
        """Every account with its keys, in the order of their names' bytes."""
        query = select(accounts.c.id, accounts.c.username, accounts.c.enabled, accounts.c.created, credentials)
        query = query.outerjoin_from(accounts, credentials).order_by(accounts.c.username)
        found: dict[int, Account] = {}
        async with self._database.read() as connection:
            for row in await connection.execute(query):
                account = found.setdefault(row.id, Account(row.id, row.username, row.enabled, row.created))
                if row.hash:
                    account.keys[row.hash] = ScramKeys(row.salt, row.iterations, row.stored_key, row.server_key)
        return list(found.values())

    async def count(self, enabled: bool | None = None) -> int:
        """How many accounts there are, or how many of them are enabled or not."""
        query = select(func.count()).select_from(accounts)
        if enabled is not None:
            query = query.where(accounts.c.enabled == enabled)
        async with self._database.read() as connection:
            return (await connection.execute(query)).scalar_one()

    async def touch_last(self, user_id: int, seconds: int, status: str = "") -> None:
        """Remember when an account was last seen (Unix time) and its last status text (XEP-0012)."""
        await self.touch_many({user_id: (seconds, status)})

    async def touch_many(self, seen: Mapping[int, tuple[int, str]]) -> None:
        """`touch_last` for many accounts in one transaction: (seconds, status) by account id."""
        statement = update(accounts).where(accounts.c.id == bindparam("user_id"))
        statement = statement.values(last_seen=bindparam("seconds"), last_status=bindparam("status"))
        rows = [
            {"user_id": user_id, "seconds": seconds, "status": status.encode()[:1024].decode(errors="ignore")}
            for user_id, (seconds, status) in sorted(seen.items())  # in one order, so that workers cannot deadlock
        ]
        async with self._database.write() as connection:
            await connection.execute(statement, rows)

    async def set_photo(self, user_id: int, photo: str) -> None:
        """Remember the SHA-1 of an account's picture, '' for none (XEP-0153)."""
        async with self._database.write() as connection:
            await connection.execute(update(accounts).where(accounts.c.id == user_id).values(photo=photo or None))

    async def last(self, user_id: int) -> tuple[int, str] | None:
        """When an account was last seen, and its last status; None if never."""
        query = select(accounts.c.last_seen, accounts.c.last_status).where(accounts.c.id == user_id)
        async with self._database.read() as connection:
            row: Row[tuple[int, str]] | None = (await connection.execute(query)).first()
        return None if row is None or row[0] is None else (row[0], row[1] or "")


async def insert_accounts(connection: AsyncConnection, wanted: Mapping[str, Mapping[str, ScramKeys]]) -> list[str]:
    """Add accounts by prepared names and return the names that existed before; those are left as they are."""
    names = list(wanted)
    created = int(time.time())
    existing = set(await _ids(connection, names))
    new = [name for name in names if name not in existing]
    for start in range(0, len(new), _CHUNK):
        chunk = new[start : start + _CHUNK]
        await connection.execute(
            insert(accounts), [{"username": name, "enabled": True, "created": created} for name in chunk]
        )
        ids = await _ids(connection, chunk)
        rows = [_key_row(ids[name], digest, keys) for name in chunk for digest, keys in wanted[name].items()]
        await connection.execute(insert(credentials), rows)
    return [name for name in names if name in existing]


def account_columns() -> list[tuple[Table, str]]:
    """Every table with an account's data and its column of the account's id; the accounts themselves come last."""
    return [
        (table, column.name)
        for table in reversed(metadata.sorted_tables)
        for column in table.columns
        if column.info.get("account")
    ]


def _erase(connection: Connection, user_id: int) -> None:
    for table, column in account_columns():
        connection.execute(delete(table).where(table.c[column] == user_id))


def _key_row(user_id: int, digest: str, keys: ScramKeys) -> dict[str, object]:
    return {
        "user_id": user_id,
        "hash": digest,
        "salt": keys.salt,
        "iterations": keys.iterations,
        "stored_key": keys.stored_key,
        "server_key": keys.server_key,
    }


async def _ids(connection: AsyncConnection, names: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for start in range(0, len(names), _CHUNK):
        query = select(accounts.c.username, accounts.c.id)
        query = query.where(accounts.c.username.in_(names[start : start + _CHUNK]))
        found.update((row.username, row.id) for row in await connection.execute(query))
    return found


async def _id(connection: AsyncConnection, username: str) -> int:
    query = select(accounts.c.id).where(accounts.c.username == username).with_for_update()
    user_id = (await connection.execute(query)).scalar_one_or_none()
    if user_id is None:
        raise NoSuchAccount(f"There is no user {username}.")
    return user_id

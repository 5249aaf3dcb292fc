"""The message of the day and the welcome message (XEP-0133), and which account has had which."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, select

from nestbox.store.database import Database
from nestbox.store.schema import accounts, notices, notices_seen
from nestbox.store.upsert import upsert

__all__ = ["Notice", "Notices"]


@dataclass(slots=True)
class Notice:
    """A standing message; another ``id`` makes it another one, that everybody is to have again."""

    id: int
    text: str


class Notices:
    """Names are ``motd`` and ``welcome``. Every method may raise StoreError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> dict[str, Notice]:
        """What is set, by name."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(notices))
            return {row.name: Notice(row.id, row.text.decode()) for row in rows}

    async def put(self, name: str, notice: Notice) -> None:
        """Set a notice."""
        row = {"name": name, "id": notice.id, "text": notice.text.encode()}
        async with self._database.write() as connection:
            await connection.execute(upsert(self._database.kind, notices, row))

    async def remove(self, name: str) -> None:
        """Unset a notice."""
        async with self._database.write() as connection:
            await connection.execute(delete(notices).where(notices.c.name == name))

    async def claim(self, user_id: int, name: str, notice_id: int) -> bool:
        """Whether the account is to have this notice now: true once, whoever asks."""
        seen = select(notices_seen.c.id).where(notices_seen.c.user_id == user_id, notices_seen.c.name == name)
        async with self._database.read() as connection:
            if (await connection.execute(seen)).scalar_one_or_none() == notice_id:
                return False
        async with self._database.write() as connection:
            # The account's row is the lock, and deletion takes it, too.
            account = select(accounts.c.id).where(accounts.c.id == user_id).with_for_update()
            if (await connection.execute(account)).scalar_one_or_none() is None:
                return False
            if (await connection.execute(seen)).scalar_one_or_none() == notice_id:
                return False
            row = {"user_id": user_id, "name": name, "id": notice_id}
            await connection.execute(upsert(self._database.kind, notices_seen, row))
        return True

"""Uploaded files (XEP-0363): whose they are, what they are called, and how much room each account has taken.

The bytes are in a folder beside the database, see `nestbox.store.upload_files`. All times are Unix times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import case, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from nestbox.store.database import Database
from nestbox.store.errors import NoSuchAccount, StoreFull
from nestbox.store.schema import accounts, uploads

__all__ = ["DAY", "Quota", "Upload", "UploadRefused", "Uploads"]

DAY = 24 * 3600


@dataclass(slots=True)
class Upload:
    """A slot, and from ``stored`` on its file. ``size`` is in bytes; ``content_type`` is '' where nobody said it."""

    token: str
    user_id: int
    name: str
    size: int
    content_type: str
    created: int
    stored: int | None = None


@dataclass(slots=True)
class Quota:
    """What one account may have: bytes in all, bytes within a day, files; files are kept ``days``, 0 for ever.

    A slot that nobody used counts for ``slot_seconds``.
    """

    total_bytes: int
    daily_bytes: int
    files: int
    days: int
    slot_seconds: int


class UploadRefused(StoreFull):
    """The quota is used up; ``retry`` is when there will be room again, None when that cannot be known."""

    def __init__(self, message: str, retry: int | None, *, limit: str) -> None:
        super().__init__(message, limit)
        self.retry = retry


class Uploads:
    """Every method may raise StoreError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reserve(self, upload: Upload, quota: Quota) -> None:
        """Enter a slot, whoever else asks for one of this account. Raises UploadRefused, NoSuchAccount."""
        now = upload.created
        async with self._database.write() as connection:
            # Slots of one account wait for each other here, so that they cannot share the same room.
            query = select(accounts.c.id).where(accounts.c.id == upload.user_id).with_for_update()
            if (await connection.execute(query)).first() is None:
                raise NoSuchAccount("The account was deleted.")
            mine = uploads.c.user_id == upload.user_id
            unused = uploads.c.stored.is_(None) & (uploads.c.created <= now - quota.slot_seconds)
            await connection.execute(delete(uploads).where(mine, unused))
            today = case((uploads.c.created > now - DAY, uploads.c.size), else_=0)
            sums = select(func.coalesce(func.sum(uploads.c.size), 0), func.coalesce(func.sum(today), 0), func.count())
            total, daily, files = (await connection.execute(sums.where(mine))).one()
            if int(daily) + upload.size > quota.daily_bytes:
                excess = int(daily) + upload.size - quota.daily_bytes
                raise UploadRefused(
                    f"You may upload {quota.daily_bytes} bytes within a day.",
                    await _freed(connection, upload, excess, now - DAY, DAY, quota.daily_bytes),
                    limit="upload_daily_bytes",
                )
            kept = quota.days * DAY
            if int(total) + upload.size > quota.total_bytes:
                excess = int(total) + upload.size - quota.total_bytes
                raise UploadRefused(
                    f"You may keep {quota.total_bytes} bytes of files here.",
                    await _freed(connection, upload, excess, 0, kept, quota.total_bytes) if kept else None,
                    limit="upload_quota_bytes",
                )
            if files >= quota.files:
                text, retry = f"You may keep {quota.files} files here.", now + DAY if kept else None
                raise UploadRefused(text, retry, limit="uploaded_files")
            row = {name: getattr(upload, name) for name in uploads.c.keys()}  # noqa: SIM118
            await connection.execute(insert(uploads).values(row))

    async def get(self, token: str) -> Upload | None:
        """A slot by its token."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(uploads).where(uploads.c.token == token))).first()
        return None if row is None else Upload(**row._mapping)

    async def complete(self, token: str, now: int) -> bool:
        """The file is there. False when the slot is gone or was used by another."""
        statement = update(uploads).where(uploads.c.token == token, uploads.c.stored.is_(None)).values(stored=now)
        async with self._database.write() as connection:
            return (await connection.execute(statement)).rowcount > 0

    async def expired(self, stored_before: int, unused_before: int, limit: int) -> list[Upload]:
        """Files older than the first time, and slots older than the second that nobody used; at most ``limit``."""
        old = or_(uploads.c.stored < stored_before, uploads.c.stored.is_(None) & (uploads.c.created < unused_before))
        async with self._database.read() as connection:
            rows = await connection.execute(select(uploads).where(old).order_by(uploads.c.token).limit(limit))
            return [Upload(**row._mapping) for row in rows]

    async def forget(self, tokens: list[str]) -> None:
        """Take slots out."""
        async with self._database.write() as connection:
            await connection.execute(delete(uploads).where(uploads.c.token.in_(tokens)))

    async def tokens(self, user_id: int) -> set[str]:
        """Those of an account."""
        async with self._database.read() as connection:
            return set(await connection.scalars(select(uploads.c.token).where(uploads.c.user_id == user_id)))

    async def usage(self) -> tuple[int, int]:
        """How many files there are, and their bytes."""
        query = select(func.count(), func.coalesce(func.sum(uploads.c.size), 0)).where(uploads.c.stored.is_not(None))
        async with self._database.read() as connection:
            files, size = (await connection.execute(query)).one()
        return files, int(size)


async def _freed(
    connection: AsyncConnection, upload: Upload, excess: int, since: int, lasting: int, limit: int
) -> int | None:
    """When so many bytes made since a time will be free, if each goes ``lasting`` seconds after it was made."""
    if upload.size > limit:
        return None  # there will never be room
    query = select(uploads.c.size, uploads.c.created).where(uploads.c.user_id == upload.user_id)
    for size, created in await connection.execute(query.where(uploads.c.created > since).order_by(uploads.c.created)):
        excess -= size
        if excess <= 0:
            return created + lasting
    return None

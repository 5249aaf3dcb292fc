"""Accounts, rosters, archive and the rest, on SQLite or MariaDB behind the same functions."""

from __future__ import annotations

from sqlalchemy import Connection, inspect

from nestbox.store import migrations
from nestbox.store.accounts import Account, Accounts
from nestbox.store.archive import Archive, ArchiveRow, Page, Prefs
from nestbox.store.blocking import Blocking
from nestbox.store.committer import Committer
from nestbox.store.database import Database
from nestbox.store.devices import Device, Devices
from nestbox.store.errors import AccountExists, NoSuchAccount, StoreBusy, StoreError
from nestbox.store.invites import Invites
from nestbox.store.notices import Notices
from nestbox.store.offline import Offline
from nestbox.store.passwords import PasswordError, ScramKeys
from nestbox.store.private import Private
from nestbox.store.profiles import Profiles
from nestbox.store.pubsub import Pubsub
from nestbox.store.pubsub_items import PubsubItems
from nestbox.store.pubsub_people import PubsubPeople
from nestbox.store.push import Push, Registration
from nestbox.store.reader import MariaReader, SqliteReader
from nestbox.store.replica import Replica
from nestbox.store.rooms import Affiliate, RoomRow, Rooms
from nestbox.store.roster import Roster, RosterItem
from nestbox.store.schema import REVISION
from nestbox.store.streams import Streams
from nestbox.store.tokens import Tokens
from nestbox.store.uploads import Uploads
from nestbox.store.vcards import Vcards
from nestbox.store.writers import MariaWriter, SqliteWriter

__all__ = [
    "Account",
    "AccountExists",
    "Affiliate",
    "ArchiveRow",
    "Device",
    "NoSuchAccount",
    "Page",
    "PasswordError",
    "Prefs",
    "Registration",
    "RoomRow",
    "RosterItem",
    "ScramKeys",
    "Store",
    "StoreBusy",
    "StoreError",
    "open_store",
]


class Store:
    """One per process, on its event loop; made by `open_store`."""

    def __init__(self, database: Database, commit_window: float, replica_url: str | None) -> None:
        self.database = database
        self.reader = SqliteReader(database.url) if database.kind == "sqlite" else MariaReader(database.url)
        self.accounts = Accounts(database)
        self.profiles = Profiles(self.reader)
        self.roster = Roster(database, self.reader)
        self.replica = Replica(database, replica_url)
        self.archive = Archive(database, self.replica)
        self.offline = Offline(database)
        self.vcards = Vcards(database)
        self.private = Private(database)
        self.blocking = Blocking(database)
        self.push = Push(database)
        self.notices = Notices(database)
        self.rooms = Rooms(database)
        self.pubsub = Pubsub(database, self.reader)
        self.pubsub_items = PubsubItems(database, self.reader)
        self.pubsub_people = PubsubPeople(database, self.reader)
        self.uploads = Uploads(database)
        self.streams = Streams(database)
        self.tokens = Tokens(database, self.reader)
        self.devices = Devices(database)
        self.invites = Invites(database)
        writer = SqliteWriter(database.url) if database.kind == "sqlite" else MariaWriter(database.url)
        self.committer = Committer(writer, commit_window)

    async def revision(self) -> str | None:
        """The schema's revision; None when the database is empty."""
        async with self.database.read() as connection:
            return await connection.run_sync(migrations.current)

    async def check_schema(self) -> None:
        """Raise StoreError, with the cure, unless this release runs with the schema (`migrations.serves`)."""
        revision = await self.revision()
        if not migrations.serves(revision, REVISION):
            _refuse_newer(revision)
            have = f"at revision {revision}" if revision else "empty"
            raise StoreError(f"The database is {have}, this release needs {REVISION}: run nestboxctl migrate.")

    async def migrate(self) -> None:
        """Bring the schema to this release's revision and make the archive's partitions. Raises StoreError."""
        async with self.database.write() as connection:
            await connection.run_sync(_upgrade)
        await self.archive.maintain()

    async def ping(self) -> None:
        """Raise StoreError unless the database answers."""
        await self.database.ping()

    async def close(self) -> None:
        """Write what waits and end all connections."""
        await self.committer.close()
        await self.reader.close()
        await self.replica.close()
        await self.database.close()


def _upgrade(connection: Connection) -> None:
    revision = migrations.current(connection)
    if revision is None and inspect(connection).get_table_names():
        raise StoreError("The database has tables that are not Nestbox's: give Nestbox a database of its own.")
    _refuse_newer(revision)
    if not migrations.serves(revision, REVISION):
        migrations.upgrade(connection)


def _refuse_newer(revision: str | None) -> None:
    if revision is not None and revision > REVISION and not migrations.serves(revision, REVISION):
        raise StoreError(
            f"The database is at revision {revision}, with which this release ({REVISION}) cannot run: install the "
            "newer release again, or restore the backup that was made before it was installed."
        )


async def open_store(url: str, commit_window: float = 0.01, replica_url: str | None = None) -> Store:
    """Open ``sqlite:////path`` or ``mysql://user@localhost/name?unix_socket=/path``; the window is in seconds.

    The archive is read from a replica where there is one. Nothing is connected yet. Raises StoreError for another URL.
    """
    return Store(Database(url), commit_window, replica_url)

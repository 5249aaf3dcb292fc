"""nestboxctl config check, migrate and maintenance."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from nestbox import config as configuration
from nestbox.config import Config
from nestbox.ctl.context import opened
from nestbox.store.database import Database
from nestbox.store.upload_files import UploadFiles
from nestbox.store.upload_files import maintain as maintain_files

__all__ = ["add_parsers", "check"]

KEPT_SECONDS = 30 * 24 * 3600  # for so long the page of an invitation says that it has ended


def add_parsers(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], add: Callable[..., argparse.ArgumentParser]
) -> None:
    """Declare the commands."""
    parser = add(
        commands,
        "migrate",
        _migrate,
        "Bring the database to what this release needs. Run it before the workers start.",
        "nestboxctl migrate",
    )
    parser.add_argument("--check", action="store_true", help="only say whether this release runs with it as it is")
    about = "Prepare the archive's coming months and remove old messages and files. A timer runs it every day."
    add(commands, "maintenance", _maintenance, about, "nestboxctl maintenance")


def check(args: argparse.Namespace) -> None:
    """Read a configuration file as a worker would. Raises ConfigError, StoreError."""
    path = args.file or args.config
    Database(configuration.load(path).database.url)
    print(f"{path} is right.")


async def _migrate(args: argparse.Namespace, config: Config) -> None:
    async with opened(config, any_schema=True) as store:
        before = await store.revision()
        if args.check:
            await store.check_schema()
        else:
            await store.migrate()
        after = await store.revision()
    if before == after:
        print(f"The database is at revision {after} already.")
    else:
        print(f"The database was migrated to revision {after}.")


async def _maintenance(args: argparse.Namespace, config: Config) -> None:
    async with opened(config) as store:
        done = await store.archive.maintain(retention_days=config.archive.days)
        await store.invites.forget(int(time.time()) - KEPT_SECONDS)
        files = await maintain_files(store, UploadFiles(config.state_dir), config.uploads.days)
        await store.streams.forget_old()
    for name in done.created:
        print(f"Made the archive's partition {name}.")
    for name in done.dropped:
        print(f"Dropped the archive's partition {name}.")
    if done.deleted:
        print(f"Removed {done.deleted} old messages.")
    if files:
        print(f"Removed {files} old files.")

"""What the commands of nestboxctl share: the configuration, the store, the way to the workers, and who they run as."""

from __future__ import annotations

import contextlib
import os
import pwd
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nestbox.bus import Bus, BusError, open_bus
from nestbox.config import Config
from nestbox.core.jid import prepare_localpart
from nestbox.core.registry import Account, encode
from nestbox.ctl.health import health
from nestbox.store import Store, open_store

__all__ = ["CommandError", "become_server", "bus", "opened", "tell_workers", "username"]

_USER = "nestbox"
_GUEST = 0  # on the bus: speaks, and is no worker


class CommandError(Exception):
    """The command failed; the message is one sentence for the operator."""


def become_server(config: Config) -> None:
    """Go on as the server's own user when root runs this for a server that has one.

    MariaDB knows that user by its socket, and what SQLite writes must belong to it.
    """
    with contextlib.suppress(KeyError, FileNotFoundError):
        user = pwd.getpwnam(_USER)
        if os.geteuid() == 0 and os.stat(config.state_dir).st_uid == user.pw_uid:
            os.initgroups(user.pw_name, user.pw_gid)
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)


@asynccontextmanager
async def opened(config: Config, *, any_schema: bool = False) -> AsyncIterator[Store]:
    """The store, with this release's schema unless ``any_schema``. Raises StoreError."""
    store = await open_store(config.database.url)
    try:
        if not any_schema:
            await store.check_schema()
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def bus(config: Config) -> AsyncIterator[Bus]:
    """The workers' bus, as a guest. Raises BusError, or CommandError when the server has none."""
    if config.bus.url == "local":
        raise CommandError("This server is one worker without a bus, so its sessions cannot be reached from outside.")
    guest = open_bus(config.bus.address(), _GUEST)
    try:
        await guest.start(lambda payload: None)
        yield guest
    finally:
        await guest.close()


async def tell_workers(config: Config, *names: str) -> None:
    """Make the workers read accounts again and end the sessions of those disabled or gone. Raises CommandError."""
    if config.bus.url == "local":
        if await health(config, 1) == "ok":
            print("The server that runs now may notice this only when it is started again.", file=sys.stderr)
        return
    try:
        async with bus(config) as guest:
            for name in names:
                guest.broadcast(encode(Account(name)))
    except (BusError, OSError) as error:
        raise CommandError(f"The change is stored, but the workers could not be told: {error}.") from error


def username(config: Config, text: str) -> str:
    """The prepared localpart of ``NAME`` or ``NAME@DOMAIN``. Raises CommandError."""
    name = text.removesuffix(f"@{config.domain}")
    try:
        return prepare_localpart(name)
    except ValueError:
        raise CommandError(
            f"{text!a} cannot be a username: it is empty, too long, or has characters that XMPP forbids."
        ) from None

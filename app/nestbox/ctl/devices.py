"""nestboxctl device: where an account is used, and the log-out of one place."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from datetime import UTC, datetime

from nestbox.bus import BusError
from nestbox.config import Config
from nestbox.core.devices import belongs, farewell
from nestbox.core.registry import encode
from nestbox.ctl.context import CommandError, bus, opened, username
from nestbox.ctl.sessions import entries
from nestbox.store import Device, Store

__all__ = ["add_parser"]

_SHOWN = 12  # characters of a device's id


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], add: Callable[..., argparse.ArgumentParser]
) -> None:
    """Declare the commands."""
    about = "List the devices of a user, the one seen last first: those whose app says which one it is."
    parser = add(commands, "list", _list, about, "nestboxctl device list alice")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--json", action="store_true", help="as a JSON list")
    about = "Log a device out: its token ends, and its session. An app that kept the password can log in again."
    parser = add(commands, "logout", _logout, about, "nestboxctl device logout alice 3f2a9c0d41be")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("device", metavar="ID", help="as 'device list' shows it")


async def _list(args: argparse.Namespace, config: Config) -> None:
    async with opened(config) as store:
        _, devices = await _of(store, username(config, args.name))
    if args.json:
        found = [
            {"id": one.agent, "name": one.name, "seen": one.seen, "token_expires": one.expires or None}
            for one in devices
        ]
        print(json.dumps(found, ensure_ascii=False))
        return
    for one in devices:
        token = f"token until {_day(one.expires)}" if one.expires else "no token"
        print(f"{one.agent[:_SHOWN]}  {_day(one.seen)}  {token:<22}  {one.name}".rstrip())


async def _logout(args: argparse.Namespace, config: Config) -> None:
    name = username(config, args.name)
    async with opened(config) as store:
        user_id, devices = await _of(store, name)
        found = [one for one in devices if one.agent.startswith(args.device)]
        if len(found) != 1 or len(args.device) < 4:
            raise CommandError(f"{name} has no device {args.device!a}, or more than one: see 'device list {name}'.")
        device = found[0]
        await store.devices.remove(user_id, device.agent)
    if config.bus.url != "local":
        try:
            async with bus(config) as guest:
                for entry in await entries(guest):
                    if entry.bare == f"{name}@{config.domain}" and belongs(entry, device):
                        guest.broadcast(encode(farewell(entry)))
        except (BusError, OSError) as error:
            raise CommandError(f"Its token is gone, but its session could not be ended: {error}.") from error
    print(f"Logged {device.name or device.agent[:_SHOWN]} of {name}@{config.domain} out.")


async def _of(store: Store, name: str) -> tuple[int, list[Device]]:
    account = await store.accounts.get(name)
    if account is None:
        raise CommandError(f"There is no user {name}.")
    return account.id, await store.devices.of(account.id)


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")

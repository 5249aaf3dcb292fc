"""nestboxctl session: who is connected."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from nestbox.bus import Bus
from nestbox.config import Config
from nestbox.core.jid import parse_jid
from nestbox.core.registry import KEY, Entry, Kick, encode
from nestbox.ctl.context import CommandError, bus

__all__ = ["add_parser", "entries"]

_KICK_SECONDS = 5.0
_decode = msgspec.msgpack.Decoder(Entry).decode


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], add: Callable[..., argparse.ArgumentParser]
) -> None:
    """Declare the commands."""
    parser = add(commands, "list", _list, "List the sessions on all workers.", "nestboxctl session list --json")
    parser.add_argument("--json", action="store_true", help="as a JSON list")
    about = "End one session, or all of a user; the apps may connect again (see 'user disable')."
    parser = add(commands, "kick", _kick, about, "nestboxctl session kick alice@example.org")
    parser.add_argument("jid", metavar="JID", help="NAME@DOMAIN, or NAME@DOMAIN/RESOURCE for one session")


async def entries(guest: Bus) -> list[Entry]:
    """Every session, in the order of addresses. Raises BusError."""
    return sorted(map(_decode, (await guest.hgetall(KEY)).values()), key=lambda entry: entry.jid)


async def _list(args: argparse.Namespace, config: Config) -> None:
    async with bus(config) as guest:
        found = await entries(guest)
    if args.json:
        fields = ("jid", "worker", "priority", "since", "address", "transport")
        print(json.dumps([{name: getattr(entry, name) for name in fields} for entry in found], ensure_ascii=False))
        return
    width = max((len(entry.jid) for entry in found), default=0)
    for entry in found:
        since = datetime.fromtimestamp(entry.since, UTC).strftime("%Y-%m-%d %H:%M UTC")
        print(f"{entry.jid:<{width}}  worker {entry.worker}  {since}  {entry.transport} {entry.address}".rstrip())


async def _kick(args: argparse.Namespace, config: Config) -> None:
    try:
        jid = parse_jid(args.jid)
    except ValueError:
        raise CommandError(f"{args.jid!a} is no address.") from None

    def matching(found: list[Entry]) -> set[tuple[str, int]]:
        return {
            (entry.jid, entry.uid)
            for entry in found
            if entry.bare == jid.bare and (not jid.resource or entry.resource == jid.resource)
        }

    async with bus(config) as guest:
        found = await entries(guest)
        wanted = matching(found)
        if not wanted:
            raise CommandError(f"There is no session of {jid}.")
        for entry in found:
            if (entry.jid, entry.uid) in wanted:
                text = "An administrator ended this session."
                guest.broadcast(encode(Kick(entry.bare, entry.resource, entry.uid, "policy-violation", text)))
        end = asyncio.get_running_loop().time() + _KICK_SECONDS
        while left := wanted & matching(await entries(guest)):
            if asyncio.get_running_loop().time() > end:
                raise CommandError(f"{len(left)} of {len(wanted)} sessions did not end: their worker may be down.")
            await asyncio.sleep(0.05)
    print(f"Ended {len(wanted)} session{'s' if len(wanted) > 1 else ''} of {jid}.")

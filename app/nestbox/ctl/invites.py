"""nestboxctl invite: links by which people get an account."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

import segno

from nestbox.config import Config
from nestbox.core.invite_links import landing_url, xmpp_uri
from nestbox.ctl.context import CommandError, opened, username
from nestbox.store.invites import Invite, new_token

__all__ = ["add_parser"]


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], add: Callable[..., argparse.ArgumentParser]
) -> None:
    """Declare the commands."""
    about = "Make a link by which people get an account, and show it with its QR code."
    parser = add(commands, "create", _create, about, "nestboxctl invite create --uses 30 --days 14")
    parser.add_argument(
        "--uses", type=_number, default=1, metavar="N", help="how many accounts it is good for (%(default)s)"
    )
    parser.add_argument(
        "--days", type=_number, metavar="N", help="how long it is good, if not for registration.invite_days"
    )
    parser.add_argument(
        "--name", metavar="NAME", help="the name of the account, kept until then; else the person chooses"
    )
    parser.add_argument("--contact", metavar="USER", help="the user who becomes a contact of whoever comes")
    parser.add_argument("--reuse", action="store_true", help="show the newest open link of this kind, if there is one")
    _output(parser, "as a JSON object")
    parser = add(commands, "list", _list, "List the links that are open.", "nestboxctl invite list --json")
    _output(parser, "as a JSON list")
    parser = add(
        commands, "revoke", _revoke, "Take a link back.", "nestboxctl invite revoke https://example.org/invite/..."
    )
    parser.add_argument("token", metavar="LINK", help="the link, or its last part")


def _output(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--json", action="store_true", help=what)


def _number(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if not 1 <= number <= 10_000:
        raise argparse.ArgumentTypeError("choose a number from 1 to 10000")
    return number


async def _create(args: argparse.Namespace, config: Config) -> None:
    name = username(config, args.name) if args.name else ""
    if name and args.uses > 1:
        raise CommandError("A link for one name is good for one account.")
    now = int(time.time())
    expires = now + (args.days or config.registration.invite_days) * 24 * 3600
    async with opened(config) as store:
        inviter = await store.accounts.get(username(config, args.contact)) if args.contact else None
        if args.contact and inviter is None:
            raise CommandError(f"There is no user {args.contact}.")
        wanted = Invite(
            new_token(),
            inviter.id if inviter is not None else None,
            name,
            True,
            inviter is not None,
            args.uses,
            now,
            expires,
            inviter.username if inviter is not None else None,
        )
        found = [invite for invite in await store.invites.list(now) if _alike(invite, wanted)] if args.reuse else []
        invite = found[0] if found else wanted
        if not found:
            await store.invites.create(wanted)
    if args.json:
        print(json.dumps(_fields(config, invite), ensure_ascii=False))
        return
    link = landing_url(config, invite.token)
    print(f"Link:   {link}\nApps:   {xmpp_uri(config.domain, invite)}\nUntil:  {_day(invite.expires)}\n")
    segno.make(link, error="l", micro=False).terminal(out=sys.stdout, border=2, compact=True)


def _alike(invite: Invite, wanted: Invite) -> bool:
    fields = ("user_id", "username", "registers", "contact")
    return all(getattr(invite, field) == getattr(wanted, field) for field in fields)


async def _list(args: argparse.Namespace, config: Config) -> None:
    async with opened(config) as store:
        found = await store.invites.list(int(time.time()))
    if args.json:
        print(json.dumps([_fields(config, invite) for invite in found], ensure_ascii=False))
        return
    for invite in found:
        whose = f"  by {invite.inviter}" if invite.inviter else ""
        name = f"  for {invite.username}" if invite.username else ""
        what = "" if invite.registers else "  contact only"
        uses = f"{invite.uses_left} use{'s' if invite.uses_left > 1 else ''}"
        print(f"{landing_url(config, invite.token)}  {uses}  until {_day(invite.expires)}{whose}{name}{what}")


async def _revoke(args: argparse.Namespace, config: Config) -> None:
    token = args.token.rstrip("/").rpartition("/")[2]
    async with opened(config) as store:
        if not await store.invites.revoke(token):
            raise CommandError("There is no such link.")
    print("The link is good no more.")


def _fields(config: Config, invite: Invite) -> dict[str, object]:
    return {
        "link": landing_url(config, invite.token),
        "uri": xmpp_uri(config.domain, invite),
        "expires": invite.expires,
        "uses_left": invite.uses_left,
        "registers": invite.registers,
        "name": invite.username or None,
        "inviter": invite.inviter,
    }


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")

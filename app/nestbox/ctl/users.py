"""nestboxctl user: the accounts."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable

from nestbox.config import Config
from nestbox.core.passwords import check_choice
from nestbox.core.registry import Push
from nestbox.ctl.context import CommandError, opened, tell_workers, username
from nestbox.ctl.farewells import end_subscriptions, push
from nestbox.store import Account
from nestbox.store.passwords import generate_password
from nestbox.store.upload_files import UploadFiles

__all__ = ["add_parser"]


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], add: Callable[..., argparse.ArgumentParser]
) -> None:
    """Declare the commands."""
    for name, run, about, example in (
        (
            "add",
            _add,
            "Add a user. Without --password-stdin a random password is made and printed.",
            "nestboxctl user add alice",
        ),
        (
            "passwd",
            _passwd,
            "Set a user's password, or make a random one and print it.",
            "nestboxctl user passwd alice",
        ),
    ):
        parser = add(commands, name, run, about, example)
        parser.add_argument("name", metavar="NAME", help="the part of the address before the @")
        how = parser.add_mutually_exclusive_group()
        how.add_argument(
            "--password-stdin", action="store_true", help="read the password from the first line of standard input"
        )
        how.add_argument("--generate", action="store_true", help="make a random password and print it (the default)")
    for name, run, about in (
        ("disable", _disable, "End a user's sessions and let the user in no more; nothing is deleted."),
        ("enable", _enable, "Let a disabled user in again."),
    ):
        add(commands, name, run, about, f"nestboxctl user {name} alice").add_argument("name", metavar="NAME")
    parser = add(
        commands,
        "delete",
        _delete,
        "Erase users with roster, archive and all other data.",
        "nestboxctl user delete alice --yes",
    )
    parser.add_argument("names", metavar="NAME", nargs="+")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    about = "Change how a user is served. Messages are never kept for longer than archive.days of the configuration."
    parser = add(commands, "set", _set, about, "nestboxctl user set alice --archive-days 30")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "--archive-days", metavar="N", type=_days, required=True, help="days to keep messages; 0: as all others"
    )
    parser = add(commands, "list", _list, "List the users.", "nestboxctl user list --json")
    parser.add_argument("--json", action="store_true", help="as a JSON list")


async def _add(args: argparse.Namespace, config: Config) -> None:
    name = username(config, args.name)
    password = await _password(args, config)
    async with opened(config) as store:
        await store.accounts.create(name, password)
    await tell_workers(config, name)
    _report(args, f"Added {name}@{config.domain}.", password)


async def _passwd(args: argparse.Namespace, config: Config) -> None:
    name = username(config, args.name)
    password = await _password(args, config)
    async with opened(config) as store:
        await store.accounts.set_password(name, password)
    await tell_workers(config, name)
    _report(args, f"Changed the password of {name}@{config.domain}.", password)


async def _disable(args: argparse.Namespace, config: Config) -> None:
    await _enabled(args, config, False)


async def _enable(args: argparse.Namespace, config: Config) -> None:
    await _enabled(args, config, True)


async def _enabled(args: argparse.Namespace, config: Config, enabled: bool) -> None:
    name = username(config, args.name)
    async with opened(config) as store:
        await store.accounts.set_enabled(name, enabled)
    await tell_workers(config, name)
    print(f"{'Enabled' if enabled else 'Disabled'} {name}@{config.domain}.")


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise argparse.ArgumentTypeError("it is a number of days, from 0 to 99999")
    return int(text)


async def _set(args: argparse.Namespace, config: Config) -> None:
    name = username(config, args.name)
    if 0 < config.archive.days < args.archive_days:
        raise CommandError(f"No messages are kept for longer than {config.archive.days} days (archive.days).")
    async with opened(config) as store:
        await store.accounts.set_archive_days(name, args.archive_days or None)
    kept = f"{args.archive_days} days" if args.archive_days else "as long as everybody's"
    print(f"Messages of {name}@{config.domain} are kept {'for ' if args.archive_days else ''}{kept}.")


async def _delete(args: argparse.Namespace, config: Config) -> None:
    names = [username(config, name) for name in args.names]
    erased: list[str] = []
    news: list[Push] = []
    try:
        async with opened(config) as store:
            for name in names:
                account = await store.accounts.get(name)
                if account is None:
                    raise CommandError(f"There is no user {name}.")
                if not args.yes:
                    question = f"Erase {name}@{config.domain} with all messages? Type the name to confirm: "
                    await asyncio.to_thread(_confirm, question, name)
                contacts = await store.roster.items(account.id)
                await store.accounts.delete(name)
                erased.append(name)
                news += await end_subscriptions(store, config, f"{name}@{config.domain}", contacts)
                UploadFiles(config.state_dir).remove_account(account.id)
    finally:
        if erased:
            await tell_workers(config, *erased)
            await push(config, news)
    for name in erased:
        print(f"Erased {name}@{config.domain}.")


async def _list(args: argparse.Namespace, config: Config) -> None:
    users: list[Account] = []
    async with opened(config) as store:
        while page := await store.accounts.list(after=users[-1].username if users else "", limit=1000):
            users += page
    if args.json:
        fields = ("username", "enabled", "created")
        print(json.dumps([{field: getattr(user, field) for field in fields} for user in users], ensure_ascii=False))
        return
    for user in users:
        print(user.username if user.enabled else f"{user.username}  (disabled)")


async def _password(args: argparse.Namespace, config: Config) -> str:
    if not args.password_stdin:
        return generate_password()
    line = await asyncio.to_thread(sys.stdin.readline)
    password = line.rstrip("\r\n")
    check_choice(password, config)
    return password


def _report(args: argparse.Namespace, done: str, password: str) -> None:
    print(done)
    if not args.password_stdin:
        print(f"Password: {password}")


def _confirm(question: str, answer: str) -> None:
    if not sys.stdin.isatty():
        raise CommandError("Nobody is here to confirm: add --yes to erase the user with all data.")
    if input(question).strip() != answer:
        raise CommandError("Nothing was erased.")

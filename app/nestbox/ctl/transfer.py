"""nestboxctl user import and export: many accounts as CSV with passwords or keys, or as XML with all data."""

from __future__ import annotations

import argparse
import base64
import csv
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from nestbox.config import Config
from nestbox.core.passwords import check_choice
from nestbox.ctl import export_xml, import_xml
from nestbox.ctl.context import CommandError, opened, tell_workers, username
from nestbox.store import PasswordError, ScramKeys
from nestbox.store.passwords import ITERATIONS, check_password, derive_many

__all__ = ["add_parser"]

_PLAIN = ["username", "password"]
_KEYS = ["username", "enabled", *(f"SCRAM-{name}" for name in ITERATIONS)]
_SHOWN = 20  # bad lines or existing names in one report
_CHUNK = 200


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], add: Callable[..., argparse.ArgumentParser]
) -> None:
    """Declare the commands."""
    about = (
        "Add users from CSV lines of username,password; a first line that says so is skipped, and the output of "
        "'user export' is taken, too. All lines are checked first and nothing is imported if one is bad. Users that "
        "are there already are left as they are."
    )
    parser = add(commands, "import", _import, about, "nestboxctl user import users.csv")
    parser.add_argument("file", metavar="FILE", help="CSV in UTF-8; - is standard input")
    parser.add_argument(
        "--xep0227", action="store_true", help="the file is XML of XEP-0227, with all data of the users"
    )
    parser.add_argument(
        "--weak-passwords",
        action="store_true",
        help="take short and leaked ones, too, as people have them on a server that you leave; --xep0227 always does",
    )
    parser.set_defaults(prepare=_open_input)
    about = "Write all users with their SCRAM keys, as CSV for 'user import'. Keep the file secret."
    parser = add(commands, "export", _export, about, "nestboxctl user export users.csv")
    parser.add_argument("file", metavar="FILE", help="made with mode 0600; - is standard output")
    parser.add_argument("--xep0227", action="store_true", help="as XML of XEP-0227, with all data of the users")
    parser.add_argument("--user", metavar="NAME", action="append", help="only this user; may be given more than once")
    parser.set_defaults(prepare=_open_output)


@dataclass(slots=True)
class _User:
    name: str
    password: str = ""
    enabled: bool = True
    keys: dict[str, ScramKeys] = field(default_factory=dict)


async def _import(args: argparse.Namespace, config: Config) -> None:
    if args.xep0227:
        await _import_xml(args, config)
        return
    users = _read(args.stream.read(), config, args.weak_passwords)
    async with opened(config) as store:
        existing = await store.accounts.existing(user.name for user in users)
        there = set(existing)
        users = [user for user in users if user.name not in there]
        plain = [user for user in users if not user.keys]
        for start in range(0, len(plain), _CHUNK):
            chunk = plain[start : start + _CHUNK]
            for user, keys in zip(chunk, await derive_many(user.password for user in chunk), strict=True):
                user.keys = keys
            if sys.stderr.isatty():
                print(f"\r{start + len(chunk)} of {len(plain)} passwords", end="", file=sys.stderr, flush=True)
        if sys.stderr.isatty() and plain:
            print(file=sys.stderr)
        existing += await store.accounts.create_many((user.name, user.keys) for user in users)
        there = set(existing)
        new = [user for user in users if user.name not in there]
        for user in new:
            if not user.enabled:
                await store.accounts.set_enabled(user.name, False)
    await tell_workers(config, *(user.name for user in new))
    print(f"Imported {len(new)} users.")
    if existing:
        print(f"{len(existing)} were there already and are left as they are: {_some(existing)}.")


async def _import_xml(args: argparse.Namespace, config: Config) -> None:
    with tempfile.TemporaryFile() as spool:
        stream = args.stream
        if not stream.seekable():  # it is read twice
            shutil.copyfileobj(stream, spool)
            spool.seek(0)
            stream = spool
        found = import_xml.read_accounts(stream, config)
        stream.seek(0)
        async with opened(config) as store:
            importer = import_xml.Importer(store, config)
            new = await importer.accounts(found)
            await importer.data(stream, new)
    await tell_workers(config, *new)
    print(f"Imported {len(new)} users.")
    if existing := [name for name in found if name not in set(new)]:
        print(f"{len(existing)} were there already and are left as they are: {_some(existing)}.")
    if importer.skipped:
        counted = ", ".join(f"{count} x {name}" for name, count in sorted(importer.skipped.items()))
        print(f"What this server cannot keep was left out: {counted}.")


async def _export(args: argparse.Namespace, config: Config) -> None:
    async with opened(config) as store:
        accounts = await store.accounts.export()
        if args.user:
            wanted = {username(config, name) for name in args.user}
            accounts = [account for account in accounts if account.username in wanted]
            if missing := wanted.difference(account.username for account in accounts):
                raise CommandError(f"There is no user {min(missing)}.")
        if args.stream is not sys.stdout:
            args.stream.truncate(0)
        if args.xep0227:
            await export_xml.write(args.stream, store, config, accounts)
            args.stream.flush()
            print(f"Exported {len(accounts)} users.", file=sys.stderr)
            return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_KEYS)
    for account in accounts:
        keys = [_encode(name, account.keys[name]) if name in account.keys else "" for name in ITERATIONS]
        writer.writerow([account.username, "yes" if account.enabled else "no", *keys])
    args.stream.write(text.getvalue())
    args.stream.flush()
    print(f"Exported {len(accounts)} users.", file=sys.stderr)


def _read(data: bytes, config: Config, weak: bool) -> list[_User]:
    """Parse and check every line. Raises CommandError, after a line on stderr for each bad one."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CommandError(f"The file is not UTF-8 at line {data[: error.start].count(10) + 1}.") from None
    bad: list[str] = []
    users: dict[str, _User] = {}
    parse = _plain
    for number, row in _rows(text):
        if number == 1 and row == _KEYS:
            parse = _with_keys
            continue
        if number == 1 and [cell.strip().lower() for cell in row] == _PLAIN:
            continue
        try:
            user = parse(row, config)
            if not user.keys:
                check_password(user.password) if weak else check_choice(user.password, config)
            if user.name in users:
                raise CommandError(f"{user.name} is there twice.")
            users[user.name] = user
        except (CommandError, PasswordError) as error:
            bad.append(f"line {number}: {str(error).rstrip('.')}.")
    if bad:
        print("\n".join(bad[:_SHOWN]), file=sys.stderr)
        more = f", {len(bad) - _SHOWN} more than shown" if len(bad) > _SHOWN else ""
        raise CommandError(f"Nothing was imported: {len(bad)} lines are bad{more}.")
    if not users:
        raise CommandError("The file has no users.")
    return list(users.values())


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise CommandError(f"Nothing was imported: line {reader.line_num} is no CSV: {error}.") from None


def _plain(row: list[str], config: Config) -> _User:
    if len(row) != 2:
        raise CommandError(f"it has {len(row)} fields, not username,password.")
    return _User(username(config, row[0].strip()), row[1])


def _with_keys(row: list[str], config: Config) -> _User:
    if len(row) != len(_KEYS) or row[1] not in ("yes", "no"):
        raise CommandError("it is not as 'user export' writes it.")
    user = _User(username(config, row[0]), enabled=row[1] == "yes")
    user.keys = {name: _decode(name, cell) for name, cell in zip(ITERATIONS, row[2:], strict=True) if cell}
    if not user.keys:
        raise CommandError("it has no keys.")
    return user


def _encode(name: str, keys: ScramKeys) -> str:
    """As in RFC 5803: SCRAM-SHA-1$10000:salt$StoredKey:ServerKey."""
    salt, stored, server = (base64.b64encode(value).decode() for value in (keys.salt, keys.stored_key, keys.server_key))
    return f"SCRAM-{name}${keys.iterations}:{salt}${stored}:{server}"


def _decode(name: str, text: str) -> ScramKeys:
    try:
        scheme, head, tail = text.split("$")
        iterations, salt = head.split(":")
        values = [base64.b64decode(value, validate=True) for value in (salt, *tail.split(":"))]
        keys = ScramKeys(values[0], int(iterations), *values[1:])
        size = {"SHA-1": 20, "SHA-256": 32, "SHA-512": 64}[name]
        if scheme != f"SCRAM-{name}" or {len(keys.stored_key), len(keys.server_key)} != {size}:
            raise ValueError
        if not 4096 <= keys.iterations <= 10_000_000 or not 12 <= len(keys.salt) <= 64:
            raise ValueError
    except (ValueError, TypeError):
        raise CommandError(f"its SCRAM-{name} key is damaged.") from None
    return keys


def _open_input(args: argparse.Namespace) -> None:
    args.stream = sys.stdin.buffer if args.file == "-" else _open(args.file, "read", "rb")


def _open_output(args: argparse.Namespace) -> None:
    args.stream = sys.stdout if args.file == "-" else _open(args.file, "written", "w", encoding="utf-8", opener=_secret)


def _open(path: str, done: str, mode: str, **options: Any) -> IO[Any]:
    try:
        return open(path, mode, **options)
    except OSError as error:
        raise CommandError(f"{path} cannot be {done}: {error.strerror}.") from None


def _secret(path: str, flags: int) -> int:
    # What the file held before stays until the new content is there.
    descriptor = os.open(path, flags & ~os.O_TRUNC, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")

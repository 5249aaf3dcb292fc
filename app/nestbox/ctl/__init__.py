"""nestboxctl, the operator's command."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Coroutine

from nestbox import __version__
from nestbox import config as configuration
from nestbox.bus import BusError
from nestbox.config import ConfigError
from nestbox.ctl import describe, devices, invites, sessions, status, transfer, upkeep, users
from nestbox.ctl.context import CommandError, become_server
from nestbox.store import PasswordError, StoreError

__all__ = ["main"]

Run = Callable[..., "Coroutine[object, object, int | None] | int | None"]


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit status is 0 when it did what it says, 1 when it failed, 2 when it was called wrongly."""
    args = _parser().parse_args(arguments)
    os.umask(0o077)  # what is made here, a database of SQLite or an export, is for nobody else
    try:
        if not asyncio.iscoroutinefunction(args.run):  # it needs no server
            return args.run(args) or 0
        config = configuration.load(args.config)
        if hasattr(args, "prepare"):
            args.prepare(args)  # opens files as the one who called
        become_server(config)
        return asyncio.run(args.run(args, config)) or 0
    except (ConfigError, CommandError, StoreError) as error:
        return _fail(str(error))
    except PasswordError as error:
        return _fail(f"{str(error).capitalize()}.")
    except BusError as error:
        return _fail(f"The bus fails: {str(error).rstrip('.')}.")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read it has seen enough
        return 0
    except (KeyboardInterrupt, EOFError):
        return _fail("Interrupted.")
    except Exception as error:
        if os.environ.get("NESTBOX_DEBUG"):
            raise
        return _fail(f"This is a fault of nestboxctl, NESTBOX_DEBUG=1 shows where: {type(error).__name__}: {error}.")


def _fail(sentence: str) -> int:
    print(f"nestboxctl: {' '.join(sentence.split())}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nestboxctl", description="Look after a Nestbox server.", epilog="Example: nestboxctl user add alice"
    )
    parser.add_argument("--version", action="version", version=f"nestboxctl {__version__}")
    default = os.environ.get("NESTBOX_CONFIG") or str(configuration.DEFAULT_PATH)
    parser.add_argument("--config", metavar="FILE", default=default, help="the server's configuration (%(default)s)")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    user = _group(commands, "user", "Add, change, list and remove users.", "nestboxctl user add alice")
    users.add_parser(user, _add)
    transfer.add_parser(user, _add)
    invite = _group(commands, "invite", "Make, list and take back links to accounts.", "nestboxctl invite create")
    invites.add_parser(invite, _add)
    session = _group(commands, "session", "See and end sessions.", "nestboxctl session list")
    sessions.add_parser(session, _add)
    device = _group(commands, "device", "See a user's devices and log one out.", "nestboxctl device list alice")
    devices.add_parser(device, _add)
    status.add_parser(commands, _add)
    config = _group(commands, "config", "Check the configuration.", "nestboxctl config check")
    check = _add(config, "check", upkeep.check, "Check a configuration file.", "nestboxctl config check new.yml")
    check.add_argument("file", metavar="FILE", nargs="?", help="the file to check, if not the one of --config")
    upkeep.add_parsers(commands, _add)
    describe.add_parsers(commands, _add)
    return parser


def _group(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, about: str, example: str
) -> argparse._SubParsersAction[argparse.ArgumentParser]:
    parser = commands.add_parser(name, help=about, description=about, epilog=f"Example: {example}")
    return parser.add_subparsers(metavar="COMMAND", required=True)


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, run: Run, about: str, example: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=about.split(". ")[0].rstrip("."), description=about, epilog=f"Example: {example}"
    )
    parser.set_defaults(run=run)
    return parser

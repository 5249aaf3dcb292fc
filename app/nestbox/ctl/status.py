"""nestboxctl status: whether all is well, at a glance or for a program."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from nestbox import __version__
from nestbox.bus import BusError
from nestbox.config import Config
from nestbox.ctl.context import CommandError, bus, opened
from nestbox.ctl.health import health
from nestbox.ctl.sessions import entries
from nestbox.store import StoreError

__all__ = ["add_parser"]

_SECONDS = 5.0


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], add: Callable[..., argparse.ArgumentParser]
) -> None:
    """Declare the command."""
    about = "Show the state of database, bus and workers; the exit status is 0 only when all is well."
    parser = add(commands, "status", _status, about, "nestboxctl status --json")
    parser.add_argument("--json", action="store_true", help="as a JSON object")


async def _status(args: argparse.Namespace, config: Config) -> int:
    problems: list[str] = []
    state: dict[str, Any] = {"version": __version__, "domain": config.domain, "users": None}
    state["database"] = await _part(problems, _database(config, problems))
    state["users"] = state["database"].pop("users", None)
    found: dict[str, Any] = {}
    if config.bus.url != "local":
        found = await _part(problems, _bus(config))
    state["bus"] = {"ok": config.bus.url == "local" or found["ok"], "url": config.bus.url}
    sessions, alive = found.get("sessions"), found.get("alive")
    state["sessions"] = None if sessions is None else sum(sessions.values())
    state["workers"] = []
    for worker in range(1, config.workers + 1):
        says = await health(config, worker)
        ok = says == "ok" and (alive is None or worker in alive)
        count = None if sessions is None else sessions[worker]
        state["workers"].append({"worker": worker, "ok": ok, "health": says, "sessions": count})
        if says != "ok":
            problems.append(f"Worker {worker} is not well: {says}.")
        elif not ok:
            problems.append(f"Worker {worker} is not on the bus.")
    state["problems"] = problems
    state["ok"] = not problems
    print(json.dumps(state, ensure_ascii=False) if args.json else _table(state))
    return 0 if state["ok"] else 1


async def _part(problems: list[str], work: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    try:
        return {"ok": True, **await asyncio.wait_for(work, 2 * _SECONDS)}
    except (StoreError, BusError, CommandError) as error:
        problems.append(f"The bus fails: {error}." if isinstance(error, BusError) else str(error))
    except TimeoutError:
        problems.append("The database or the bus took too long to answer.")
    return {"ok": False}


async def _database(config: Config, problems: list[str]) -> dict[str, Any]:
    async with opened(config, any_schema=True) as store:
        state: dict[str, Any] = {"kind": store.database.kind, "revision": await store.revision()}
        await store.check_schema()
        state["users"] = await store.accounts.count()
        state["archive_rows"], oldest = await store.archive.totals()
        state["archive_oldest"] = None if oldest is None else datetime.fromtimestamp(oldest / 1000, UTC).isoformat()
        return state


async def _bus(config: Config) -> dict[str, Any]:
    async with bus(config) as guest:
        sessions = Counter(entry.worker for entry in await entries(guest))
        return {"sessions": sessions, "alive": guest.workers()}


def _table(state: dict[str, Any]) -> str:
    database = state["database"]
    rows = [("Nestbox", f"{state['version']}, {state['domain']}")]
    if database["ok"]:
        rows.append(("Database", f"ok, {database['kind']}, revision {database['revision']}"))
        rows.append(("Users", f"{state['users']:,}"))
        since = f", the oldest of {database['archive_oldest'][:10]}" if database["archive_oldest"] else ""
        rows.append(("Archive", f"{database['archive_rows']:,} messages{since}"))
    else:
        rows.append(("Database", "FAULT"))
    rows.append(("Bus", "ok" if state["bus"]["ok"] else "FAULT"))
    for worker in state["workers"]:
        sessions = "" if worker["sessions"] is None else f", {worker['sessions']:,} sessions"
        rows.append((f"Worker {worker['worker']}", f"{'ok' if worker['ok'] else 'FAULT'}{sessions}"))
    rows += [("Problem", problem) for problem in state["problems"]]
    return "\n".join(f"{name:<10}{value}" for name, value in rows)

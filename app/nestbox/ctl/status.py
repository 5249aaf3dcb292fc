"""nestboxctl status: whether all is well, at a glance or for a program."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from nestbox import __version__
from nestbox.bus import BusError
from nestbox.config import Config
from nestbox.ctl import checks
from nestbox.ctl.checks.finding import Finding, fault
from nestbox.ctl.context import CommandError, bus, opened
from nestbox.ctl.health import health
from nestbox.ctl.sessions import entries
from nestbox.store import StoreError

__all__ = ["add_parser"]

_SECONDS = 5.0
_DATABASE = "Read 'journalctl -u mariadb'; the disk may be full."
_BUS = "Read 'journalctl -u valkey-server' (24.04: redis-server)."


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], add: Callable[..., argparse.ArgumentParser]
) -> None:
    """Declare the command."""
    about = "Check the server and the machine; the exit status is 1 when there is a fault, warnings leave it at 0."
    parser = add(commands, "status", _status, about, "nestboxctl status --json")
    parser.add_argument("--json", action="store_true", help="as a JSON object")


async def _status(args: argparse.Namespace, config: Config) -> int:
    found: list[Finding] = []
    machine, state = await asyncio.gather(checks.findings(config), _server(config, found))
    found += machine
    state["checks"] = msgspec.to_builtins(found)
    state["problems"] = [finding.what for finding in found if finding.state == "fault"]
    state["ok"] = not state["problems"]
    print(json.dumps(state, ensure_ascii=False) if args.json else _table(state, machine, found))
    return 0 if state["ok"] else 1


async def _server(config: Config, found: list[Finding]) -> dict[str, Any]:
    """Database, bus and workers; adds their faults to ``found``."""
    state: dict[str, Any] = {"version": __version__, "domain": config.domain, "users": None}
    state["database"] = await _part(found, "database", _database(config))
    state["users"] = state["database"].pop("users", None)
    bus: dict[str, Any] = {}
    if config.bus.url != "local":
        bus = await _part(found, "bus", _bus(config))
    state["bus"] = {"ok": config.bus.url == "local" or bus["ok"], "url": config.bus.url}
    sessions, alive = bus.get("sessions"), bus.get("alive")
    state["sessions"] = None if sessions is None else sum(sessions.values())
    state["workers"] = []
    for worker in range(1, config.workers + 1):
        says = await health(config, worker)
        ok = says == "ok" and (alive is None or worker in alive)
        count = None if sessions is None else sessions[worker]
        state["workers"].append({"worker": worker, "ok": ok, "health": says, "sessions": count})
        cure = f"Read 'journalctl -u nestbox@{worker}', then 'sudo systemctl restart nestbox@{worker}'."
        if says != "ok":
            found.append(fault(f"worker {worker}", f"Worker {worker} is not well: {says}.", cure))
        elif not ok:
            found.append(fault(f"worker {worker}", f"Worker {worker} is not on the bus.", cure))
    return state


async def _part(found: list[Finding], name: str, work: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    cure = _BUS if name == "bus" else _DATABASE
    try:
        return {"ok": True, **await asyncio.wait_for(work, 2 * _SECONDS)}
    except BusError as error:
        found.append(fault(name, f"The bus fails: {error}.", cure))
    except (StoreError, CommandError) as error:
        found.append(fault(name, str(error), cure))
    except TimeoutError:
        found.append(fault(name, "The database or the bus took too long to answer.", cure))
    return {"ok": False}


async def _database(config: Config) -> dict[str, Any]:
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


def _table(state: dict[str, Any], machine: list[Finding], found: list[Finding]) -> str:
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
    worst = {
        name: [one for one in machine if one.check == name] for name in dict.fromkeys(one.check for one in machine)
    }
    for name, its in worst.items():
        states = {finding.state for finding in its}
        word = "FAULT" if "fault" in states else "warning" if "warning" in states else f"ok, {its[0].what}"
        rows.append((name.capitalize(), word))
    for finding in found:
        if finding.state != "ok":
            rows.append(("Problem" if finding.state == "fault" else "Warning", f"{finding.check}: {finding.what}"))
            rows.append(("", f"-> {finding.cure}"))
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:<{width}}{value}".rstrip() for name, value in rows)

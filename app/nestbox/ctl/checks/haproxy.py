"""Which workers HAProxy sends people to, by its own statistics."""

from __future__ import annotations

import asyncio
import csv
import io
from http.client import HTTPConnection, HTTPException

from nestbox.config import Config
from nestbox.ctl.checks import host
from nestbox.ctl.checks.finding import Finding, fault, fine, warning

__all__ = ["check", "judge"]

_NAME = "haproxy"
_ADDRESS = ("127.0.0.1", 8404)
_BACKEND = "be_http"  # the one that asks workers how they are; the others follow it


async def check(config: Config) -> list[Finding]:
    """Nothing where the roles did not put HAProxy before the workers."""
    if not host.appliance(config) or not await host.units(["haproxy.service"]):
        return []
    try:
        text = await asyncio.to_thread(_statistics)
    except (OSError, HTTPException) as error:
        what = f"It does not answer on {_ADDRESS[0]}:{_ADDRESS[1]} ({error}): nobody can connect."
        return [fault(_NAME, what, "Read 'journalctl -u haproxy', then 'sudo systemctl restart haproxy'.")]
    return judge(text, config.workers)


def _statistics() -> str:
    connection = HTTPConnection(*_ADDRESS, timeout=5)
    try:
        connection.request("GET", "/stats;csv")
        return connection.getresponse().read().decode(errors="replace")
    finally:
        connection.close()


def judge(text: str, workers: int) -> list[Finding]:
    """``text`` is HAProxy's table of statistics as CSV (its management guide, section 9.1)."""
    rows = csv.DictReader(io.StringIO(text.removeprefix("# ")))
    states = {row["svname"]: row["status"] for row in rows if row.get("pxname") == _BACKEND}
    states = {name: state for name, state in states.items() if name not in ("FRONTEND", "BACKEND")}
    findings = []
    if len(states) < workers:
        what = f"It knows {len(states)} workers, and {workers} are configured."
        findings.append(fault(_NAME, what, "Run playbooks/site.yml again."))
    for name, state in states.items():
        if state.startswith(("MAINT", "DRAIN", "NOLB")):
            what = f"Worker {name} is {state.lower()}: nobody new is sent to it."
            findings.append(warning(_NAME, what, f"When no upgrade is under way: make {_BACKEND}/{name} ready again."))
        elif not state.startswith(("UP", "no check")):
            what = f"It sends nobody to worker {name} ({state.lower()})."
            findings.append(fault(_NAME, what, f"Read 'journalctl -u nestbox@{name.lstrip('w')}'."))
    return findings or [fine(_NAME, f"{len(states)} of {workers} workers up")]

"""Whether HAProxy and the workers may open as many files as they are to hold connections.

systemd lowers a limit that the system does not allow without a word.
"""

from __future__ import annotations

import re
from pathlib import Path

from nestbox.config import Config
from nestbox.ctl.checks import host
from nestbox.ctl.checks.finding import Finding, fault, fine, warning

__all__ = ["check", "judge"]

_NAME = "descriptors"
_SPARE = 100  # for listeners, checks, the database, the bus and logs
_HAPROXY = Path("/etc/haproxy/haproxy.cfg")


async def check(config: Config) -> list[Finding]:
    """Nothing on what the roles did not build."""
    if not host.appliance(config):
        return []
    workers = [f"nestbox@{worker}.service" for worker in range(1, config.workers + 1)]
    running = await host.units([*workers, "haproxy.service"], "MainPID")
    wanted = {name: config.limits.connections + _SPARE for name in workers if name in running}
    if "haproxy.service" in running:
        wanted["haproxy.service"] = 2 * _maxconn() + _SPARE  # one to the client, one to the worker
    return judge(wanted, {name: _allowed(int(running[name]["MainPID"])) for name in wanted})


def _maxconn() -> int:
    """Of HAProxy's section "global"; 0 where that cannot be read."""
    try:
        found = re.search(r"^\s*maxconn\s+(\d+)", _HAPROXY.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def _allowed(pid: int) -> int | None:
    """Open files of a process, or of those it made where they hold the connections (HAProxy's worker)."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        found = [host.soft_limit(Path(f"/proc/{one}/limits").read_text()) for one in children or [pid]]
    except OSError:
        return None
    return min((limit for limit in found if limit is not None), default=None)


def judge(wanted: dict[str, int], allowed: dict[str, int | None]) -> list[Finding]:
    """Numbers of files by unit; None where the process cannot be looked at, or does not run."""
    findings = []
    for unit, files in wanted.items():
        has = allowed[unit]
        if has is None:
            findings.append(warning(_NAME, f"The limit of {unit} cannot be seen.", f"Run 'systemctl status {unit}'."))
        elif has < files:
            what = f"{unit} needs {files} open files for its connections and may have {has}."
            cure = f"Set nestbox_max_connections lower and run playbooks/site.yml, then restart {unit}."
            findings.append(fault(_NAME, what, cure))
    if not wanted or findings:
        return findings
    return [fine(_NAME, ", ".join(f"{unit.removesuffix('.service')} {allowed[unit]}" for unit in wanted))]

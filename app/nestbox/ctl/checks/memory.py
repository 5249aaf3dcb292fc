"""Whether the kernel enforces the memory limits that the units ask for.

A Pi's firmware switches the memory controller off; MemoryMax= is then ignored without a word.
"""

from __future__ import annotations

import resource
from pathlib import Path

from nestbox.config import Config
from nestbox.ctl.checks import host
from nestbox.ctl.checks.finding import Finding, fault, fine, warning

__all__ = ["check", "judge"]

_NAME = "memory"
_TREE = Path("/sys/fs/cgroup")


async def check(config: Config) -> list[Finding]:
    """Nothing on what the roles did not build, or where no unit that runs has a limit."""
    if not host.appliance(config):
        return []
    names = [f"nestbox@{worker}.service" for worker in range(1, config.workers + 1)]
    found = await host.units([*names, *host.UNITS], "ActiveState", "MemoryMax", "ControlGroup", "NeedDaemonReload")
    limited = [
        unit for unit in found.values() if unit.get("MemoryMax", "").isdigit() and unit["ActiveState"] == "active"
    ]
    if not limited:
        return []
    try:
        controllers = (_TREE / "cgroup.controllers").read_text().split()
    except OSError:
        controllers = []
    return judge(limited, "memory" in controllers, _enforced(limited), host.container())


def _enforced(units: list[dict[str, str]]) -> dict[str, str]:
    """What the kernel says is each unit's limit, '' where it has none."""
    enforced = {}
    for unit in units:
        file = _TREE / unit["ControlGroup"].lstrip("/") / "memory.max"
        try:
            enforced[unit["Id"]] = file.read_text().strip()
        except OSError:
            enforced[unit["Id"]] = ""
    return enforced


def judge(units: list[dict[str, str]], controller: bool, enforced: dict[str, str], container: str) -> list[Finding]:
    """``units`` have a limit, as systemd shows them; ``enforced`` is memory.max of each one's cgroup."""
    if not controller:
        what = "The kernel has no memory controller here, so no memory limit is enforced."
        cure = (
            "Add cgroup_enable=memory cgroup_memory=1 to the kernel's cmdline.txt (role base does) and restart the Pi."
        )
        if container:
            cure = f"A container ({container}) gets it from its host; on a Pi, role base switches it on."
        return [warning(_NAME, what, cure)]
    findings = []
    for unit in units:
        name, asked, real = unit["Id"], int(unit["MemoryMax"]), enforced[unit["Id"]]
        if not real.isdigit() or abs(int(real) - asked) > resource.getpagesize():  # the kernel rounds to pages
            has = _mib(int(real)) if real.isdigit() else "no limit"
            what = f"{name} is to have {_mib(asked)} and the kernel says {has}."
            findings.append(fault(_NAME, what, f"Run 'sudo systemctl daemon-reload' and restart {name}."))
        elif unit.get("NeedDaemonReload") == "yes":
            what = f"The file of {name} was changed and systemd has not read it."
            findings.append(warning(_NAME, what, f"Run 'sudo systemctl daemon-reload' and restart {name}."))
    limits = ", ".join(f"{unit['Id'].removesuffix('.service')} {_mib(int(unit['MemoryMax']))}" for unit in units)
    return findings or [fine(_NAME, f"limits are enforced: {limits}")]


def _mib(size: int) -> str:
    return f"{size // 1024**2} MiB"

"""Updates that wait, and a restart that they wait for."""

from __future__ import annotations

import os
import re
import time

from nestbox.config import Config
from nestbox.ctl.checks import host
from nestbox.ctl.checks.finding import Finding, fine, warning

__all__ = ["check", "judge"]

_NAME = "updates"
_STAMPS = ("/var/lib/apt/periodic/update-success-stamp", "/var/lib/apt/lists")
_RESTART = "/run/reboot-required"
_STALE_DAYS = 7.0
_INSTALL = "Run 'sudo apt-get update && sudo apt-get upgrade', or leave security updates to unattended-upgrades."


async def check(config: Config) -> list[Finding]:
    """Nothing on what the roles did not build. What apt knows may be old: nothing is fetched here."""
    if not host.appliance(config):
        return []
    # Simulated and without locks, as anybody may ask; updates held back in phases are not named.
    said = await host.command("apt-get", "--simulate", "--option=Debug::NoLocking=1", "--quiet", "upgrade")
    return judge(said, _age(), _wants_restart())


def _wants_restart() -> bool:
    return os.path.exists(_RESTART)


def _age() -> float | None:
    """Days since apt fetched its lists."""
    times = [os.stat(stamp).st_mtime for stamp in _STAMPS if os.path.exists(stamp)]
    return (time.time() - max(times)) / 86400 if times else None


def judge(simulated: str | None, days: float | None, restart: bool) -> list[Finding]:
    """``simulated`` is what apt-get would do, ``days`` the age of what it knows; None when that cannot be had."""
    findings = []
    if restart:
        what = "Updates are installed that need a restart of the machine."
        findings.append(warning(_NAME, what, "Run 'sudo reboot' when nobody minds; chats come back by themselves."))
    if simulated is None:
        return [*findings, warning(_NAME, "apt does not say what waits.", "Run 'sudo apt-get check'.")]
    if days is None or days > _STALE_DAYS:
        age = "never" if days is None else f"{days:.0f} days ago"
        what = f"The lists of packages were last fetched {age}."
        findings.append(warning(_NAME, what, "Run 'sudo apt-get update' and see that apt-daily.timer runs."))
    waiting = re.findall(r"^Inst (\S+) .*$", simulated, re.MULTILINE)
    security = re.findall(r"^Inst (\S+) .*-security", simulated, re.MULTILINE)
    if security:
        names = ", ".join(security[:3]) + ", ..." * (len(security) > 3)
        what = f"{len(waiting)} updates wait, {len(security)} of them for security ({names})."
        findings.append(warning(_NAME, what, _INSTALL))
    if findings:
        return findings
    return [fine(_NAME, f"{len(waiting)} wait, none for security" if waiting else "none waits")]

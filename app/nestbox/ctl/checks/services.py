"""Whether what belongs to the appliance runs, and whether anything else on it failed."""

from __future__ import annotations

from nestbox.config import Config
from nestbox.ctl.checks import host
from nestbox.ctl.checks.finding import Finding, fault, fine, warning

__all__ = ["check", "judge"]

_NAME = "services"
_TIMERS = ("nestbox.target", "nestbox-maintenance.timer", "nestbox-tls-renew.timer")
_PROPERTIES = ("ActiveState", "UnitFileState", "ConditionResult", "ConditionTimestampMonotonic")


async def check(config: Config) -> list[Finding]:
    """Nothing on what the roles did not build."""
    if not host.appliance(config):
        return []
    workers = [f"nestbox@{worker}.service" for worker in range(1, config.workers + 1)]
    found = await host.units([*workers, *host.UNITS, *_TIMERS], *_PROPERTIES)
    failed = await host.command("systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--no-pager")
    if not found or failed is None:
        return [warning(_NAME, "systemd does not answer.", "Run 'systemctl status' as root.")]
    # One whose conditions are not met, such as chrony's in a container, is not meant to run here.
    wanted = {name: unit for name, unit in found.items() if unit["UnitFileState"] != "disabled"}
    wanted = {name: unit for name, unit in wanted.items() if unit["ActiveState"] == "active" or _may_run(unit)}
    states = {name: unit["ActiveState"] for name, unit in wanted.items()}
    return judge(states, [line.split()[0] for line in failed.splitlines() if line.strip()])


def _may_run(unit: dict[str, str]) -> bool:
    tried = unit["ConditionTimestampMonotonic"] != "0"
    return unit["ActiveState"] == "failed" or not tried or unit["ConditionResult"] == "yes"


def judge(states: dict[str, str], failed: list[str]) -> list[Finding]:
    """``states`` are those of the units that must run; ``failed`` are all units that systemd calls so."""
    findings = []
    for unit, state in states.items():
        if state not in ("active", "reloading"):
            findings.append(fault(_NAME, f"{unit} is {state}.", _cure(unit)))
    for unit in failed:
        if unit not in states:
            make = fault if unit.startswith("nestbox") else warning
            findings.append(make(_NAME, f"{unit} failed.", _cure(unit)))
    return findings or [fine(_NAME, f"{len(states)} run, none failed")]


def _cure(unit: str) -> str:
    return f"Read 'journalctl -u {unit}', then 'sudo systemctl restart {unit}'."

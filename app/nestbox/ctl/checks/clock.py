"""Whether a time server keeps the clock right: certificates, and the order of messages, hang on it."""

from __future__ import annotations

from nestbox.config import Config
from nestbox.ctl.checks import host
from nestbox.ctl.checks.finding import Finding, fine, warning

__all__ = ["check", "judge"]

_NAME = "clock"


async def check(config: Config) -> list[Finding]:
    """Nothing on what the roles did not build."""
    if not host.appliance(config):
        return []
    said = await host.command("timedatectl", "show", "--property=NTPSynchronized", "--value")
    return [judge((said or "").strip(), host.container())]


def judge(synchronised: str, container: str) -> Finding:
    """``synchronised`` is what the kernel says, by timedatectl: yes, no, or '' when that does not answer."""
    if synchronised == "yes":
        return fine(_NAME, "kept right by a time server")
    if container:
        what = f"In a container ({container}) the clock is the host's."
        return warning(_NAME, what, "See to it that the host asks a time server.")
    what = "No time server keeps it right." if synchronised == "no" else "timedatectl does not say who keeps it right."
    cure = "See 'chronyc sources'; where the network blocks NTP, name a time server inside it (base_ntp_servers)."
    return warning(_NAME, what, cure)

"""What the checks ask of the system they run on; nothing here needs root."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from nestbox.config import Config

__all__ = ["UNITS", "appliance", "command", "container", "soft_limit", "units"]

_SECONDS = 20.0
_CONTAINER = Path("/run/systemd/container")  # systemd writes the container's kind here
# The services that an appliance may have beside its workers; those that are not installed are left out.
UNITS = ("haproxy.service", "valkey-server.service", "redis-server.service", "mariadb.service", "chrony.service")


def appliance(config: Config) -> bool:
    """Whether this is the server that the roles built, rather than one that somebody started from a checkout."""
    built = Path("/run/systemd/system").exists() and Path("/etc/systemd/system/nestbox@.service").exists()
    return built and config.listen.http.startswith("unix:/run/nestbox/")


def container() -> str:
    """The kind of container that this system runs in, '' on a machine of its own."""
    try:
        return _CONTAINER.read_text().strip()
    except OSError:
        return ""


async def command(*arguments: str) -> str | None:
    """What a program printed; None when it is not there, failed, or took longer than 20 seconds."""
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError:
        return None
    try:
        async with asyncio.timeout(_SECONDS):
            out, _ = await process.communicate()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return None
    return out.decode(errors="replace") if process.returncode == 0 else None


async def units(names: Iterable[str], *properties: str) -> dict[str, dict[str, str]]:
    """Properties of the units that are installed, by unit; empty when systemd does not answer."""
    wanted = ",".join(("Id", "LoadState", *properties))
    said = await command("systemctl", "show", "--no-pager", f"--property={wanted}", "--", *names)
    found = {}
    for block in (said or "").split("\n\n"):
        unit = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if unit.get("LoadState") == "loaded":
            found[unit["Id"]] = unit
    return found


def soft_limit(limits: str) -> int | None:
    """Open files that a process may have, from its /proc/PID/limits; None when it does not say."""
    for line in limits.splitlines():
        if line.startswith("Max open files"):
            number = line.removeprefix("Max open files").split()[0]
            return int(number) if number.isdigit() else None
    return None

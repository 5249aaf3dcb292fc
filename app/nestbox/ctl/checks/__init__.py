"""The self-check's checks of the machine, one file each: `check` looks, `judge` decides.

What a check cannot see from here is a warning. A check that does not apply finds nothing.
"""

from __future__ import annotations

import asyncio

from nestbox.config import Config
from nestbox.ctl.checks import (
    card,
    certificate,
    clock,
    descriptors,
    disk,
    haproxy,
    memory,
    replication,
    services,
    updates,
)
from nestbox.ctl.checks.finding import Finding, warning

__all__ = ["findings"]

_CHECKS = (certificate, services, haproxy, descriptors, memory, disk, card, clock, updates, replication)


async def findings(config: Config) -> list[Finding]:
    """What all checks found, side by side, in the order of the table."""
    found = await asyncio.gather(*(check.check(config) for check in _CHECKS), return_exceptions=True)
    result: list[Finding] = []
    for check, one in zip(_CHECKS, found, strict=True):
        if isinstance(one, BaseException):  # a check's own fault must not hide what the others found
            name = check.__name__.rpartition(".")[2]
            result.append(warning(name, f"It cannot be checked ({type(one).__name__}: {one}).", "Please report this."))
        else:
            result += one
    return result

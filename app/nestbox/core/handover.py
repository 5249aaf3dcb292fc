"""Hands a worker's sessions over to the others before it is restarted, a few at a time.

All clients of a worker coming back in the same instant would make the others wait. HAProxy must send nobody here
meanwhile (state drain), or those who leave come back at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from nestbox.bus import BusError

if TYPE_CHECKING:
    from nestbox.core.server import Server

__all__ = ["hand_over"]

PER_SECOND = 200  # sessions; a log-in costs a Pi 4 about 3 ms
SECONDS = 60.0  # for more sessions than that allows the pace is quicker
STEP = 0.1  # seconds
_log = logging.getLogger("nestbox.handover")


async def hand_over(server: Server, say: Callable[[str], None]) -> None:
    """Send every session away; ``say`` is told how far that is, at the end something else than "handing over ..."."""
    if not server.bus.workers() - {server.bus.worker}:
        say("nobody to hand over to")
        return
    sessions = server.registry.sessions
    step = max(round(PER_SECOND * STEP), round(len(sessions) * STEP / SECONDS))
    _log.info("handing over", extra={"fields": {"sessions": len(sessions)}})
    try:
        while sessions:
            say(f"handing over, {len(sessions)} sessions left")
            batch = list(islice(sessions.values(), step))
            await asyncio.gather(asyncio.sleep(STEP), *map(server.send_away, batch))
    except BusError as error:
        _log.error("the sessions are not handed over: %s", error)
        say("could not hand over")
        return
    say("handed over")

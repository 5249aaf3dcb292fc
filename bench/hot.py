"""Where a message's time goes: the worker's functions by their own time, under cProfile, which makes calls dearer."""

from __future__ import annotations

import argparse
import asyncio
import os
import pstats
import signal
import tempfile
from collections import Counter
from pathlib import Path

from chat import FlatOut, steady
from load import Client, log_in
from measure import CORE, run
from peers import DOMAIN, PASSWORD, Server, nestbox, users

__all__ = ["print_profile"]

SESSIONS = 400
SMALLEST = 0.02  # share of a function that is worth a line
# SIGRTMIN begins, the signal after it ends; what the loop itself does between is in nobody's account.
_PROFILED = """
import cProfile, signal, sys
from nestbox.__main__ import main
profile, record = cProfile.Profile(), sys.argv.pop(1)
signal.signal(signal.SIGRTMIN, lambda *_: profile.enable())
signal.signal(signal.SIGRTMIN + 1, lambda *_: (profile.disable(), profile.dump_stats(record)))
main()
"""


async def _load(server: Server, options: argparse.Namespace, flat: bool) -> int:
    """Chat, and have the worker profiled meanwhile; how many messages that were."""
    (pid,) = server.processes["worker"]
    clients: list[Client] = await log_in(
        users(SESSIONS), PASSWORD, DOMAIN, server.address, websocket=False, proxy=False
    )
    await asyncio.sleep(3)
    os.kill(pid, signal.SIGRTMIN)
    if flat:
        load = FlatOut(clients)
        await asyncio.sleep(options.seconds)
        await load.stop()
        count = load.received
    else:
        count = (await steady(clients, options.rate, options.seconds))["sent"]
    os.kill(pid, signal.SIGRTMIN + 1)
    await asyncio.sleep(1)
    return count


def print_profile(options: argparse.Namespace) -> None:
    """The functions that take most, for messages at a rate and flat out."""
    for flat, archive in ((False, "mariadb"), (True, "mariadb"), (True, "off")):
        with tempfile.TemporaryDirectory(prefix="bench.") as folder:
            record = Path(folder) / "profile"
            how = {"archive": archive, "transport": "tcp", "core": CORE, "program": ("-c", _PROFILED, str(record))}
            with nestbox.start(Path(folder), SESSIONS, **how) as server:
                messages = run(_load(server, options, flat))
            stats = pstats.Stats(str(record))
        rate = "flat out" if flat else f"{options.rate:.0f}/s"
        print(f"\n## Where the time goes: {rate}, archive {archive}\n")
        _print_parts(stats)
        _print_functions(stats, messages)


def _print_parts(stats: pstats.Stats) -> None:
    """The share of each package of ours; expat's and the like is what they call."""
    parts: Counter[str] = Counter()
    for (file, _, _), (_, _, own, *_) in stats.stats.items():
        parts[Path(file).parent.name if "nestbox" in file else "C and the library"] += own
    print(", ".join(f"{name} {own / stats.total_tt:.0%}" for name, own in parts.most_common(8)))


def _print_functions(stats: pstats.Stats, messages: int) -> None:
    print("\n| function | calls/message | share |\n| --- | --- | --- |")
    for (file, line, name), (_, calls, own, *_) in sorted(stats.stats.items(), key=lambda one: -one[1][2]):
        if own < SMALLEST * stats.total_tt:
            break
        where = f"{Path(file).parent.name}/{Path(file).name} " if line else ""
        print(f"| {where}`{name}` | {calls / messages:.2f} | {own / stats.total_tt:.1%} |")

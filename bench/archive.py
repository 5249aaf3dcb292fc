#!/usr/bin/env python3
"""What a durable archive costs: CPU of worker and database for each message, and how long until it is durable.

A message is two rows (each side's archive). The generator's own cost, measured first, is taken off the worker's.
Run it with the app's environment: .venv/bin/python bench/archive.py [--rate 500] [--seconds 10]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "app"))

from nestbox.core.ids import IdSource
from nestbox.store import Store, open_store
from tests.databases import MariaDB

try:
    import uvloop as loops
except ImportError:
    loops = asyncio

ACCOUNTS = 4000
STANZA = (
    '<message type="chat" id="{id}" from="user{a}@nestbox.test/phone" to="user{b}@nestbox.test">'
    "<body>Eighty bytes of text, as the other benchmarks have it; nobody reads it, though..</body></message>"
)


async def load(store: Store | None, rate: int, seconds: float) -> tuple[float, list[float]]:
    """Send for some seconds; return the worker's CPU in us for each message and the waits in ms."""
    loop = asyncio.get_running_loop()
    ids = IdSource(1)
    waits: list[float] = []
    count = int(rate * seconds)
    done = loop.create_future()
    begin = loop.time()
    cpu = time.process_time()

    def send(index: int) -> None:
        a, b = random.randrange(1, ACCOUNTS), random.randrange(1, ACCOUNTS)
        stanza = STANZA.format(id=index, a=a, b=b).encode()
        sent = loop.time()

        def durable(ok: bool) -> None:
            waits.append(loop.time() - sent)
            if len(waits) == count:
                done.set_result(None)

        if store is None:
            ids(), ids(), f"user{b}@nestbox.test", f"user{a}@nestbox.test"
            durable(True)
        else:
            store.committer.archive(a, ids(), f"user{b}@nestbox.test", stanza)
            store.committer.when(store.committer.archive(b, ids(), f"user{a}@nestbox.test", stanza), durable)
        if index + 1 < count:
            loop.call_at(begin + (index + 1) / rate, send, index + 1)

    send(0)
    await done
    return (time.process_time() - cpu) / count * 1e6, [1000 * wait for wait in waits]


def cpu_of(pid: int) -> float:
    """Seconds of CPU that another process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(name: str, url: str, pid: int | None, args: argparse.Namespace) -> None:
    """Print a row of the table for each window."""
    idle, _ = await load(None, args.rate, args.seconds / 2)
    for window in args.windows:
        store = await open_store(url, window / 1000)
        await store.migrate()
        await load(store, args.rate, 1)
        other = cpu_of(pid) if pid else 0.0
        batches = store.committer.batches
        worker, waits = await load(store, args.rate, args.seconds)
        other = ((cpu_of(pid) - other) if pid else 0.0) / len(waits) * 1e6
        waits.sort()
        print(
            f"| {name} | {args.rate} | {window} ms | {worker - idle:.0f} | {other:.0f} | {waits[len(waits) // 2]:.1f} "
            f"| {waits[len(waits) * 99 // 100]:.1f} | {(store.committer.batches - batches) / args.seconds:.0f} |"
        )
        await store.close()


def main() -> None:
    """Measure both databases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=500, help="messages a second")
    parser.add_argument("--seconds", type=float, default=10, help="how long each measurement takes")
    parser.add_argument("--windows", type=int, nargs="+", default=[20], help="commit windows in ms")
    args = parser.parse_args()
    print("| database | messages/s | window | worker us | database us | p50 ms | p99 ms | commits/s |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="nestbox-bench-") as folder:
        runner = asyncio.Runner(loop_factory=loops.new_event_loop)
        runner.run(measure("SQLite", f"sqlite:///{folder}/nestbox.db", None, args))
        server = MariaDB(Path(folder))
        runner.run(measure("MariaDB", server.create(), server.pid, args))
        runner.close()
        server.stop()


if __name__ == "__main__":
    main()

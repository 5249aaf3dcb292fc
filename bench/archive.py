"""The store alone: CPU of worker and database for each message that is archived, and how long until it is durable.

A message is two rows (each side's archive). The generator's own cost, measured first, is taken off the worker's.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from pathlib import Path

from chat import TEXT
from measure import run
from nestbox.core.ids import IdSource
from nestbox.store import Store, open_store
from peers import cpu_seconds
from peers.nestbox import MariaDB

__all__ = ["print_archive"]

ACCOUNTS = 4000
WINDOWS_MS = (5, 10, 20)  # between two commits, of which ours is the middle one
STANZA = (
    '<message type="chat" id="{id}" from="user{a}@nestbox.test/phone" to="user{b}@nestbox.test">'
    f"<body>{TEXT}</body></message>"
)


async def _load(store: Store | None, rate: float, seconds: float) -> tuple[float, list[float]]:
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


async def _measure(name: str, url: str, pid: int | None, options: argparse.Namespace) -> None:
    """Print a row of the table for each window."""
    idle, _ = await _load(None, options.rate, 2)
    for window in WINDOWS_MS:
        store = await open_store(url, window / 1000)
        await store.migrate()
        await _load(store, options.rate, 1)
        before, batches = cpu_seconds(pid) if pid else 0.0, store.committer.batches
        worker, waits = await _load(store, options.rate, options.seconds)
        database = (cpu_seconds(pid) - before) * 1e6 / len(waits) if pid else 0.0
        waits.sort()
        print(
            f"| {name} | {window} ms | {worker - idle:.0f} | {database:.0f} | {waits[len(waits) // 2]:.1f} "
            f"/ {waits[len(waits) * 99 // 100]:.1f} | {(store.committer.batches - batches) / options.seconds:.0f} |",
            flush=True,
        )
        await store.close()


def print_archive(options: argparse.Namespace) -> None:
    """The table."""
    print(f"\n## The store alone\n\n{options.rate:.0f} messages/s\n")
    print("| database | window | worker us | database us | durable after p50 / p99 ms | commits/s |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="bench.") as folder:
        run(_measure("SQLite", f"sqlite:///{folder}/nestbox.db", None, options))
        server = MariaDB(Path(folder))
        try:
            run(_measure("MariaDB", server.create(), server.pid, options))
        finally:
            server.stop()

"""What a log-in costs the worker: connect, SCRAM-SHA-1, bind, roster get, initial presence.

Once with an empty roster, and once with 200 contacts of whom 100 are online, so that presence goes to and comes from
all of those. Each is measured on a worker that has just started, and again when it knows the accounts.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from load import Client, log_in
from measure import run
from peers import DOMAIN, PASSWORD, Server, nestbox, users

__all__ = ["print_logins"]

ONLINE = 100


async def _measure(server: Server, count: int) -> list[float]:
    """Milliseconds of CPU of one log-in: empty roster, the same again, full roster, the same again.

    ``count`` accounts named u0, u1 ... log in, then a tenth as many named t0, t1 ... that have them full.
    """
    how = {"websocket": server.transport == "websocket", "proxy": server.proxy}

    async def cost(names: list[str]) -> tuple[float, list[Client]]:
        before = server.cpu()["worker"]
        clients = await log_in(names, PASSWORD, DOMAIN, server.address, **how)
        await asyncio.sleep(2.5)  # a worker looks for offline messages a moment later, too
        return (server.cpu()["worker"] - before) * 1e3 / len(names), clients

    async def twice(names: list[str]) -> list[float]:
        figures = []
        for _ in range(2):
            figure, clients = await cost(names)
            figures.append(figure)
            for client in clients:
                client.close()
            await asyncio.sleep(1)
        return figures

    await asyncio.sleep(1)
    plain = await twice(users(count))
    online = await log_in(users(ONLINE), PASSWORD, DOMAIN, server.address, **how)
    full = await twice(users(count // 10, "t"))
    for client in online:
        client.close()
    return plain + full


def print_logins(options: argparse.Namespace) -> None:
    """The table."""
    count = options.logins
    print(f"\n## Log-ins\n\nCPU ms of the worker for one, {count} of them; the first after its start / again\n")
    print(
        f"| archive, transport | empty roster | {nestbox.CONTACTS} contacts, half of them online |\n| --- | --- | --- |"
    )
    for archive in ("sqlite", "mariadb"):
        for transport in ("tcp", "websocket"):
            with (
                tempfile.TemporaryDirectory(prefix="bench.") as folder,
                nestbox.start(
                    Path(folder), count, archive=archive, transport=transport, sociable=count // 10
                ) as server,
            ):
                row = run(_measure(server, count))
            print(f"| {archive}, {transport} | {row[0]:.2f} / {row[1]:.2f} | {row[2]:.2f} / {row[3]:.2f} |", flush=True)

"""Twenty thousand sessions on one machine: are they held, and do messages arrive?

A worker for each core and several generators, each a process of its own, over the Unix sockets that HAProxy uses.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from chat import steady
from load import log_in
from measure import run
from peers import DOMAIN, PASSWORD, Server, nestbox, users

__all__ = ["print_crowd"]

EACH = 5_000  # sessions of one generator
RATE = 500.0  # messages per second in all
WORKERS = 2


def _generate(channel: Connection, addresses: list[str], names: list[str], rate: float, seconds: float) -> None:
    """Log in, say so, wait for the word, chat, tell what came of it and how many are still there."""

    async def main() -> None:
        clients = await log_in(names, PASSWORD, DOMAIN, addresses, websocket=False, proxy=True)
        channel.send(len(clients))
        await asyncio.to_thread(channel.recv)
        result = await steady(clients, rate, seconds)
        result["held"] = sum(not client.gone for client in clients)
        channel.send(result)

    run(main())


def _measure(server: Server, options: argparse.Namespace) -> None:
    parts = options.crowd // EACH
    names = users(options.crowd)
    memory, cpu, begin = server.memory(), server.cpu(), time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    channels, generators = [], []
    for part in range(parts):
        ours, theirs = spawn.Pipe()
        mine = names[part * EACH : (part + 1) * EACH]
        arguments = (theirs, server.addresses, mine, RATE / parts, options.seconds)
        generators.append(spawn.Process(target=_generate, args=arguments, daemon=True))
        generators[-1].start()
        channels.append(ours)
    online = sum(channel.recv() for channel in channels)
    took = time.monotonic() - begin
    logins = sum(server.cpu().values()) - sum(cpu.values())
    time.sleep(5)
    grown = sum(server.memory().values()) - sum(memory.values())
    for channel in channels:
        channel.send("go")
    results = [channel.recv() for channel in channels]
    for generator in generators:
        generator.join()
    print(
        f"| {online} | {sum(result['held'] for result in results)} | {took:.0f} s, {logins * 1e3 / online:.1f} ms "
        f"| {grown / online:.1f} | {max(result['p50'] for result in results):.1f} / "
        f"{max(result['p99'] for result in results):.1f} | {sum(result['lost'] for result in results)} |",
        flush=True,
    )


def print_crowd(options: argparse.Namespace) -> None:
    """The table."""
    print(f"\n## A crowd\n\n{WORKERS} workers with MariaDB and Valkey, {RATE:.0f} messages/s with a durable archive for "
          f"{options.seconds:.0f} s\n")  # fmt: skip
    print(
        "| sessions | held at the end | log-ins took, CPU of each | KiB/session, all processes | p50 / p99 ms | lost |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    with (
        tempfile.TemporaryDirectory(prefix="bench.") as folder,
        nestbox.start(Path(folder), options.crowd, archive="mariadb", transport="tcp", workers=WORKERS) as server,
    ):
        _measure(server, options)

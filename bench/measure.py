"""One server under all the loads in turn: log-ins, idle sessions, messages at a rate and flat out, a room."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from chat import FlatOut, steady
from load import Client, log_in
from peers import DOMAIN, PASSWORD, Server, in_real_time, users
from room import enter, talk

try:
    from uvloop import new_event_loop
except ImportError:
    new_event_loop = None

__all__ = ["CORE", "PHASES", "Figures", "measure", "run"]

PHASES = 3  # of each load, whose median counts
Result = TypeVar("Result")
CORE = min(os.sched_getaffinity(0))  # of the servers
ROOM = f"bench@rooms.{DOMAIN}"
SETTLE = 5.0  # seconds after the log-ins before memory is looked at


@dataclass
class Figures:
    """What was found. ``own`` is the IM server's process, ``all`` all of them; CPU in microseconds, latency in ms."""

    load: float  # of the machine before
    own_kib: float = 0.0  # per session
    all_kib: float = 0.0
    login_us: float = 0.0
    login_all_us: float = 0.0
    chat_us: float = 0.0  # per message
    chat_all_us: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    lost: int = 0
    flat_us: float = 0.0
    flat_all_us: float = 0.0
    reached: float = 0.0  # messages per second, with the generator beside
    room_us: float = 0.0  # per stanza delivered
    room_p99: float = 0.0
    room_sm_us: float = 0.0  # with stream management


def run(main: Coroutine[object, object, Result]) -> Result:
    """Run a generator's coroutine on the loop that costs least, on a core that the server does not have, in real time."""
    cores, policy = os.sched_getaffinity(0), os.sched_getscheduler(0)
    if len(cores) > 1:
        os.sched_setaffinity(0, cores - {CORE})
    in_real_time()
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(main)
    finally:
        os.sched_setaffinity(0, cores)
        os.sched_setscheduler(0, policy, os.sched_param(0))


async def measure(server: Server, options: argparse.Namespace, loads: str = "chat flat room") -> Figures:
    """Log everybody in and look at the memory, then put the loads on it."""
    await asyncio.sleep(2)
    figures = Figures(os.getloadavg()[0])
    memory, cpu = server.memory(), server.cpu()
    clients = await log_in(
        users(options.sessions), PASSWORD, DOMAIN, server.address,
        websocket=server.transport == "websocket", proxy=server.proxy, tls=server.transport == "tls",
    )  # fmt: skip
    figures.login_us, figures.login_all_us = _each(cpu, server.cpu(), options.sessions)
    await asyncio.sleep(SETTLE)
    figures.own_kib, figures.all_kib = _each(memory, server.memory(), options.sessions, 1)
    if "chat" in loads:
        await steady(clients, options.rate, 2)  # warm up
        await _steady(server, clients, options, figures)
    if "flat" in loads:
        await _flat_out(server, clients, options, figures)
    if "room" in loads:
        await _room(server, clients[: options.occupants], options, figures)
    for client in clients:
        client.close()
    return figures


def _each(before: dict[str, float], after: dict[str, float], count: float, unit: float = 1e6) -> tuple[float, float]:
    """The difference for each of ``count``: of the server's own process, and of all."""
    differences = [unit * (after[name] - before[name]) / count for name in before]
    return differences[0], sum(differences)


async def _steady(server: Server, clients: list[Client], options: argparse.Namespace, figures: Figures) -> None:
    rows = []
    for _ in range(PHASES):
        cpu = server.cpu()
        result = await steady(clients, options.rate, options.seconds / PHASES)
        rows.append((*_each(cpu, server.cpu(), result["sent"]), result["p50"], result["p99"], result["lost"]))
    *medians, _ = (median(column) for column in zip(*rows, strict=True))
    figures.chat_us, figures.chat_all_us, figures.p50, figures.p99 = medians
    figures.lost = int(sum(row[-1] for row in rows))


async def _flat_out(server: Server, clients: list[Client], options: argparse.Namespace, figures: Figures) -> None:
    load = FlatOut(clients)
    await asyncio.sleep(2)
    rows = []
    for _ in range(PHASES):
        cpu, before, begin = server.cpu(), load.received, time.monotonic()
        await asyncio.sleep(options.seconds / 2 / PHASES)
        count = load.received - before
        rows.append((*_each(cpu, server.cpu(), max(count, 1)), count / (time.monotonic() - begin)))
    await load.stop()
    figures.flat_us, figures.flat_all_us, figures.reached = (median(column) for column in zip(*rows, strict=True))


async def _room(server: Server, clients: list[Client], options: argparse.Namespace, figures: Figures) -> None:
    await enter(clients, ROOM)
    figures.room_us, figures.room_p99 = await _talk(server, clients, options, figures)
    for client in clients:
        await client.manage()
    figures.room_sm_us, _ = await _talk(server, clients, options, figures)


async def _talk(server: Server, clients: list[Client], options: argparse.Namespace, figures: Figures) -> list[float]:
    await talk(clients, ROOM, options.room_rate, 1)  # warm up
    rows = []
    for _ in range(PHASES):
        cpu = server.cpu()
        result = await talk(clients, ROOM, options.room_rate, options.seconds / 2 / PHASES)
        rows.append((_each(cpu, server.cpu(), result["due"])[1], result["p99"]))
        figures.lost += int(result["lost"])
    return [median(column) for column in zip(*rows, strict=True)]

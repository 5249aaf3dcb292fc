"""What commit-before-acknowledge adds: the time until the sender's ``<r/>`` is answered (XEP-0198), archive on or off."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import tempfile
import time
from collections import deque
from pathlib import Path

from chat import TEXT, percentile
from load import SM, Client, log_in
from measure import CORE, run
from peers import DOMAIN, PASSWORD, Server, nestbox, users

__all__ = ["print_acks"]

_NEWS = re.compile(rb"<body>(\d+) |<a xmlns='urn:xmpp:sm:3' h='(\d+)'/>|<(r) xmlns='urn:xmpp:sm:3'/>|</(message)>")


class _Acked:
    """Stream management for a client: it answers the server's questions and times the answers to its own."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._asked: deque[int] = deque()  # when, of each message that is not acknowledged
        self._acknowledged = self._handled = 0
        self._rest = b""
        self.acks: list[int] = []
        self.deliveries: list[int] = []
        client.on_data = self._read

    def say(self, to: str) -> None:
        """Send a message and ask for its acknowledgement at once."""
        self._asked.append(time.monotonic_ns())
        self._client.send(self._client.message(to, TEXT) + f"<r xmlns='{SM}'/>")

    def _read(self, data: bytes) -> None:
        data = self._rest + data
        now, end = time.monotonic_ns(), 0
        for found in _NEWS.finditer(data):
            end = found.end()
            sent, h, asked, _ = found.groups()
            if sent:
                self.deliveries.append(now - int(sent))
            elif h:
                while self._acknowledged < int(h):
                    self._acknowledged += 1
                    self.acks.append(now - self._asked.popleft())
            elif asked:
                self._client.send(f"<a xmlns='{SM}' h='{self._handled}'/>")
            else:
                self._handled += 1
        self._rest = data[max(end, len(data) - 50) :]


async def _measure(server: Server, options: argparse.Namespace) -> tuple[float, ...]:
    await asyncio.sleep(1)
    names = users(options.acked)
    clients = await log_in(names, PASSWORD, DOMAIN, server.address, websocket=False, proxy=server.proxy)
    for client in clients:
        client.send(f"<enable xmlns='{SM}' resume='true'/>")
        await client.expect(rb"<enabled [^>]*>")
    people = [_Acked(client) for client in clients]
    await _talk(people, names, options.rate, 2)
    for person in people:
        person.acks, person.deliveries = [], []
    cpu = server.cpu()
    sent = await _talk(people, names, options.rate, options.seconds)
    used = sum(server.cpu().values()) - sum(cpu.values())
    acks = sorted(one for person in people for one in person.acks)
    deliveries = sorted(one for person in people for one in person.deliveries)
    for client in clients:
        client.close()
    return (
        percentile(deliveries, 50), percentile(deliveries, 99), percentile(acks, 50), percentile(acks, 99),
        used * 1e6 / sent, sent - len(deliveries),
    )  # fmt: skip


async def _talk(people: list[_Acked], names: list[str], rate: float, seconds: float) -> int:
    begin, sent = time.monotonic(), 0
    while (now := time.monotonic() - begin) < seconds:
        while sent < now * rate:
            one = sent * 2 % len(people)
            people[one].say(names[one + 1])
            sent += 1
        await asyncio.sleep(max(0.0, sent / rate - (time.monotonic() - begin)))
    await asyncio.sleep(2)
    return sent


def _disk(folder: str) -> list[int]:
    """Sorted nanoseconds of two hundred small writes that must reach the disk, one every 10 ms: what no commit can beat."""
    times = []
    with open(Path(folder) / "disk", "wb", buffering=0) as file:
        for _ in range(200):
            time.sleep(0.01)
            begin = time.monotonic_ns()
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            times.append(time.monotonic_ns() - begin)
    return sorted(times)


def print_acks(options: argparse.Namespace) -> None:
    """The table."""
    print(f"\n## Acknowledgements\n\n{options.acked} sessions with stream management, {options.rate:.0f} messages/s, each "
          "followed by a question for its acknowledgement, which comes when the message is durable\n")  # fmt: skip
    print(
        "| archive | delivered p50 / p99 ms | acknowledged p50 / p99 ms | p99 added | CPU us/message, all | lost | the disk alone p50 / p99 ms |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    without = 0.0
    for archive in ("off", "sqlite", "mariadb"):
        with (
            tempfile.TemporaryDirectory(prefix="bench.") as folder,
            nestbox.start(Path(folder), options.acked, archive=archive, transport="tcp", core=CORE) as server,
        ):
            disk = _disk(folder)
            d50, d99, a50, a99, cpu, lost = run(_measure(server, options))
        without = without or a99
        print(
            f"| {archive} | {d50:.2f} / {d99:.1f} | {a50:.2f} / {a99:.1f} | {a99 - without:.1f} | {cpu:.0f} | {lost} | {percentile(disk, 50):.2f} / {percentile(disk, 99):.1f} |",
            flush=True,
        )

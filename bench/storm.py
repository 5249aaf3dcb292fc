"""The power is back: everybody logs in at the same moment, and each has contacts who do so, too (bench/run.py prints it).

4,000 accounts with 50 contacts each open a connection at once, without a pause, on two workers that have just started.
What counts is that no worker stalls (the lag of its loop is its own metric), that all get in, and that of each two
contacts both have seen the other come.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, pairwise
from pathlib import Path

from load import Client
from nestbox.store import open_store
from nestbox.store.schema import roster
from peers import DOMAIN, PASSWORD, cpu_seconds, favour
from sqlalchemy import insert

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "app" / "tests"))
from databases import MariaDB, Valkey

__all__ = ["print_storm"]

CONTACTS = 50
WORKERS = 2
ROWS = (("sqlite", False), ("mariadb", False), ("mariadb", True))
_PRESENCE = re.compile(rb"<presence [^>]*from=.u(\d+)@")
_BUCKET = re.compile(r'^nestbox_event_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)', re.MULTILINE)
_WORST = re.compile(r"^nestbox_event_loop_lag_worst_seconds (\S+)", re.MULTILINE)


class Person(Client):
    """A client that remembers whose presence it was sent."""

    def __init__(self, number: int, websocket: bool) -> None:
        super().__init__(f"u{number}", DOMAIN, websocket=websocket, proxy=not websocket)
        self.seen: set[int] = set()
        self._tail = b""

    def data_received(self, data: bytes) -> None:
        """Look for presence before the log-in looks for what it waits for."""
        data_ = self._tail + data
        self.seen.update(map(int, _PRESENCE.findall(data_)))
        self._tail = data_[data_.rfind(b"<") :]
        super().data_received(data)


def contacts_of(number: int, people: int) -> list[int]:
    """Who is in whose roster: the nearest on both sides."""
    half = CONTACTS // 2
    return [(number + step) % people for step in range(-half, half + 1) if step]


async def create(url: str, people: int) -> None:
    """Fill an empty database."""
    store = await open_store(url)
    await store.migrate()
    await store.accounts.create("first", PASSWORD)
    keys = (await store.accounts.get("first")).keys
    await store.accounts.create_many([(f"u{number}", keys) for number in range(people)])
    first = (await store.accounts.get("u0")).id
    ids = [first + number for number in range(people)]
    assert (await store.accounts.get(f"u{people - 1}")).id == ids[-1]
    for start in range(0, people, 200):
        rows = [
            {
                "user_id": ids[number],
                "jid": f"u{contact}@{DOMAIN}",
                "name": f"Contact {contact}".encode(),
                "subscription": "both",
                "ask": False,
                "approved": False,
                "groups_json": b"[]",
                "ver": 1,
            }
            for number in range(start, min(start + 200, people))
            for contact in contacts_of(number, people)
        ]
        async with store.database.write() as connection:
            await connection.execute(insert(roster), rows)
    await store.close()


@contextlib.contextmanager
def workers(folder: Path, database: str, people: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two workers with a bus and a database of their own; everybody comes from 127.0.0.1, which no limit holds for."""
    with contextlib.ExitStack() as stack:
        url = f"sqlite:///{folder}/nestbox.db"
        for name in ("m", "v"):
            (folder / name).mkdir()
        if database == "mariadb":
            maria = MariaDB(folder / "m")
            stack.callback(maria.stop)
            url = maria.create()
        bus = Valkey(folder / "v")
        stack.callback(bus.stop)
        config = folder / "nestbox.yml"
        config.write_text(
            f"domain: {DOMAIN}\nstate_dir: {folder}\nworkers: {WORKERS}\n"
            f"database: {{url: '{url}'}}\nbus: {{url: '{bus.url}'}}\n"
            "tls: {require: false}\nlog: {level: warning}\n"
            f"listen: {{http: 'unix:{folder}/{{worker}}-http.sock', c2s: '', metrics: 'unix:{folder}/{{worker}}-metrics.sock', "
            f"c2s_tls: 'unix:{folder}/{{worker}}.sock'}}\n"
        )
        asyncio.run(create(url, people))
        started = []
        for number in range(1, WORKERS + 1):
            process = subprocess.Popen([sys.executable, "-m", "nestbox", "--config", config, "--worker", str(number)])
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
            started.append(process)
        deadline = time.monotonic() + 60
        while not all((folder / f"{number}.sock").exists() for number in range(1, WORKERS + 1)):
            if time.monotonic() > deadline:
                raise SystemExit("bench: the workers did not start")
            time.sleep(0.05)
        # Each is alone on its core while it has something to do, else its loop waits for the 4,000 clients' (bench/README.md).
        for process, core in zip(started, cycle(sorted(os.sched_getaffinity(0)))):
            favour([process.pid], core)
        yield started


def metrics(folder: Path, worker: int) -> str:
    """The metrics page of a worker."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(f"{folder}/{worker}-metrics.sock")
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: sock.recv(65536), b"")).decode()


def lag(before: str, after: str) -> tuple[float, float]:
    """The 99th percentile (the upper bound of its bucket) and the worst lag between two metrics pages, in ms."""
    counts = [
        (float(bound), float(new) - float(old))
        for (bound, new), (_, old) in zip(_BUCKET.findall(after), _BUCKET.findall(before), strict=True)
    ]
    p99 = next(bound for bound, count in counts if count >= 0.99 * counts[-1][1])
    assert all(a <= b for (_, a), (_, b) in pairwise(counts))
    return p99 * 1e3, float(_WORST.search(after)[1]) * 1e3


async def storm(folder: Path, people: int, websocket: bool) -> tuple[float, float, int]:
    """Seconds until the last was in, and until all had seen each other or nothing more came; presences lost."""
    loop = asyncio.get_running_loop()
    everybody = [Person(number, websocket) for number in range(people)]
    name = "-http.sock" if websocket else ".sock"
    begin = time.monotonic()

    async def come(number: int, person: Person) -> None:
        await loop.create_unix_connection(lambda: person, f"{folder}/{number % WORKERS + 1}{name}")
        if websocket:
            await person.upgrade()
        await person.authenticate(PASSWORD)
        await person.start()

    await asyncio.gather(*(come(number, person) for number, person in enumerate(everybody)))
    online = time.monotonic() - begin

    def lost() -> int:
        return sum(len(set(contacts_of(number, people)) - person.seen) for number, person in enumerate(everybody))

    last, still = lost(), 0
    while last and still < 10:
        await asyncio.sleep(0.3)
        now = lost()
        still = still + 1 if now == last else 0
        last = now
    settled = time.monotonic() - begin
    await asyncio.sleep(1)
    for person in everybody:
        person.close()
    return online, settled, last


def measure_storm(database: str, people: int, websocket: bool) -> dict[str, object]:
    """One storm on servers of its own."""
    with tempfile.TemporaryDirectory(prefix="storm-") as name, workers(Path(name), database, people) as processes:
        folder = Path(name)
        time.sleep(1)
        before = [metrics(folder, number) for number in range(1, WORKERS + 1)]
        cpu = [cpu_seconds(process.pid) for process in processes]
        online, settled, missed = asyncio.run(storm(folder, people, websocket))
        after = [metrics(folder, number) for number in range(1, WORKERS + 1)]
        return {
            "online": online,
            "settled": settled,
            "lost": missed,
            "cpu": [cpu_seconds(process.pid) - used for process, used in zip(processes, cpu, strict=True)],
            "lag": [lag(*pages) for pages in zip(before, after, strict=True)],
        }


def print_storm(people: int) -> None:
    """The table of a power cut's end."""
    print(
        f"\n## A power cut's end\n\n{people} people with {CONTACTS} contacts each log in at once, on {WORKERS} workers\n"
    )
    print(
        "| database, transport | all online after | all seen after | CPU s per worker | lag p99 / worst ms per worker | lost |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for database, websocket in ROWS:
        name = f"Nestbox, {database}, {'WebSocket' if websocket else 'TCP'}"
        row = measure_storm(database, people, websocket)
        cpu = ", ".join(f"{used:.1f}" for used in row["cpu"])
        lags = ", ".join(f"{p99:.0f} / {worst:.0f}" for p99, worst in row["lag"])
        print(
            f"| {name} | {row['online']:.1f} s | {row['settled']:.1f} s | {cpu} | {lags} | {row['lost']} |",
            flush=True,
        )

"""A live server: several worker processes on one bus and one database, and slixmpp as somebody else's client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from slixmpp import ClientXMPP

from nestbox.store import open_store
from tests.databases import *  # noqa: F403

DOMAIN = "nestbox.test"
WORKERS = 4
PEOPLE = ("anna", "ben", "cleo")
PASSWORD = "correct horse"
COMPONENTS = ("echo.nestbox.test", "push.nestbox.test")
SECRET = "correct-horse-battery"


# In a random order, each once: two of one run are never the same, however many its processes; two of runs side by side
# hardly ever.
_process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_numbers = range(20_000 + _process, 32_000, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
_ports = iter(random.sample(_numbers, len(_numbers)))


def free_port() -> int:
    """A TCP port of loopback that nobody listens on, below those that the kernel gives to outgoing connections."""
    for port in _ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no TCP port of loopback is free")


class Worker:
    """One worker process; ``port`` speaks XMPP with STARTTLS, ``http`` HTTP, ``component`` XMPP with components."""

    def __init__(self, number: int, config: Path, port: int, http: int, log: Path, component: int = 0) -> None:
        self.number, self.port, self.http, self.component = number, port, http, component
        self._config, self._log = config, log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it says that it is well."""
        self.begin()
        self.wait()

    def begin(self) -> None:
        """Start it."""
        command = [sys.executable, "-m", "nestbox", "--worker", str(self.number), "--config", str(self._config)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def wait(self) -> None:
        """Wait until it says that it is well."""
        deadline = time.monotonic() + 30
        while not self._well():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"worker {self.number} did not start:\n{self._log.read_text()[-3000:]}")
            time.sleep(0.02)

    def _well(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/healthz", timeout=1) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it, politely or not."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None


class Cluster:
    """``workers`` of one server; ``log`` has what they said."""

    def __init__(self, folder: Path, database: str, bus: str, certificate: Path, key: Path) -> None:
        self.database = database
        self.config = folder / "nestbox.yml"
        self.log = folder / "log"
        self.certificate = certificate
        ports = {number: (free_port(), free_port(), free_port()) for number in range(1, WORKERS + 1)}
        components = ", ".join(f"{{host: {host}, secret: {SECRET}}}" for host in COMPONENTS)
        self.workers = []
        for number, (port, http, component) in ports.items():
            config = folder / f"worker-{number}.yml"
            config.write_text(
                f"domain: {DOMAIN}\nworkers: {WORKERS}\nstate_dir: {folder}\n"
                f"database: {{url: '{database}'}}\nbus: {{url: '{bus}'}}\n"
                f"tls: {{certificate: {certificate}, key: {key}}}\ncomponents: [{components}]\n"
                f"listen: {{http: '127.0.0.1:{http}', c2s: '127.0.0.1:{port}', c2s_tls: '', metrics: '', "
                f"component: '127.0.0.1:{component}', proxy_protocol: false}}\n"
            )
            self.workers.append(Worker(number, config, port, http, self.log, component))

    def __getitem__(self, number: int) -> Worker:
        return self.workers[number - 1]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for the domain, signed by itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    options = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = ["-subj", f"/CN={DOMAIN}", "-addext", f"subjectAltName=DNS:{DOMAIN}"]
    command = ["openssl", "req", *options.split(), *names, "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


@pytest.fixture
async def cluster(
    tmp_path: Path, database_url: str, valkey: object, certificate: tuple[Path, Path]
) -> AsyncIterator[Cluster]:
    """A running server with the accounts of `PEOPLE`, on each kind of database in turn."""
    store = await open_store(database_url)
    await store.migrate()
    await store.accounts.create(PEOPLE[0], PASSWORD)
    keys = (await store.accounts.get(PEOPLE[0])).keys
    await store.accounts.create_many([(name, keys) for name in PEOPLE[1:]])
    await store.close()
    cluster = Cluster(tmp_path, database_url, valkey.url, *certificate)
    try:
        for worker in cluster.workers:
            worker.begin()
        for worker in cluster.workers:
            worker.wait()
        yield cluster
    finally:
        for worker in cluster.workers:
            worker.end()
    # What a worker could not explain is a fault, whatever the clients saw.
    assert "Traceback" not in cluster.log.read_text(), cluster.log.read_text()


class Person(ClientXMPP):
    """A slixmpp client that keeps what it gets: ``messages``, ``copies``, ``presences`` (``seen``: those looked at)."""

    def __init__(self, name: str, resource: str, cluster: Cluster) -> None:
        super().__init__(f"{name}@{DOMAIN}/{resource}", PASSWORD)
        self.ca_certs = str(cluster.certificate)
        self.cluster = cluster
        self.messages: asyncio.Queue = asyncio.Queue()
        self.presences: asyncio.Queue = asyncio.Queue()
        self.copies: asyncio.Queue = asyncio.Queue()
        self.seen: list = []
        self.online = asyncio.Event()
        self.failed = asyncio.Event()
        for plugin in ("xep_0030", "xep_0198", "xep_0199", "xep_0203", "xep_0280", "xep_0313", "xep_0359"):
            self.register_plugin(plugin)
        self.auto_authorize = None
        self.add_event_handler("session_start", self._begin)
        self.add_event_handler("session_resumed", lambda event: self.online.set())
        self.add_event_handler("message", lambda message: self._keep(self.messages, message))
        for event in ("carbon_received", "carbon_sent"):
            self.add_event_handler(event, self.copies.put_nowait)
        self.add_event_handler("failed_all_auth", lambda event: self.failed.set())
        for event in ("presence_available", "presence_unavailable", "presence_subscribe", "presence_subscribed"):
            self.add_event_handler(event, self.presences.put_nowait)

    @staticmethod
    def _keep(queue: asyncio.Queue, message: object) -> None:
        if message["body"]:
            queue.put_nowait(message)

    async def _begin(self, event: object) -> None:
        await self.get_roster()
        self.send_presence()
        self.online.set()

    async def come(self, worker: int) -> Person:
        """Connect to a worker, as HAProxy might have chosen it, and be online there."""
        self.online.clear()
        self.connect("127.0.0.1", self.cluster[worker].port)
        await asyncio.wait_for(self.online.wait(), 15)
        return self

    async def lose(self) -> None:
        """Lose the connection, as in a tunnel."""
        self.abort()
        await self.wait_until("disconnected", 10)

    async def leave(self) -> None:
        """Close the stream and wait until it is closed."""
        if self.transport is not None:
            await self.disconnect()

    async def next_message(self, seconds: float = 10) -> object:
        """The next message with a body."""
        return await asyncio.wait_for(self.messages.get(), seconds)

    async def is_known_to(self, friend: Person) -> None:
        """Wait until the friend's worker knows that this one is available: messages come straight, not by the store."""
        while True:
            friend.send_message(self.boundjid.bare, "are you there?")
            if (await self.next_message())["delay"]["stamp"] is None:
                return

    async def await_presence(self, sender: str, kind: str) -> object:
        """Wait for a presence of this type from this address (bare or full)."""
        async with asyncio.timeout(30):
            while True:
                presence = await self.presences.get()
                self.seen.append(presence)
                if sender in (presence["from"].bare, presence["from"].full) and presence["type"] == kind:
                    return presence


@pytest.fixture
async def person(cluster: Cluster) -> AsyncIterator[object]:
    """``await person("anna", 1)``: somebody online at worker 1; all leave at the end."""
    people: list[Person] = []

    async def come(name: str, worker: int, resource: str = "phone") -> Person:
        somebody = Person(name, resource, cluster)
        people.append(somebody)
        return await somebody.come(worker)

    yield come
    for somebody in people:
        await somebody.leave()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """slixmpp logs each stanza and warns about its own way of reaching plugins."""
    logging.getLogger("slixmpp").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield

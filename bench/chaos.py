"""Kill workers, Valkey and MariaDB under load, and see whether what was acknowledged is there: once, and in order.

Pairs of clients chat with stream management (XEP-0198) over TCP and WebSocket; each message carries its sender and a
number. Whoever loses its connection comes back on any worker, resumes where it can and sends again what was not
acknowledged, as a good client does. At the end every acknowledged message must be in the recipient's archive.

What is reported beside that: stanzas that a client was given twice under one stanza id, and messages that stand in the
archive under two ids: those were sent again by their client, since nobody had acknowledged them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from itertools import pairwise
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, XMLPullParser

from load import Client
from peers import DOMAIN, PASSWORD, users
from peers.nestbox import create_accounts

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "app" / "tests"))
from databases import MariaDB, Valkey
from nestbox.store import open_store

SM = "urn:xmpp:sm:3"
STANZAS = ("{jabber:client}message", "{jabber:client}presence", "{jabber:client}iq")
STANZA_ID = "{urn:xmpp:sid:0}stanza-id"
ROOT = b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
SERVER = ("-m", "nestbox")
# Acknowledges before the commit: the promise that all this is about is broken, and must be seen to be.
_BREAK = """
from nestbox.__main__ import main
from nestbox.core.session import Session

def at_once(session, committed):
    session.pending = None
    return session.received

Session._durable = at_once
main()
"""
BROKEN = ("-c", _BREAK)
BODY = re.compile(rb"<body>(\w+) (\d+)</body>")
AWAY = (ConnectionError, OSError, TimeoutError, ParseError)


class Link(Client):
    """One connection of a `Person`: once it is online, elements go there."""

    def __init__(self, person: Person, websocket: bool) -> None:
        super().__init__(person.user, DOMAIN, websocket=websocket, proxy=not websocket)
        self.person = person
        self.lost = asyncio.Event()
        self._parser: XMLPullParser | None = None
        self._depth = 0
        self._frames = b""

    def begin(self) -> None:
        """From now on what comes is parsed."""
        self._parser = XMLPullParser(("start", "end"))
        self._parser.feed(ROOT)
        list(self._parser.read_events())
        rest, self._buffer = self._buffer, b""
        self.data_received(rest)

    def data_received(self, data: bytes) -> None:
        """Bytes of the log-in, or of the session."""
        if self._parser is None:
            super().data_received(data)
            return
        self._parser.feed(self._unframed(data) if self.websocket else data)
        for event, element in self._parser.read_events():
            self._depth += 1 if event == "start" else -1
            if event == "end" and self._depth == 0:
                self.person.got(self, element)

    def _unframed(self, data: bytes) -> bytes:
        self._frames += data
        out = b""
        while len(self._frames) > 1:
            length, start = self._frames[1], 2
            if length == 126:
                length, start = int.from_bytes(self._frames[2:4], "big"), 4
            elif length == 127:
                length, start = int.from_bytes(self._frames[2:10], "big"), 10
            if len(self._frames) < start + length:
                break
            if self._frames[0] == 0x81:
                out += self._frames[start : start + length]
            self._frames = self._frames[start + length :]
        return out

    def connection_lost(self, exc: Exception | None) -> None:
        """Somebody was killed."""
        self.lost.set()
        super().connection_lost(exc or ConnectionError("closed"))

    def hang_up(self) -> None:
        """Leave without a word."""
        if self._transport is not None:
            self._transport.abort()


class Person:
    """A user and what it knows: what it sent (``acknowledged`` numbers), and what it was given."""

    def __init__(self, user: str, peer: str, websocket: bool, cluster: Cluster) -> None:
        self.user, self.peer, self.websocket, self.cluster = user, peer, websocket, cluster
        self.link: Link | None = None
        self.number = 0
        self.unacked: deque[tuple[int | None, str]] = deque()
        self.acknowledged: set[int] = set()
        self.given: Counter[str] = Counter()  # stanza id -> how often
        self.seen = 0  # the server's h
        self.handled = 0  # ours
        self.stream_id = ""
        self.resumed = self.renewed = 0

    async def live(self) -> None:
        """Be online until cancelled."""
        while True:
            link = None
            try:
                async with asyncio.timeout(30):
                    link = await self._connect()
                await link.lost.wait()
            except AWAY:
                await asyncio.sleep(0.2)
            finally:
                self.link = None
                if link is not None:
                    link.hang_up()

    async def _connect(self) -> Link:
        link = Link(self, self.websocket)
        worker = random.choice(self.cluster.workers)
        await asyncio.get_running_loop().create_unix_connection(
            lambda: link, str(worker.http if self.websocket else worker.c2s)
        )
        if self.websocket:
            await link.upgrade()
        await link.authenticate(PASSWORD)
        link.open_stream()
        await link.expect(rb"</stream:features>|</features>")
        if self.stream_id and await self._resume(link):
            self.resumed += 1
        else:
            await self._renew(link)
        self.link = link
        link.begin()
        for _, stanza in self.unacked:
            link.send_stanza(stanza)
        link.send(f"<r xmlns='{SM}'/>")
        return link

    async def _resume(self, link: Link) -> bool:
        link.send(f"<resume xmlns='{SM}' previd='{self.stream_id}' h='{self.handled}'/>")
        answer = (await link.expect(rb"<resumed [^>]*>|<failed .*?</failed>"))[0]
        found = re.search(rb"<resumed [^>]*h=['\"](\d+)", answer)
        if found is not None:
            self._acknowledge(int(found[1]))
        return found is not None

    async def _renew(self, link: Link) -> None:
        link.send_stanza(
            "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>c</resource></bind></iq>"
        )
        await link.expect(rb"<jid>.*?</iq>")
        link.send(f"<enable xmlns='{SM}' resume='true'/>")
        self.stream_id = (await link.expect(rb"<enabled [^>]*?id=['\"]([^'\"]*)['\"][^>]*>"))[1].decode()
        self.renewed += 1
        self.seen = self.handled = 0
        self.unacked.appendleft((None, "<presence id='p'/>"))

    def got(self, link: Link, element: Element) -> None:
        """An element of the session."""
        if link is not self.link:
            return
        if element.tag in STANZAS:
            self.handled += 1
            for child in element.iterfind(STANZA_ID):
                self.given[child.get("id", "")] += 1
        elif element.tag == f"{{{SM}}}r":
            link.send(f"<a xmlns='{SM}' h='{self.handled}'/>")
        elif element.tag == f"{{{SM}}}a":
            self._acknowledge(int(element.get("h", "0")))

    def _acknowledge(self, h: int) -> None:
        if h - self.seen > len(self.unacked):
            raise SystemExit(f"chaos: {self.user} sent {self.seen + len(self.unacked)} stanzas, {h} are acknowledged")
        for _ in range(h - self.seen):
            number, _ = self.unacked.popleft()
            if number is not None:
                self.acknowledged.add(number)
        self.seen = max(self.seen, h)

    def say(self) -> None:
        """One message more; it is sent now or when the connection is back."""
        self.number += 1
        body = f"<body>{self.user} {self.number}</body>"
        stanza = f"<message to='{self.peer}@{DOMAIN}' type='chat' id='{self.number}'>{body}</message>"
        self.unacked.append((self.number, stanza))
        if self.link is not None:
            self.link.send_stanza(stanza)
            self.link.send(f"<r xmlns='{SM}'/>")


class Worker:
    """One worker process."""

    def __init__(self, number: int, folder: Path, config: Path, server: tuple[str, ...]) -> None:
        self.name = f"worker {number}"
        self.c2s, self.http = folder / f"{number}-c2s.sock", folder / f"{number}-http.sock"
        self._command = [sys.executable, *server, "--worker", str(number), "--config", config]
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; the sockets are there when it is ready."""
        for path in (self.c2s, self.http):
            path.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.end(signal.SIGKILL)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def see_to(self) -> None:
        """What systemd does: start it again when it has ended by itself, as when its database was away at its start."""
        if self._process is not None and self._process.poll() is not None:
            self.start()


class Cluster:
    """Workers, bus and database."""

    def __init__(self, folder: Path, workers: int, sessions: int, database: str, broken: bool) -> None:
        self.folder = folder
        self.maria = MariaDB(_subfolder(folder, "m")) if database == "mariadb" else None
        self.valkey = Valkey(_subfolder(folder, "v"))
        self.url = self.maria.create() if self.maria is not None else f"sqlite:///{folder}/nestbox.db"
        config = folder / "nestbox.yml"
        config.write_text(
            f"domain: {DOMAIN}\nstate_dir: {folder}\nworkers: {workers}\n"
            f"database: {{url: '{self.url}', commit_window: {1.0 if broken else 0.02}}}\nbus: {{url: '{self.valkey.url}'}}\n"
            "tls: {require: false}\nlog: {level: warning}\n"
            f"listen: {{http: 'unix:{folder}/{{worker}}-http.sock', c2s: '', metrics: '', "
            f"c2s_tls: 'unix:{folder}/{{worker}}-c2s.sock'}}\n"
        )
        asyncio.run(create_accounts(self.url, sessions, 0))
        self.workers = [
            Worker(number, folder, config, BROKEN if broken else SERVER) for number in range(1, workers + 1)
        ]

    def start(self) -> None:
        """Start the workers."""
        for worker in self.workers:
            worker.start()

    def stop(self) -> None:
        """End everything that was started."""
        for worker in self.workers:
            worker.end()
        self.valkey.stop()
        if self.maria is not None:
            self.maria.stop()

    async def strike(self, chance: random.Random) -> str:
        """Kill one and start it again; which."""
        pause = chance.uniform(0.0, 1.5)
        victims = [*self.workers, *self.workers, self.valkey, *([self.maria] if self.maria is not None else [])]
        victim = chance.choice(victims)
        await asyncio.to_thread(victim.kill)
        await asyncio.sleep(pause)
        await asyncio.to_thread(victim.start)
        return getattr(victim, "name", type(victim).__name__)


def _subfolder(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


async def torment(cluster: Cluster, people: list[Person], kills: int, rate: float, seed: int) -> None:
    """Chat at ``rate`` messages per second in all while ``kills`` strikes fall, then let all come to rest."""
    chance = random.Random(seed)
    lives = [asyncio.create_task(person.live()) for person in people]
    for life in lives:
        life.add_done_callback(lambda done: done.cancelled() or done.result())
    await _until(lambda: all(person.link for person in people), 120, "everybody online", cluster)
    talking = asyncio.create_task(_talk(people, rate))
    for number in range(1, kills + 1):
        await asyncio.sleep(chance.uniform(0.5, 2.5))
        print(f"kill {number}/{kills}: {await cluster.strike(chance)}", flush=True)
        for worker in cluster.workers:
            worker.see_to()
    talking.cancel()
    await _until(
        lambda: all(person.link and not person.unacked for person in people),
        120,
        "every acknowledgement",
        cluster,
        people,
    )
    for life in lives:
        life.cancel()
    await asyncio.wait(lives)


async def _talk(people: list[Person], rate: float) -> None:
    begin, said = time.monotonic(), 0
    while True:
        while said < (time.monotonic() - begin) * rate:
            people[said % len(people)].say()
            said += 1
        await asyncio.sleep(0.01)


async def _until(condition, seconds: float, what: str, cluster: Cluster, people: list[Person] = ()) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            tail = (cluster.folder / "log").read_text(errors="replace")[-2000:]
            off = sum(person.link is None for person in people)
            owed = sum(len(person.unacked) for person in people)
            state = f"{off} of {len(people)} are not online, {owed} stanzas are not acknowledged"
            raise SystemExit(f"chaos: {what} did not come within {seconds:.0f} s: {state}; the workers said:\n{tail}")
        for worker in cluster.workers:
            worker.see_to()
        for person in people:
            if person.link is not None:
                person.link.send(f"<r xmlns='{SM}'/>")
        await asyncio.sleep(0.5)


async def judge(cluster: Cluster, people: list[Person]) -> dict[str, int]:
    """What became of the acknowledged messages."""
    verdict = Counter(dict.fromkeys(("acknowledged", "lost", "out of order", "given twice", "sent again"), 0))
    store = await open_store(cluster.url)
    try:
        for person in people:
            kept = await _archived(store, person.peer, person.user)
            verdict["acknowledged"] += len(person.acknowledged)
            verdict["lost"] += len(person.acknowledged - set(kept))
            first = list(dict.fromkeys(kept))
            verdict["out of order"] += sum(a > b for a, b in pairwise(first))
            verdict["sent again"] += len(kept) - len(first)
            verdict["given twice"] += sum(count - 1 for count in person.given.values())
            verdict["resumed"] += person.resumed
            verdict["logged in anew"] += person.renewed - 1
    finally:
        await store.close()
    return dict(verdict)


async def _archived(store, owner: str, sender: str) -> list[int]:
    owner_id = (await store.accounts.get(owner)).id
    numbers: list[int] = []
    after = None
    while True:
        page = await store.archive.query(owner_id, with_=f"{sender}@{DOMAIN}", after=after, limit=1000)
        for row in page.rows:
            found = BODY.search(row.stanza)
            if found is not None and found[1].decode() == sender:
                numbers.append(int(found[2]))
        if page.complete or not page.rows:
            return numbers
        after = page.rows[-1].id


def run(
    *, kills: int, seed: int, sessions: int, rate: float, workers: int, database: str, broken: bool
) -> dict[str, int]:
    """One run on a cluster of its own; the verdict."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, contextlib.ExitStack() as stack:
        cluster = Cluster(Path(folder), workers, sessions, database, broken)
        stack.callback(cluster.stop)
        cluster.start()
        names = users(sessions)
        people = [Person(name, names[index ^ 1], index % 4 > 1, cluster) for index, name in enumerate(names)]
        random.seed(seed)
        asyncio.run(torment(cluster, people, kills, rate, seed))
        return asyncio.run(judge(cluster, people))


def main() -> None:
    """Read the options, run, and say what became of the messages; the exit status is 1 when the promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sessions", type=int, default=500, help="an even number")
    parser.add_argument("--rate", type=float, default=500.0, help="messages per second in all")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--database", choices=("mariadb", "sqlite"), default="mariadb")
    parser.add_argument("--broken", action="store_true", help="acknowledge before the commit, to see that it is caught")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    verdict = run(**vars(options))
    for name, count in verdict.items():
        print(f"{count:>8} {name}")
    sys.exit(1 if verdict["lost"] or verdict["out of order"] or verdict["given twice"] else 0)


if __name__ == "__main__":
    main()

"""Kill workers, HAProxy, Valkey and MariaDB under load: what was acknowledged must be there, once, and in order.

Pairs of clients chat with stream management (XEP-0198) through HAProxy, half of them over TCP and half over WebSocket;
each message carries its sender and a number. Whoever loses its connection comes back, resumes where it can and sends
again what was not acknowledged, as a good client does. At the end every acknowledged message must be in the recipient's
archive, none may have been given twice or sent back with an error, and no acknowledgement may have been withdrawn.

What is reported beside that: messages that their recipient was given under two ids, and those that stand in the archive
under two: sent again by their client, since nobody had acknowledged them. And messages that are only in the archive:
their recipient, whose session went on, was not given them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from chaos_cluster import Cluster
from chaos_people import BODY, SM, Person
from nestbox.store import open_store
from peers import DOMAIN, users

PROMISES = ("lost", "refused", "out of order", "given twice", "taken back")
SETTLE_SECONDS = 20  # in which the last messages reach their recipients


async def torment(cluster: Cluster, people: list[Person], kills: int, rate: float, seed: int) -> None:
    """Chat at ``rate`` messages per second in all while ``kills`` strikes fall, then let all come to rest."""
    chance = random.Random(seed)
    lives = [asyncio.create_task(person.live()) for person in people]
    for life in lives:
        life.add_done_callback(lambda done: done.cancelled() or done.result())
    await _until(lambda: all(person.link for person in people), 120, "everybody online", cluster, people)
    talking = asyncio.create_task(_talk(people, rate))
    for number, victim in zip(range(1, kills + 1), cluster.victims(chance), strict=False):
        await asyncio.sleep(chance.uniform(0.5, 2.5))
        print(f"kill {number}/{kills}: {await cluster.strike(victim, chance.uniform(0.0, 1.5))}", flush=True)
        cluster.see_to()
    talking.cancel()
    await _until(
        lambda: all(person.link and not person.unacked for person in people),
        120,
        "every acknowledgement",
        cluster,
        people,
    )
    with contextlib.suppress(TimeoutError):  # what did not come is counted
        async with asyncio.timeout(SETTLE_SECONDS):
            while any(person.acknowledged - peer.heard.keys() for person, peer in _pairs(people)):
                await asyncio.sleep(0.2)
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


async def _until(
    condition: Callable[[], bool], seconds: float, what: str, cluster: Cluster, people: Sequence[Person]
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            off = sum(person.link is None for person in people)
            owed = sum(len(person.unacked) for person in people)
            state = f"{off} of {len(people)} are not online, {owed} stanzas are not acknowledged"
            raise SystemExit(f"chaos: {what} did not come within {seconds:.0f} s: {state}; it said:\n{cluster.said()}")
        cluster.see_to()
        for person in people:
            if person.link is not None:
                person.link.send(f"<r xmlns='{SM}'/>")
        await asyncio.sleep(0.5)


def _pairs(people: Sequence[Person]) -> list[tuple[Person, Person]]:
    return [(person, people[index ^ 1]) for index, person in enumerate(people)]


async def judge(cluster: Cluster, people: Sequence[Person]) -> dict[str, int]:
    """What became of the acknowledged messages."""
    verdict = Counter(dict.fromkeys(("acknowledged", *PROMISES), 0))
    store = await open_store(cluster.url)
    try:
        for person, peer in _pairs(people):
            kept = await _archived(store, peer.user, person.user)
            first = list(dict.fromkeys(kept))
            verdict["acknowledged"] += len(person.acknowledged)
            verdict["lost"] += len(person.acknowledged - set(kept) - person.refused)
            verdict["refused"] += len(person.refused)
            verdict["out of order"] += _backward(first)
            verdict["given twice"] += sum(count - 1 for count in peer.given.values())
            verdict["taken back"] += person.taken_back
            verdict["given under two ids"] += sum(count - 1 for count in peer.heard.values())
            verdict["given out of order"] += _backward(list(peer.heard))
            verdict["in the archive under two ids"] += len(kept) - len(first)
            verdict["only in the archive"] += len(person.acknowledged - peer.heard.keys())
            verdict["resumed"] += person.resumed
            verdict["logged in anew"] += person.renewed - 1
    finally:
        await store.close()
    return dict(verdict)


def _backward(numbers: list[int]) -> int:
    return sum(a > b for a, b in pairwise(numbers))


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
        people = [
            Person(name, names[index ^ 1], websocket, cluster.http if websocket else cluster.c2s)
            for index, name in enumerate(names)
            for websocket in (index % 4 > 1,)
        ]
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
    sys.exit(1 if any(verdict[promise] for promise in PROMISES) else 0)


if __name__ == "__main__":
    main()

"""XEP-0198 over real connections: acknowledgements are true, sessions resume anywhere, nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import pytest
from harness import DOMAIN, World
from wire_client import WireClient, archived

from nestbox.config import Limits
from nestbox.core.resumption import PARKED
from nestbox.core.session import ASK_STANZAS
from nestbox.store.writers import Away

ALICE, BOB = f"alice@{DOMAIN}", f"bob@{DOMAIN}"
ENABLE_CARBONS = "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>"


class Gate:
    """Holds back the commits of worker 1, or lets them fail."""

    def __init__(self, world: World) -> None:
        self.committer = world.servers[1].store.committer
        self.open = asyncio.Event()
        self._write = self.committer._writer.write
        self.fail = False
        self.committer._writer.write = self._held

    async def _held(self, batch):
        await self.open.wait()
        if self.fail:
            raise Away("gone")
        return await self._write(batch)


@pytest.fixture
def limits() -> Limits:
    return Limits(unacked_stanzas=50)


@pytest.fixture
def config(config):
    config.bus.url = "redis://the-hub"  # what the workers share outlives them
    return config


@pytest.fixture
async def gate(world) -> AsyncIterator[Callable[[], Gate]]:
    """Makes a gate where the test wants it; it is open again at the end."""
    gates: list[Gate] = []

    def make() -> Gate:
        gates.append(Gate(world))
        return gates[-1]

    yield make
    for made in gates:
        made.fail = False
        made.open.set()


def sessions(world: World) -> list[tuple[int, str]]:
    return [(number, full) for number, server in world.servers.items() for full in server.registry.sessions]


# acknowledgements


async def test_nothing_is_acknowledged_before_it_is_committed(world, gate):
    await world.user("bob")
    alice = await WireClient.login(world, "alice")
    before = alice.acked
    gate = gate()
    alice.say(BOB, "1")
    alice.send("<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>")  # handled, but behind the message
    alice.ask()
    await alice.until(lambda: alice.stanzas)  # the pong
    assert alice.acked == before
    gate.open.set()
    await alice.until(lambda: not alice.unacked)
    assert await archived(world, "alice") == ["1"]


async def test_what_could_not_be_committed_is_asked_for_again(world, gate):
    await world.user("bob")
    alice = await WireClient.login(world, "alice")
    gate = gate()
    gate.fail = True
    gate.committer._give_up = 0.0
    gate.open.set()
    alice.say(BOB, "1")
    alice.ask()
    await alice.until(lambda: alice.pipe.closed)
    assert alice.error() == "internal-server-error"
    assert len(alice.unacked) == 1
    gate.fail = False
    assert await alice.resume(worker=1)
    await alice.answered()
    assert await archived(world, "alice") == ["1"]


async def test_a_client_that_acknowledges_too_much_is_sent_away(world):
    alice = await WireClient.login(world, "alice")
    alice.pipe.feed(b"<a xmlns='urn:xmpp:sm:3' h='99'/>")
    await alice.until(lambda: alice.pipe.closed)
    assert alice.error() == "undefined-condition"


async def test_a_client_that_resumes_with_too_much_finds_its_session_gone(world):
    alice = await WireClient.login(world, "alice")
    alice.vanish()
    await alice.connect(1)
    alice.pipe.feed(f"<resume xmlns='urn:xmpp:sm:3' previd='{alice.sm_id}' h='99'/>".encode())
    await alice.until(lambda: alice.pipe.closed)
    assert alice.error() == "undefined-condition"
    assert not await alice.resume(worker=1)


async def test_a_client_that_never_acknowledges_is_ended_and_its_messages_kept(world):
    alice = await world.client("alice")
    bob = await WireClient.login(world, "bob")
    bob.silent = True
    for number in range(60):
        await alice.send(f"<message to='{BOB}' type='chat'><body>{number}</body></message>")
    await bob.until(lambda: bob.pipe.closed)
    assert bob.error() == "resource-constraint"
    await world.settle()
    again = await WireClient.login(world, "bob", worker=2)
    await again.until(lambda: len(again.bodies) >= 60)
    assert sorted(again.bodies, key=int) == [str(number) for number in range(60)]


async def test_the_server_asks_when_much_is_open(world):
    alice = await world.client("alice")
    bob = await WireClient.login(world, "bob")
    for number in range(200):  # four times the limit: only acknowledgements in between make that possible
        await alice.send(f"<message to='{BOB}' type='chat'><body>{number}</body></message>")
        await bob.until(lambda number=number: len(bob.bodies) > number)
    assert bob.bodies == [str(number) for number in range(200)]
    assert not bob.pipe.closed


async def test_one_question_is_for_all_that_comes_within_its_time(world, monkeypatch):
    """Else a client of a busy room would answer each message; this one has had its questions ahead."""
    monkeypatch.setattr("nestbox.core.session.ASK_AHEAD", 0)
    monkeypatch.setattr("nestbox.core.session.ASK_SECONDS", 2)
    alice, bob = await world.client("alice"), await WireClient.login(world, "bob")
    session = world.servers[1].registry.sessions[bob.jid]
    for number in range(4):
        await alice.send(f"<message to='{BOB}' type='chat'><body>{number}</body></message>")
        await bob.until(lambda number=number: len(bob.bodies) > number)
    await world.settle()
    asked = bob.questions
    assert len(session.sm) >= 3
    await bob.until(lambda: bob.questions > asked)
    await world.settle()
    assert not len(session.sm) and bob.questions == asked + 1


async def test_whoever_has_few_stanzas_is_asked_after_each(world):
    """An app that is closed right after a message has acknowledged it, and is not given it again."""
    alice, bob = await world.client("alice"), await WireClient.login(world, "bob")
    session = world.servers[1].registry.sessions[bob.jid]
    for number in range(5):
        await alice.send(f"<message to='{BOB}' type='chat'><body>{number}</body></message>")
        await bob.until(lambda number=number: len(bob.bodies) > number)
        await world.settle()
        assert not len(session.sm)


async def test_in_the_long_run_there_is_one_question_a_second(world, monkeypatch):
    monkeypatch.setattr("nestbox.core.session.ASK_AHEAD", 3)
    monkeypatch.setattr("nestbox.core.session.ASK_STANZAS", 1000)
    alice, bob = await world.client("alice"), await WireClient.login(world, "bob")
    before, begin = bob.questions, asyncio.get_running_loop().time()
    for number in range(40):
        await alice.send(f"<message to='{BOB}' type='chat'><body>{number}</body></message>")
        await bob.until(lambda number=number: len(bob.bodies) > number)
        await world.settle()
    assert 1 <= bob.questions - before <= 5 + asyncio.get_running_loop().time() - begin


async def test_the_server_asks_sooner_when_much_is_open_at_once(world, monkeypatch):
    monkeypatch.setattr("nestbox.core.session.ASK_AHEAD", 0)
    monkeypatch.setattr("nestbox.core.session.ASK_SECONDS", 3600)
    alice, bob = await world.client("alice"), await WireClient.login(world, "bob")
    session = world.servers[1].registry.sessions[bob.jid]
    for number in range(3 * ASK_STANZAS):
        await alice.send(f"<message to='{BOB}' type='chat'><body>{number}</body></message>")
        await bob.until(lambda number=number: len(bob.bodies) > number)
    await world.settle()
    assert len(session.sm) < ASK_STANZAS and bob.questions <= 4
    # What was asked out of turn does not put the next question off for longer.
    assert session.ask_at <= asyncio.get_running_loop().time() + 3600


# resumption


@pytest.mark.parametrize("worker", [1, 2])
async def test_a_session_resumes(world, worker):
    alice = await world.client("alice", worker=2)
    bob = await WireClient.login(world, "bob")
    bob.silent = True
    await alice.send(f"<message to='{BOB}' type='chat'><body>1</body></message>")
    await bob.until(lambda: bob.bodies == ["1"])
    bob.vanish()
    await world.settle()
    for body in "23":
        await alice.send(f"<message to='{bob.jid}' type='chat'><body>{body}</body></message>")
    await alice.nothing()  # no error, no unavailable presence
    assert await bob.resume(worker)
    await world.settle()
    assert bob.bodies == ["1", "2", "3"]
    assert sessions(world).count((worker, bob.jid)) == 1 and len([s for s in sessions(world) if s[1] == bob.jid]) == 1
    await alice.send(f"<message to='{BOB}' type='chat'><body>4</body></message>")
    await bob.until(lambda: bob.bodies == ["1", "2", "3", "4"])
    assert world.servers[worker].counts.resumed == 1
    assert await archived(world, "bob") == ["1", "2", "3", "4"]


async def test_it_keeps_what_it_was(world):
    """Carbons, presence and the roster's interest move along."""
    alice = await world.client("alice")
    desk = await world.client("bob", "desk")
    phone = await WireClient.login(world, "bob")
    phone.send(ENABLE_CARBONS)
    phone.send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>")
    phone.send("<presence><priority>3</priority></presence>")
    await phone.answered()
    phone.vanish()
    assert await phone.resume(worker=2)
    await world.settle()
    await alice.send(f"<message to='{desk.jid}' type='chat'><body>copy me</body></message>")
    await phone.until(lambda: any(s.find("{urn:xmpp:carbons:2}received") is not None for s in phone.stanzas))
    entry = world.servers[1].registry.of(BOB)["wire"]
    assert (entry.worker, entry.priority, entry.carbons) == (2, 3, True)
    assert world.servers[2].registry.sessions[phone.jid].interested


async def test_what_the_server_has_not_handled_is_sent_again_and_is_there_once(world, gate):
    await world.user("bob")
    alice = await WireClient.login(world, "alice")
    gate = gate()
    alice.say(BOB, "1")  # handled, not committed: the client cannot know
    alice.vanish()
    alice.say(BOB, "2")  # never got there
    resuming = asyncio.ensure_future(alice.resume(worker=2))
    await asyncio.sleep(0.05)
    assert not resuming.done()  # what it is told must be true
    gate.open.set()
    assert await resuming
    await alice.answered()
    assert await archived(world, "alice") == ["1", "2"]


async def test_a_stanza_still_being_handled_is_not_asked_for_again(world, monkeypatch):
    """The connection is lost while a message waits for its recipient to be read from the store."""
    await world.user("bob")
    alice = await WireClient.login(world, "alice")
    users = world.servers[1].users
    load, gate = users.load, asyncio.Event()

    async def slow(name):
        if name == "bob":
            await gate.wait()
        return await load(name)

    monkeypatch.setattr(users, "load", slow)
    users._recent.pop("bob", None)
    users._live.pop("bob", None)
    alice.say(BOB, "1")
    alice.say(BOB, "2")  # waits in the old connection's stream and must stay there
    alice.vanish()
    resuming = asyncio.ensure_future(alice.resume(worker=2))
    await asyncio.sleep(0.05)
    assert not resuming.done()
    gate.set()
    assert await resuming
    await alice.answered()
    assert await archived(world, "alice") == ["1", "2"]


@pytest.mark.parametrize("worker", [1, 2])
async def test_resuming_while_the_old_connection_still_stands(world, worker):
    alice = await WireClient.login(world, "alice")
    await world.user("bob")
    old = alice.pipe
    assert await alice.resume(worker)
    assert old.closed
    old.closed = False  # something was still on its way
    old.connection.data_received(f"<message to='{BOB}' type='chat'><body>late</body></message>".encode())
    alice.say(BOB, "1")
    await alice.answered()
    assert await archived(world, "alice") == ["1"]


async def test_two_workers_asked_at_once_give_it_to_one(world):
    carol = await world.client("carol")
    bob = await WireClient.login(world, "bob")
    twin = WireClient(world, "bob")
    twin.sm_id, twin.handled, twin.acked = bob.sm_id, bob.handled, bob.acked
    bob.vanish()
    await world.start_worker(3)
    results = await asyncio.gather(bob.resume(worker=2), twin.resume(worker=3))
    await world.settle()
    assert len([full for _, full in sessions(world) if full == bob.jid]) == 1
    alive = [client for client, ok in zip((bob, twin), results, strict=True) if ok and not client.pipe.closed]
    assert len(alive) == 1
    await carol.send(f"<message to='{BOB}' type='chat'><body>hi</body></message>")
    await alive[0].until(lambda: alive[0].bodies == ["hi"])


async def test_one_worker_asked_twice_gives_it_to_one(world):
    bob = await WireClient.login(world, "bob")
    twin = WireClient(world, "bob")
    twin.sm_id, twin.handled, twin.acked = bob.sm_id, bob.handled, bob.acked
    bob.vanish()
    results = await asyncio.gather(bob.resume(worker=2), twin.resume(worker=2))
    await world.settle()
    assert any(results)
    assert [s for s in sessions(world) if s[1] == bob.jid] == [(2, bob.jid)]
    assert [bob.pipe.closed, twin.pipe.closed].count(False) == 1 + results.count(False)


@pytest.mark.parametrize("worker", [1, 2])
async def test_nobody_resumes_the_session_of_another(world, worker):
    bob = await WireClient.login(world, "bob")
    thief = await WireClient.login(world, "mallory")
    await thief.leave()
    thief.sm_id, thief.handled = bob.sm_id, bob.handled
    assert not await thief.resume(worker)
    assert not bob.pipe.closed
    bob.send("<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>")
    await bob.answered()


async def test_a_session_that_is_gone_is_said_to_be_gone_at_once(world):
    bob = await WireClient.login(world, "bob")
    await bob.leave()
    started = asyncio.get_running_loop().time()
    assert not await bob.resume(worker=2)
    assert asyncio.get_running_loop().time() - started < 1.0
    await bob.bind("wire")  # the same stream may go on with a new session


async def test_a_message_that_follows_a_session_to_another_worker_arrives(world):
    """Sent while the session moves: the sender's worker still thinks it is where it was."""
    alice = await world.client("alice", worker=2)
    bob = await WireClient.login(world, "bob")
    bob.vanish()
    await world.start_worker(3)
    resuming = asyncio.ensure_future(bob.resume(worker=3))
    while not world.servers[3].resumption._claims and not resuming.done():  # noqa: ASYNC110
        await asyncio.sleep(0)
    number = 0
    while not resuming.done() and number < 40:
        for _ in range(3):
            await alice.send(f"<message to='{bob.jid}' type='chat'><body>{number}</body></message>")
            number += 1
        await asyncio.sleep(0)
    assert await resuming
    await world.settle()
    assert bob.bodies == [str(n) for n in range(number)]
    assert number


async def test_sessions_outlive_their_worker(world):
    alice = await world.client("alice", worker=2)
    bob = await WireClient.login(world, "bob")
    bob.silent = True
    await alice.send(f"<message to='{BOB}' type='chat'><body>1</body></message>")
    await bob.until(lambda: bob.bodies == ["1"])
    bob.acknowledge()
    stopping = asyncio.ensure_future(world.servers[1].stop())
    await alice.send(f"<message to='{BOB}' type='chat'><body>2</body></message>")  # before it has heard
    await bob.until(lambda: bob.pipe.closed)
    assert bob.error() is None  # it looks like a lost connection, after which every client resumes
    await stopping
    await world.servers[1].bus.close()
    await alice.send(f"<message to='{BOB}' type='chat'><body>3</body></message>")
    assert await bob.resume(worker=2)
    await bob.until(lambda: len(bob.bodies) == 3)
    await world.settle()
    assert bob.bodies == ["1", "2", "3"]
    assert not world.hub.hashes.get(PARKED)
    assert await archived(world, "bob") == ["1", "2", "3"]


async def test_a_resumption_that_meets_a_stopping_worker_succeeds(world):
    bob = await WireClient.login(world, "bob")
    bob.vanish()
    await world.settle()
    _, resumed = await asyncio.gather(world.servers[1].stop(), bob.resume(worker=2))
    assert resumed


async def test_a_stopped_worker_takes_nobody(world):
    bob = await WireClient.login(world, "bob")
    await world.servers[1].stop()
    with pytest.raises(ConnectionError):  # no <failed/>, after which the client would log in anew
        await bob.resume(worker=1)
    assert not bob.others


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_every_message_arrives_once(world, seed):
    """Two clients talk while their connections break and come back on other workers."""
    chance = random.Random(seed)
    alice = await WireClient.login(world, "alice", worker=1)
    bob = await WireClient.login(world, "bob", worker=2)
    sent = {alice: 0, bob: 0}
    for _ in range(150):
        client = chance.choice((alice, bob))
        action = chance.random()
        if action < 0.75:
            to = bob if client is alice else alice
            client.say(chance.choice((to.jid, f"{to.name}@{DOMAIN}")), str(sent[client]))
            sent[client] += 1
        elif action < 0.85:
            client.silent = not client.silent
        elif action < 0.9:
            client.acknowledge()
        else:
            if chance.random() < 0.7:
                client.vanish()
            assert await client.resume(chance.choice((1, 2)))
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
    for client in (alice, bob):
        if client.pipe.closed:
            assert await client.resume(1)
        await client.answered()
    await world.settle()
    assert bob.bodies == [str(n) for n in range(sent[alice])]
    assert alice.bodies == [str(n) for n in range(sent[bob])]
    for name in ("alice", "bob"):
        assert len(await archived(world, name)) == sent[alice] + sent[bob]

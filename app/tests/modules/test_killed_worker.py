"""A worker is killed: its sessions go on elsewhere as if nothing had happened (design, section 4)."""

from __future__ import annotations

import asyncio

import pytest
from harness import DOMAIN
from wire_client import WireClient

from nestbox.core.resumption import PARKED
from nestbox.core.session import ASK_STANZAS

ALICE, BOB = f"alice@{DOMAIN}", f"bob@{DOMAIN}"


@pytest.fixture
def config(config):
    config.bus.url = "redis://the-hub"  # what the workers share outlives them
    return config


def write_journals(world):
    for server in world.servers.values():
        server.resumption._journal.write()


async def killed(world, client, number=1):
    """The worker is killed once its journals are written; its client sees the connection break."""
    await world.settle()
    write_journals(world)
    server = world.kill(number)
    client.vanish()
    return server


@pytest.mark.parametrize("noticed", [True, False], ids=["noticed", "not yet noticed"])
async def test_unacknowledged_stanzas_are_replayed_in_order(world, noticed):
    alice = await world.client("alice", worker=2)
    bob = await WireClient.login(world, "bob")
    bob.silent = True
    for number in range(3):
        await alice.send(f"<message to='{BOB}' type='chat'><body>{number}</body></message>")
    await bob.until(lambda: bob.bodies == ["0", "1", "2"])
    bob.acknowledge()
    bob.pipe.lose_writes()
    for number in range(3, 6):
        await alice.send(f"<message to='{BOB}' type='chat'><body>{number}</body></message>")
    await killed(world, bob)
    if noticed:
        await world.notice(1)
    assert await bob.resume(worker=2)
    await bob.until(lambda: len(bob.bodies) >= 6)
    await world.settle()
    assert bob.bodies == ["0", "1", "2", "3", "4", "5"]
    await alice.send(f"<message to='{BOB}' type='chat'><body>6</body></message>")
    await bob.until(lambda: bob.bodies[-1] == "6")


async def test_what_was_committed_is_not_sent_again(world):
    """The worker died after the commit and before it had told the client so."""
    alice, bob = await WireClient.login(world, "alice"), await world.client("bob", worker=2)
    before = len(alice.unacked)
    for number in range(5):
        alice.say(BOB, str(number))
    await world.settle()
    assert len(alice.unacked) == before + 5  # nobody has asked
    await killed(world, alice)
    assert await alice.resume(worker=2)
    assert not alice.unacked
    await world.settle()
    assert [stanza.element.findtext("{jabber:client}body") for stanza in bob.received] == ["0", "1", "2", "3", "4"]


async def test_what_was_not_committed_is_sent_again(world):
    alice, bob = await WireClient.login(world, "alice"), await world.client("bob", worker=2)
    await alice.answered()
    hold = asyncio.Event()
    write = world.servers[1].store.committer._writer.write

    async def never(batch):
        await hold.wait()
        return await write(batch)

    world.servers[1].store.committer._writer.write = never
    alice.say(BOB, "lost with the worker")
    write_journals(world)
    world.kill(1)
    alice.vanish()
    bob.received.clear()
    assert await alice.resume(worker=2)
    await alice.answered()
    received = await bob.expect("message")
    assert received.element.findtext("{jabber:client}body") == "lost with the worker"
    hold.set()


async def test_contacts_do_not_see_it(world):
    await world.friends("alice", "bob")
    alice = await world.client("alice", worker=2)
    bob = await WireClient.login(world, "bob")
    await alice.expect("presence", from_=bob.jid, type=None)
    await killed(world, bob)
    await world.notice(1)
    await alice.nothing("presence", type="unavailable")
    assert await bob.resume(worker=2)
    await alice.expect("presence", from_=bob.jid, type=None)
    bob.send("<presence><show>away</show></presence>")
    await alice.expect("presence", tag="{jabber:client}show")


async def test_contacts_see_it_when_nothing_is_left_to_resume(world):
    await world.friends("alice", "bob")
    alice = await world.client("alice", worker=2)
    bob = await WireClient.login(world, "bob")
    await alice.expect("presence", from_=bob.jid, type=None)
    await killed(world, bob)
    world.hub.hashes.pop(f"journal:{bob.sm_id}")  # the bus was restarted, too
    await world.notice(1)
    await alice.expect("presence", from_=bob.jid, type="unavailable")
    assert not await bob.resume(worker=2)


async def test_rooms_keep_its_seat(world):
    """It hears what was said meanwhile and can go on talking, whichever worker had the room."""
    room = f"den@rooms.{DOMAIN}"
    alice = await world.client("alice", worker=2)
    await alice.send(f"<presence to='{room}/alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
    await alice.iq(
        "set",
        "<query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'/></query>",
        room,
    )
    bob = await WireClient.login(world, "bob")
    bob.send(f"<presence to='{room}/bob'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
    await bob.answered()
    await killed(world, bob)
    await world.notice(1)
    await alice.send(f"<message to='{room}' type='groupchat'><body>meanwhile</body></message>")
    await world.settle()
    assert not [p for p in alice.received if p.kind == "presence" and p.type == "unavailable"]
    assert await bob.resume(worker=2)
    await bob.until(lambda: "meanwhile" in bob.bodies)
    bob.send(f"<message to='{room}' type='groupchat'><body>back</body></message>")
    await alice.expect(lambda stanza: stanza.element.findtext("{jabber:client}body") == "back")
    await bob.until(lambda: bob.bodies[-1] == "back")


async def test_messages_that_came_meanwhile_are_delivered(world):
    alice = await world.client("alice", worker=2)
    bob = await WireClient.login(world, "bob")
    await killed(world, bob)
    await world.notice(1)
    await alice.send(f"<message to='{BOB}' type='chat'><body>meanwhile</body></message>")
    await world.settle()
    assert await bob.resume(worker=2)
    await bob.until(lambda: bob.bodies == ["meanwhile"])


async def test_a_worker_that_is_back_at_once_gives_its_sessions_back(world):
    alice = await world.client("alice", worker=2)
    bob = await WireClient.login(world, "bob")
    bob.pipe.lose_writes()
    await alice.send(f"<message to='{BOB}' type='chat'><body>1</body></message>")
    await killed(world, bob)
    await world.start_worker(1)
    assert await bob.resume(worker=1)
    await bob.until(lambda: bob.bodies == ["1"])


async def test_nobody_comes_back(world):
    """What the client was owed goes to the offline store when its time is over."""
    alice = await world.client("alice", worker=2)
    bob = await WireClient.login(world, "bob")
    bob.pipe.lose_writes()
    await alice.send(f"<message to='{BOB}' type='chat'><body>1</body></message>")
    await killed(world, bob)
    await world.notice(1)
    world.hub.hashes[PARKED] = dict.fromkeys(world.hub.hashes[PARKED], b"1")  # long ago
    await world.servers[2].resumption.end_parked()
    await world.settle()
    again = await WireClient.login(world, "bob", worker=2)
    await again.until(lambda: again.bodies == ["1"])


async def test_a_worker_thought_dead_loses_the_session(world):
    """It was stopped for long, not killed: the fencing token decides, before and after the client has come back."""
    bob = await WireClient.login(world, "bob")
    server = await killed(world, bob)
    await world.notice(1)
    assert await bob.resume(worker=2)
    await world.settle()
    world.wake(server)  # it wakes up
    await world.servers[2].registry.update(*world.servers[2].registry.sessions.values())
    await world.settle()
    assert not server.registry.sessions
    for each in (server, world.servers[2]):
        assert [entry.worker for entry in each.registry.of(BOB).values()] == [2]


async def test_a_worker_thought_dead_does_not_take_back_what_was_put_away(world):
    bob = await WireClient.login(world, "bob")
    server = await killed(world, bob)
    await world.notice(1)
    world.wake(server)
    await server.bus_was_away()
    assert not server.registry.sessions
    assert await bob.resume(worker=1)


async def test_a_worker_thought_dead_hears_of_it(world):
    """What it committed before that counts for whoever takes the session up."""
    bob = await WireClient.login(world, "bob")
    alice = await world.client("alice", worker=2)
    write_journals(world)
    recover = world.servers[2].registry.worker_lost(1)
    bob.say(ALICE, "still here")
    await bob.answered()
    await recover
    await bob.until(lambda: bob.pipe.closed)
    assert await bob.resume(worker=1)
    await bob.answered()
    await world.settle()
    assert [message.element.findtext("{jabber:client}body") for message in alice.received] == ["still here"]


async def test_an_acknowledgement_is_never_taken_back(world):
    """Nothing was written since it was given, neither a row nor the journal in its own time."""
    bob = await WireClient.login(world, "bob")
    write_journals(world)
    bob.send("<presence><show>away</show></presence>")
    await bob.answered()
    handled = bob.acked
    world.kill(1)
    bob.vanish()
    assert await bob.resume(worker=2)
    assert bob.acked == handled


async def test_an_acknowledged_stanza_is_not_written(world):
    alice = await world.client("alice", worker=2)
    bob = await WireClient.login(world, "bob")
    write_journals(world)
    key = f"journal:{bob.sm_id}"
    bob.silent = True
    await alice.send(f"<message to='{BOB}' type='chat'><body>1</body></message>")
    await bob.until(lambda: bob.bodies == ["1"])
    write_journals(world)
    assert any(b"<body>1" in value for value in world.hub.hashes[key].values())
    bob.acknowledge()
    write_journals(world)
    assert not any(b"<body>1" in value for value in world.hub.hashes[key].values())
    bob.vanish()
    await world.settle()
    world.servers[1].config.limits.resume_seconds = 0
    await world.servers[1].tick()
    await world.settle()
    assert key not in world.hub.hashes


async def test_what_leaves_nothing_to_replay_is_not_written(world, monkeypatch):
    """The client knows how much it has handled, and says so when it resumes."""
    monkeypatch.setattr("nestbox.core.journal.WINDOW", 3600)  # written when the test says so
    alice = await world.client("alice", worker=2)
    bob = await WireClient.login(world, "bob")
    await bob.answered()
    bob.acknowledge()
    await world.settle()
    write_journals(world)
    before = dict(world.hub.hashes[f"journal:{bob.sm_id}"])
    for number in range(ASK_STANZAS):
        await alice.send(f"<message to='{bob.jid}' type='headline'><body>{number}</body></message>")
        await bob.until(lambda number=number: len(bob.bodies) > number)
        bob.acknowledge()
    await killed(world, bob)
    assert world.hub.hashes[f"journal:{bob.sm_id}"] == before
    assert await bob.resume(worker=2)
    for number in range(2):
        bob.silent = True
        await alice.send(f"<message to='{BOB}' type='chat'><body>new {number}</body></message>")
        await bob.until(lambda number=number: bob.bodies[-1] == f"new {number}")
    bob.pipe.lose_writes()
    await alice.send(f"<message to='{BOB}' type='chat'><body>new 2</body></message>")
    await killed(world, bob, 2)
    await world.start_worker(1)
    assert await bob.resume(worker=1)
    await world.settle()
    assert bob.bodies == [*map(str, range(ASK_STANZAS)), "new 0", "new 1", "new 2"]


async def test_what_comes_before_the_client_has_resumed_is_not_taken_for_what_it_has_seen(world, monkeypatch):
    """Of what it was sent last nothing was written, and nothing that comes to the session since may go in its place."""
    monkeypatch.setattr("nestbox.core.journal.WINDOW", 3600)  # written when the test says so
    alice = await world.client("alice", worker=2)
    bob = await WireClient.login(world, "bob")
    bob.acknowledge()
    await world.settle()
    write_journals(world)
    await alice.send(f"<message to='{bob.jid}' type='headline'><body>0</body></message>")
    await bob.until(lambda: bob.bodies == ["0"])
    bob.acknowledge()
    await killed(world, bob)
    await world.notice(1)
    server = world.servers[2]
    assert await server.resumption._take_parked(bob.sm_id, await server.users.load("bob"))  # and its client is slow
    for number in range(1, 4):
        await alice.send(f"<message to='{bob.jid}' type='headline'><body>{number}</body></message>")
    await world.settle()
    write_journals(world)
    bob.silent, before = True, bob.handled
    assert await bob.resume(worker=2)
    await bob.until(lambda: len(bob.bodies) >= 4)
    assert bob.bodies == [*"0123"]
    await killed(world, bob, 2)
    bob.handled = before  # it forgets these three
    await world.start_worker(1)
    assert await bob.resume(worker=1)
    await bob.until(lambda: len(bob.bodies) >= 7)
    assert bob.bodies == [*"0123123"]


async def test_a_journal_does_not_fall_behind_for_ever(world, monkeypatch):
    """The client's h may count only so much more than a recovered session knows."""
    monkeypatch.setattr("nestbox.core.journal.WINDOW", 3600)
    monkeypatch.setattr("nestbox.core.journal._BEHIND_MAX", 3)
    alice, bob = await world.client("alice", worker=2), await WireClient.login(world, "bob")
    bob.acknowledge()
    await world.settle()
    write_journals(world)
    counts = []
    for number in range(4):
        await alice.send(f"<message to='{bob.jid}' type='headline'><body>{number}</body></message>")
        await bob.until(lambda number=number: len(bob.bodies) > number)
        bob.acknowledge()
        await world.settle()
        write_journals(world)
        counts.append(world.hub.hashes[f"journal:{bob.sm_id}"]["counts"])
    assert counts[0] == counts[1] != counts[2] == counts[3]


async def test_which_stored_messages_it_was_given_is_written_even_when_they_are_acknowledged(world, monkeypatch):
    """Or whoever recovers the session could give them again."""
    monkeypatch.setattr("nestbox.core.journal.WINDOW", 3600)
    alice, bob = await world.client("alice", worker=2), await WireClient.login(world, "bob")
    bob.acknowledge()
    await world.settle()
    write_journals(world)
    await alice.send(f"<message to='{BOB}' type='chat'><body>1</body></message>")
    await bob.until(lambda: bob.bodies == ["1"])
    bob.acknowledge()
    given = list(world.servers[1].registry.sessions[bob.jid].given)
    await killed(world, bob)
    await world.notice(1)
    assert await bob.resume(worker=2)
    assert given and list(world.servers[2].registry.sessions[bob.jid].given) == given

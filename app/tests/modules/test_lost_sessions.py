"""XEP-0198: sessions that end before their client has come back, and what becomes of what they were owed."""

from __future__ import annotations

import pytest
from harness import DOMAIN
from wire_client import WireClient, archived

from nestbox.core.resumption import PARKED

BOB = f"bob@{DOMAIN}"
ENABLE_CARBONS = "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>"


@pytest.fixture
def config(config):
    config.bus.url = "redis://the-hub"  # what the workers share outlives them
    return config


async def end_by_timeout(world, client):
    session = world.servers[1].registry.sessions[client.jid]
    client.vanish()
    await world.settle()
    session.away_since -= world.config.limits.resume_seconds + 1
    await world.servers[1].tick()


async def end_by_leaving(world, client):
    await client.leave()


async def end_by_conflict(world, client):
    await world.client("bob", "wire", worker=2, presence=None)


@pytest.mark.parametrize("end", [end_by_timeout, end_by_leaving, end_by_conflict])
async def test_what_an_ended_session_has_not_acknowledged_is_kept(world, end):
    alice = await world.client("alice")
    bob = await WireClient.login(world, "bob")
    bob.send(ENABLE_CARBONS)
    await bob.answered()
    bob.silent = True
    for body in "12":
        await alice.send(f"<message to='{BOB}' type='chat'><body>{body}</body></message>")
    bob.send("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq>")  # its results are for this session alone
    await bob.until(lambda: any(s.get("id") == "q" for s in bob.stanzas))
    await end(world, bob)
    await world.settle()
    again = await WireClient.login(world, "bob", worker=2, resource="new")
    await world.settle()
    assert again.bodies == ["1", "2"]
    assert not any(s.find("{urn:xmpp:mam:2}result") is not None for s in again.stanzas)
    assert await archived(world, "bob") == ["1", "2"]


async def test_another_device_that_has_it_already_is_not_given_it_twice(world):
    alice = await world.client("alice")
    desk = await world.client("bob", "desk")
    desk.session.entry.since -= 10  # it was there long before
    phone = await WireClient.login(world, "bob")
    phone.silent = True
    await alice.send(f"<message to='{BOB}' type='chat'><body>1</body></message>")
    await end_by_timeout(world, phone)
    await world.settle()
    assert len([s for s in await desk.drain() if s.kind == "message"]) == 1


async def test_a_device_that_came_later_is_given_it(world):
    alice = await world.client("alice")
    phone = await WireClient.login(world, "bob")
    phone.silent = True
    await alice.send(f"<message to='{BOB}' type='chat'><body>1</body></message>")
    desk = await world.client("bob", "desk", worker=2)
    await end_by_timeout(world, phone)
    (late,) = [s for s in await desk.drain() if s.kind == "message"]
    assert late.find("{urn:xmpp:delay}delay").get("from") == DOMAIN  # it is no news (section 5)


async def test_no_end_before_its_time(world):
    bob = await WireClient.login(world, "bob")
    bob.vanish()
    await world.settle()
    await world.servers[1].tick()
    assert await bob.resume(worker=1)


async def test_a_session_nobody_came_back_for_ends(world):
    await world.friends("alice", "bob")
    alice = await world.client("alice", worker=2)
    bob = await WireClient.login(world, "bob2")
    assert bob.sm_id
    await alice.send(f"<message to='{bob.jid}' type='chat'><body>0</body></message>")
    bob.silent = True
    await alice.send(f"<message to='{bob.jid}' type='chat'><body>1</body></message>")
    await bob.until(lambda: "1" in bob.bodies)
    await world.servers[1].stop()
    await world.servers[1].bus.close()
    world.hub.hashes[PARKED] = dict.fromkeys(world.hub.hashes[PARKED], b"1")  # long ago
    await world.servers[2].resumption.end_parked()
    assert not world.hub.hashes[PARKED]
    assert [key for key in world.hub.values if not key.startswith("handled:")] == []
    await world.settle()
    again = await WireClient.login(world, "bob2", worker=2)
    await world.settle()
    assert "1" in again.bodies


@pytest.mark.parametrize("worker", [1, 2])
async def test_who_comes_too_late_hears_what_was_handled(world, worker):
    """XEP-0198, section 5: or it would send again what the others have."""
    await world.user("alice")
    bob = await WireClient.login(world, "bob")
    for body in "12":
        bob.send(f"<message to='alice@{DOMAIN}' type='chat'><body>{body}</body></message>")
    await bob.answered()
    await end_by_timeout(world, bob)
    await world.settle()
    assert not await bob.resume(worker=worker)
    assert bob.others[0].get("h") == str(bob.acked)
    eve = await WireClient.login(world, "eve")
    eve.vanish()
    eve.sm_id = bob.sm_id
    assert not await eve.resume(worker=worker)
    assert eve.others[0].get("h") is None  # it was not hers


async def test_alone_a_worker_keeps_what_it_owes_in_the_store(world):
    world.config.bus.url = "local"
    alice = await world.client("alice", worker=2)
    bob = await WireClient.login(world, "bob")
    bob.silent = True
    await alice.send(f"<message to='{BOB}' type='chat'><body>1</body></message>")
    await bob.until(lambda: bob.bodies == ["1"])
    await world.servers[1].stop()
    again = await WireClient.login(world, "bob", worker=2)
    await world.settle()
    assert again.bodies == ["1"]

"""Each worker's copy of the sessions there are, when it is read anew and when the bus fails."""

from __future__ import annotations

import asyncio

import pytest
from harness import DOMAIN

from nestbox.bus import BusError

BODY = "{jabber:client}body"
ALICE = f"alice@{DOMAIN}"


async def test_what_is_heard_while_the_copy_is_read_anew_counts(world, monkeypatch):
    """The answer is older than what comes before it is looked at."""
    old = await world.client("alice", "old", worker=2)
    stays = await world.client("alice", "stays", worker=2)
    bus, read, go_on = world.hub.buses[1], asyncio.Event(), asyncio.Event()

    async def living() -> set[int]:
        read.set()
        await go_on.wait()
        return {1, 2}

    monkeypatch.setattr(bus, "living", living)
    reloading = asyncio.create_task(world.servers[1].registry.reload())
    await read.wait()
    await old.leave()
    new = await world.client("alice", "new", worker=2)
    brief = await world.client("alice", "brief", worker=2)
    await brief.leave()
    own = await world.client("alice", "own", worker=1)
    await world.settle()
    go_on.set()
    await reloading
    entries = world.servers[1].registry.of(ALICE)
    assert set(entries) == {"stays", "new", "own"} and set(world.servers[2].registry.of(ALICE)) == set(entries)
    assert {client.session.entry.uid for client in (stays, new, own)} == {entry.uid for entry in entries.values()}


@pytest.fixture
def without_bus(world, monkeypatch):
    """From its call on, worker 1 gets no answer from the bus."""

    async def fail(*_) -> None:
        raise BusError("the bus does not answer")

    def cut() -> None:
        for name in ("hset", "hdel"):
            monkeypatch.setattr(world.hub.buses[1], name, fail)

    return cut


async def test_a_session_that_the_bus_does_not_take_is_none(world, without_bus):
    await world.user("alice")
    without_bus()
    with pytest.raises(BusError):
        await world.client("alice", "lost")
    assert not world.servers[1].registry.of(ALICE) and not world.servers[1].registry.sessions


async def test_a_session_ends_without_the_bus(world, without_bus):
    await world.friends("alice", "bob")
    bob = await world.client("bob")
    alice = await world.client("alice", "phone")
    world.servers[1].enable_sm(alice.session, True)
    await bob.send(f"<message to='{ALICE}' type='chat'><body>not acknowledged</body></message>")
    await bob.drain()
    without_bus()
    await alice.leave()
    await bob.expect("presence", from_=f"{ALICE}/phone", type="unavailable")
    late = await world.client("alice", "later", worker=2, presence=None)
    await late.send("<presence/>")
    assert (await late.expect("message")).element.findtext(BODY) == "not acknowledged"

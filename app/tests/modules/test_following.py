"""What is sent to a session that moves to another worker comes in the order in which it was sent."""

import asyncio

import pytest
from harness import DOMAIN
from wire_client import WireClient

from nestbox.core import following


class SlowWay:
    """What worker 1 sends to worker 2 is ``held`` until it is let go."""

    def __init__(self, world, monkeypatch):
        self.held = []
        self._carry = world.hub.carry
        monkeypatch.setattr(world.hub, "carry", self.carry)

    def carry(self, sender, worker, payload):
        if (sender, worker) == (1, 2):
            self.held.append((sender, worker, payload))
        else:
            self._carry(sender, worker, payload)

    def let_go(self):
        for one in self.held:
            self._carry(*one)


@pytest.fixture
async def moved(world, monkeypatch):
    """Alice's 0 and 1 are on their way to Bob's worker 2 when he resumes on worker 3; 2 to 5 go straight there.

    Every other one is a headline, which is not stored.
    """
    await world.start_worker(3)
    alice = await world.client("alice", worker=1)
    bob = await WireClient.login(world, "bob", worker=2)
    way = SlowWay(world, monkeypatch)

    async def say(number):
        kind = "headline" if number % 2 else "chat"
        await alice.send(f"<message to='bob@{DOMAIN}' type='{kind}'><body>{number}</body></message>")
        await world.settle()

    await say(0)
    await say(1)
    bob.vanish()
    assert await bob.resume(worker=3)
    await world.settle()
    for number in range(2, 6):
        await say(number)
    return bob, way


async def test_what_follows_a_session_comes_before_what_comes_straight(world, moved):
    bob, way = moved
    assert bob.bodies == []
    way.let_go()
    await bob.until(lambda: len(bob.bodies) == 6)
    assert bob.bodies == ["0", "1", "2", "3", "4", "5"]
    await world.settle()
    assert world.servers[3].registry.sessions[bob.jid].later is None  # from now on nothing waits


async def test_a_worker_that_says_nothing_is_not_waited_for_long(world, monkeypatch):
    monkeypatch.setattr(following, "FOLLOW_SECONDS", 0.05)
    await world.start_worker(3)
    alice = await world.client("alice", worker=1)
    bob = await WireClient.login(world, "bob", worker=2)
    SlowWay(world, monkeypatch)
    bob.vanish()
    assert await bob.resume(worker=3)
    await world.settle()
    await alice.send(f"<message to='bob@{DOMAIN}' type='chat'><body>straight</body></message>")
    async with asyncio.timeout(3):
        await bob.until(lambda: bob.bodies == ["straight"])


async def test_what_waits_goes_on_with_the_session(world, moved):
    """It moves again before all has followed; nothing is lost or given twice."""
    bob, way = moved
    bob.vanish()
    assert await bob.resume(worker=1)
    way.let_go()
    await bob.until(lambda: len(bob.bodies) == 6)
    await world.settle()
    assert sorted(bob.bodies) == ["0", "1", "2", "3", "4", "5"]

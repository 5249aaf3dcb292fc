"""A worker that is to be restarted hands its sessions over to the others, a few at a time."""

import asyncio

import pytest
from harness import DOMAIN
from wire_client import WireClient

from nestbox.core import handover


@pytest.fixture
def config(config):
    config.bus.url = "redis://the-hub"  # what the workers share outlives them
    return config


async def test_sessions_go_elsewhere_and_nothing_is_lost(world):
    said = []
    alice = await world.client("alice", worker=2)
    bob = await WireClient.login(world, "bob")
    leaving = asyncio.ensure_future(handover.hand_over(world.servers[1], said.append))
    await bob.until(lambda: bob.pipe.closed)
    assert bob.error() is None  # it looks like a lost connection, after which every client resumes
    await alice.send(f"<message to='bob@{DOMAIN}' type='chat'><body>meanwhile</body></message>")
    await leaving
    assert said == ["handing over, 1 sessions left", "handed over"]
    assert await bob.resume(worker=2)
    await bob.until(lambda: bob.bodies == ["meanwhile"])


async def test_who_cannot_resume_is_told_why_it_is_sent_away(world):
    carol = await world.client("carol", worker=1)
    await handover.hand_over(world.servers[1], lambda status: None)
    assert carol.closed and carol.error.condition == "system-shutdown"
    assert not world.servers[1].draining  # HAProxy's check must go on to succeed: a failed one cuts everybody at once


async def test_not_all_at_once(world, monkeypatch):
    monkeypatch.setattr(handover, "PER_SECOND", 20)  # two a step
    clients = [await world.client("alice", f"r{number}", worker=1) for number in range(6)]
    left = []
    await handover.hand_over(world.servers[1], lambda status: left.append(sum(not client.closed for client in clients)))
    assert left == [6, 4, 2, 0]


async def test_nobody_is_sent_away_where_there_is_no_other_worker(world):
    alice = await world.client("alice", worker=1)
    for number in [number for number in world.servers if number != 1]:
        await world.servers[number].bus.close()
    said = []
    await handover.hand_over(world.servers[1], said.append)
    assert said == ["nobody to hand over to"] and not alice.closed

"""Many log in at once: all of them wait for their turn, all get in, and see each other."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from harness import DOMAIN
from wire_client import HEADER, Pipe, WireClient

from nestbox.net import pace as pace_module
from nestbox.net.connections import Connections
from nestbox.protocol.features import StreamOptions

PEOPLE = 10


@pytest.fixture
def connections(world):
    server = world.servers[1]
    options = StreamOptions(domain=DOMAIN, plain_allowed=True, features_after_auth=list(server.stream_features))
    return Connections(server, options, None)


class Person(WireClient):
    async def connect(self, worker):
        self.pipe = Pipe(self)
        self.pipe.connection = self.connections.accept(self.pipe)
        self.pipe.feed(HEADER)
        await self.expect("features")
        await self.authenticate()


async def test_everybody_gets_in(world, connections, monkeypatch):
    monkeypatch.setattr(pace_module, "SLICE", 1e-9)  # one step in a turn of the loop
    monkeypatch.setattr(pace_module, "AT_ONCE", 2)
    names = [f"user{number}" for number in range(PEOPLE)]
    for one, other in pairwise(names):
        await world.friends(one, other)
    store = world.servers[1].store
    for name in names:
        await store.accounts.set_password(name, "password")
    most = 0

    async def watch():
        nonlocal most
        while True:
            most = max(most, connections.pace.waiting)
            waiting = [(each, each.opened) for each in connections.open if each.waits_for_us]
            for connection, _ in waiting:
                connection.opened = -1e9
            connections.tick()  # cuts nobody for having waited long
            for connection, opened in waiting:
                connection.opened = opened
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    people = [Person(world, name) for name in names]
    for person in people:
        person.connections = connections

    async def come(person):
        await person.connect(1)
        await person.bind("wire")

    await asyncio.gather(*map(come, people))
    watching.cancel()
    await world.settle()
    assert most > PEOPLE // 2, "they had to wait"
    assert not world.servers[1].counts.limits_hit and not connections.pace.waiting
    for index, person in enumerate(people):
        seen = {stanza.get("from") for stanza in person.stanzas if stanza.tag.endswith("}presence")}
        assert seen >= {people[other].jid for other in (index - 1, index + 1) if 0 <= other < PEOPLE}

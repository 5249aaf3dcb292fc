"""What a worker remembers of accounts saves reads, and is never wrong, whichever worker changes something."""

from __future__ import annotations

import asyncio

import pytest
from harness import DOMAIN, World

from nestbox.core.registry import Waiting

ROSTER = "<query xmlns='jabber:iq:roster'/>"


def forbid(monkeypatch: pytest.MonkeyPatch, where: object, name: str) -> None:
    """Reading this is a mistake."""

    async def forbidden(*args: object) -> None:
        raise AssertionError(f"{name} was read")

    monkeypatch.setattr(where, name, forbidden)


def names(result) -> list[str]:
    return [item.get("jid") for item in result.payload]


async def test_a_login_reads_nothing_where_nothing_waits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    store = world.servers[1].store
    roster = store.roster
    for where, name in ((store.offline, "fetch"), (roster, "requests"), (roster, "items"), (roster, "load")):
        forbid(monkeypatch, where, name)
    bob = await world.client("bob")
    assert names(await bob.iq("get", ROSTER)) == []
    await bob.nothing()
    assert not bob.session.user.offline
    assert not bob.session.user.requests


async def test_a_request_made_on_another_worker_is_handed_out(world: World) -> None:
    alice = await world.client("alice")
    bob = await world.client("bob", worker=2, presence=None)
    user = bob.session.user
    user.requests = False
    await alice.send(f"<presence to='bob@{DOMAIN}' type='subscribe'/>")
    await world.settle()
    assert user.requests
    await bob.send("<presence/>")
    await bob.expect("presence", type="subscribe", from_=alice.bare)
    await bob.leave()
    again = await world.client("bob", worker=1, presence=None)  # until it is answered
    await again.send("<presence/>")
    await again.expect("presence", type="subscribe")
    await again.send(f"<presence to='{alice.bare}' type='subscribed'/>")
    third = await world.client("bob", "third", worker=1, presence=None)
    await third.send("<presence/>")
    await third.nothing("presence", type="subscribe")
    assert not third.session.user.requests


async def test_messages_that_arrive_while_the_account_is_read_are_noticed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Worker 2 reads that nothing waits; before it has finished, worker 1 puts something into the store."""
    await world.user("bob")
    alice = await world.client("alice")
    users, profiles = world.servers[2].users, world.servers[2].store.profiles
    read, started, gate, reads = profiles.get, asyncio.Event(), asyncio.Event(), []

    async def slow(username: str):
        profile = await read(username)
        reads.append(profile.offline)
        if len(reads) == 1:
            started.set()
            await gate.wait()
        return profile

    monkeypatch.setattr(profiles, "get", slow)
    users._recent.clear()
    users._live.clear()
    loading = asyncio.create_task(users.load("bob"))
    await started.wait()
    await alice.send(f"<message to='bob@{DOMAIN}' type='chat'><body>hi</body></message>")
    await world.settle()
    gate.set()
    assert (await loading).offline
    assert reads == [False, True]


async def test_a_change_while_the_account_is_read_is_noticed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.user("bob")
    server = world.servers[1]
    profiles, users = server.store.profiles, server.users
    read, started, gate, reads = profiles.get, asyncio.Event(), asyncio.Event(), []

    async def slow(username: str):
        profile = await read(username)
        reads.append(profile.account.enabled)
        if len(reads) == 1:
            started.set()
            await gate.wait()
        return profile

    users._recent.clear()
    users._live.clear()
    monkeypatch.setattr(profiles, "get", slow)
    loading = asyncio.create_task(users.load("bob"))
    await started.wait()
    await server.store.accounts.set_enabled("bob", False)
    await users.changed("bob")
    users.waiting(Waiting(f"carol@{DOMAIN}", "offline"))  # others' changes do not matter
    gate.set()
    assert not (await loading).enabled
    assert reads == [True, False]
    assert users._reading == {}


async def test_a_roster_is_read_once_until_it_changes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one = await world.client("alice", "one", worker=1)
    two = await world.client("alice", "two", worker=2)
    item = "<query xmlns='jabber:iq:roster'><item jid='{}' name='B &amp; \"C\"'><group>F &lt;</group></item></query>"
    await one.iq("set", item.format("bob@x.org"))
    await world.settle()
    assert names(await two.iq("get", ROSTER)) == ["bob@x.org"]
    load, loads = world.servers[2].store.roster.load, []

    async def counted(user_id: int):
        loads.append(user_id)
        return await load(user_id)

    monkeypatch.setattr(world.servers[2].store.roster, "load", counted)
    result = await two.iq("get", ROSTER)
    assert names(result) == ["bob@x.org"]
    assert result.payload[0].get("name") == 'B & "C"'
    assert result.payload[0][0].text == "F <"
    assert loads == []
    await one.iq("set", item.format("carol@x.org"))
    await world.settle()
    two.received.clear()
    assert names(await two.iq("get", ROSTER)) == ["bob@x.org", "carol@x.org"]
    assert len(loads) == 1
    version = (await two.iq("get", "<query xmlns='jabber:iq:roster' ver=''/>")).payload.get("ver")
    unchanged = await two.iq("get", f"<query xmlns='jabber:iq:roster' ver='{version}'/>")
    assert unchanged.payload is None
    assert len(loads) == 1


async def test_what_is_kept_of_rosters_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nestbox.modules.roster.KEPT_BYTES", 300)
    clients = [await world.client(name) for name in ("alice", "bob", "carol")]
    for client in clients:
        await client.iq("set", f"<query xmlns='jabber:iq:roster'><item jid='{'x' * 150}@x.org'/></query>")
        assert len(names(await client.iq("get", ROSTER))) == 1
    assert [client.session.user.roster is not None for client in clients] == [False, False, True]
    for client in clients:
        assert names(await client.iq("get", ROSTER)) == [f"{'x' * 150}@x.org"]


async def test_after_a_gap_of_the_bus_nothing_is_believed(world: World) -> None:
    """Worker 2 has missed what worker 1 told it."""
    one = await world.client("alice", "one", worker=1)
    two = await world.client("alice", "two", worker=2)
    assert names(await two.iq("get", ROSTER)) == []
    carry, world.hub.carry = world.hub.carry, lambda worker, payload: None
    await one.iq("set", "<query xmlns='jabber:iq:roster'><item jid='bob@x.org'/></query>")
    await world.settle()
    world.hub.carry = carry
    world.servers[2].users.doubt()
    assert two.session.user.offline
    assert two.session.user.requests
    assert names(await two.iq("get", ROSTER)) == ["bob@x.org"]


async def test_who_asks_before_the_change_is_known_is_told_of_it(world: World) -> None:
    """Worker 2 answers from memory what worker 1 has just changed, so that a push has to follow."""
    one = await world.client("alice", "one", worker=1)
    two = await world.client("alice", "two", worker=2)
    await one.iq("set", "<query xmlns='jabber:iq:roster'><item jid='bob@x.org'/></query>")
    known = names(await two.iq("get", ROSTER))
    if not known:
        push = await two.expect("iq", type="set")
        known = names(push)
    assert known == ["bob@x.org"]


async def test_a_roster_that_gets_its_first_contact_while_the_account_is_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.user("bob")
    one = await world.client("bob", "one", worker=1)
    users, profiles = world.servers[2].users, world.servers[2].store.profiles
    read, started, gate, reads = profiles.get, asyncio.Event(), asyncio.Event(), []

    async def slow(username: str):
        profile = await read(username)
        reads.append(profile.empty_roster)
        if len(reads) == 1:
            started.set()
            await gate.wait()
        return profile

    monkeypatch.setattr(profiles, "get", slow)
    users._recent.clear()
    users._live.clear()
    loading = asyncio.create_task(users.load("bob"))
    await started.wait()
    await one.iq("set", "<query xmlns='jabber:iq:roster'><item jid='a@x.org'/></query>")
    await world.settle()
    gate.set()
    assert await users.contacts(await loading) == {"a@x.org": "none"}
    assert reads == [0, None]

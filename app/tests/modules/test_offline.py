"""XEP-0160: what came while nobody was there is there later, once, in order, within bounds."""

from __future__ import annotations

import asyncio

import pytest
from harness import DOMAIN, condition

from nestbox.config import Limits
from nestbox.core import session
from nestbox.core.delay import timestamp
from nestbox.core.ids import id_to_ms
from nestbox.modules import offline
from nestbox.store.errors import StoreError
from nestbox.wire.stanza import STANZA_ID

BODY = "{jabber:client}body"
DELAY = "{urn:xmpp:delay}delay"
BOB = f"bob@{DOMAIN}"


@pytest.fixture
def limits() -> Limits:
    return Limits(offline_messages=5, unacked_stanzas=8)


@pytest.fixture
async def alice(world):
    await world.user("bob")
    return await world.client("alice")


async def say(client, *bodies: str, to: str = BOB) -> None:
    for body in bodies:
        await client.send(f"<message to='{to}' type='chat'><body>{body}</body></message>")


async def comes_online(world, worker: int = 1, presence: str = "<presence/>", resource: str | None = None):
    """A client of bob's, with what its first presence brought left in ``received``."""
    client = await world.client("bob", resource, worker=worker, presence=None)
    await client.send(presence)
    await world.settle()
    return client


def bodies(client) -> list[str]:
    return [stanza.element.findtext(BODY) for stanza in client.received if stanza.kind == "message"]


async def waiting(world) -> int:
    await world.settle()
    store = world.servers[1].store
    return await store.offline.count((await store.accounts.get("bob")).id)


async def test_what_came_while_the_bus_was_away_is_handed_out_when_it_is_back(world, alice):
    bob = await world.client("bob", worker=2, presence=None)
    handlers = {worker: bus.handler for worker, bus in world.hub.buses.items()}
    for bus in world.hub.buses.values():
        bus.handler = lambda payload: None
    await bob.send("<presence/>")
    await say(alice, "1", "2")  # whose worker holds bob for away
    assert await waiting(world) == 2
    for worker, bus in world.hub.buses.items():
        bus.handler = handlers[worker]
    await world.servers[2].bus_was_away()
    await world.settle()
    assert bodies(bob) == ["1", "2"]
    assert await waiting(world) == 0


@pytest.mark.parametrize("worker", [1, 2])
async def test_messages_wait_and_come_once_in_order(world, alice, worker):
    await say(alice, "1", "2", "3")
    await alice.nothing()  # no error
    await world.settle()
    bob = await comes_online(world, worker)
    assert bodies(bob) == ["1", "2", "3"]
    assert await waiting(world) == 0
    await bob.leave()
    assert bodies(await comes_online(world, worker)) == []


async def test_a_message_says_when_it_came(world, alice):
    await say(alice, "1")
    await world.settle()
    bob = await comes_online(world)
    message = await bob.expect("message")
    delay = message.find(DELAY)
    archive_id = int(message.find(STANZA_ID).get("id"))
    assert (delay.get("from"), delay.get("stamp")) == (DOMAIN, timestamp(id_to_ms(archive_id)))
    assert (message.from_, message.to) == (alice.jid, BOB)


async def test_a_message_for_a_device_that_is_gone_waits_too(world, alice):
    await say(alice, "1", to=f"{BOB}/gone")
    await world.settle()
    assert bodies(await comes_online(world)) == ["1"]


@pytest.mark.parametrize(
    "type, payload, fate",
    [
        ("normal", "<body>x</body>", "kept"),
        ("chat", "<received xmlns='urn:xmpp:receipts' id='1'/>", "kept"),
        ("chat", "<body>x</body><no-permanent-store xmlns='urn:xmpp:hints'/>", "kept"),
        ("chat", "<encrypted xmlns='eu.siacs.conversations.axolotl'/>", "kept"),
        ("chat", "<composing xmlns='http://jabber.org/protocol/chatstates'/>", "dropped"),
        ("headline", "<body>x</body>", "dropped"),
        ("error", "<body>x</body>", "dropped"),
        ("chat", "<body>x</body><no-store xmlns='urn:xmpp:hints'/>", "service-unavailable"),
        ("normal", "<x xmlns='urn:example:custom'/>", "service-unavailable"),
        ("groupchat", "<body>x</body>", "service-unavailable"),
    ],
)
async def test_what_is_kept(world, alice, type, payload, fate):
    await alice.send(f"<message to='{BOB}' type='{type}'>{payload}</message>")
    assert await waiting(world) == (fate == "kept")
    assert [condition(stanza) for stanza in await alice.drain()] == ([fate] if "-" in fate else [])


async def test_negative_priority_gets_nothing_until_it_rises(world, alice):
    await say(alice, "1")
    await world.settle()
    bob = await comes_online(world, presence="<presence><priority>-1</priority></presence>")
    assert bodies(bob) == []
    await say(alice, "2")
    await bob.send("<presence><priority>0</priority></presence>")
    await world.settle()
    assert bodies(bob) == ["1", "2"]


async def test_there_is_a_limit_and_it_is_counted_anew(world, alice):
    await say(alice, *"1234567")
    errors = await alice.drain()
    assert [condition(stanza) for stanza in errors] == ["resource-constraint"] * 2
    assert world.limits_hit() == {"offline_messages": 2}
    late = f"<message from='{alice.jid}' to='{BOB}' type='chat'><body>8</body></message>"
    await world.servers[1].router.reroute(BOB, late.encode())  # its session has ended meanwhile
    assert condition(await alice.expect("message", type="error")) == "resource-constraint"
    bob = await comes_online(world)
    assert bodies(bob) == list("12345")
    await bob.leave()
    await say(alice, "8")
    assert [condition(stanza) for stanza in await alice.drain()] == []


async def test_a_full_box_emptied_on_another_worker_is_noticed(world, alice, monkeypatch):
    await say(alice, *"12345")
    bob = await comes_online(world, worker=2)
    await bob.leave()
    monkeypatch.setattr("nestbox.modules.offline.COUNT_SECONDS", 0.0)  # as if seconds had passed
    await say(alice, "6")
    assert [condition(stanza) for stanza in await alice.drain()] == []
    assert await waiting(world) == 1


async def test_a_slow_client_gets_no_more_than_it_acknowledges(world, alice):
    await say(alice, *"12345")
    await world.settle()
    bob = await world.client("bob", presence=None)
    bob.server.enable_sm(bob.session, False)
    await bob.send("<presence/>")
    async with asyncio.timeout(3):
        while not bodies(bob):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    got = len(bodies(bob))
    assert 0 < got < 5
    async with asyncio.timeout(3):
        while len(bodies(bob)) < 5:
            bob.session.sm.ack(bob.session.sm.sent)
            await asyncio.sleep(0.01)
    assert bodies(bob) == list("12345")
    assert await waiting(world) == 0


async def test_a_message_committed_while_the_recipient_comes_online_elsewhere_reaches_it(world, alice):
    """Worker 1 keeps it and commits slowly; bob comes online on worker 2 and finds nothing, then worker 1 tells."""
    bob = await world.client("bob", worker=2, presence=None)
    committer = world.servers[1].store.committer
    write, gate = committer._writer.write, asyncio.Event()

    async def held(batch):
        await gate.wait()
        return await write(batch)

    committer._writer.write = held
    await say(alice, "late")
    await bob.send("<presence/>")
    await asyncio.sleep(0.1)
    assert bodies(bob) == []
    gate.set()
    await bob.expect("message")
    await bob.nothing("message")
    assert await waiting(world) == 0


async def test_a_worker_that_has_not_heard_of_the_recipient_yet_loses_nothing(world, alice, monkeypatch):
    bob = await world.client("bob", worker=2, presence=None)
    monkeypatch.setattr(world.servers[1].registry, "_put", lambda entry: None)
    await bob.send("<presence/>")
    await world.settle()
    await say(alice, "1")
    await bob.expect("message")
    assert await waiting(world) == 0


def fetch_slowly(monkeypatch, world, meanwhile) -> None:
    """Let something happen once, while worker 1 reads the first page of what waits."""
    store = world.servers[1].store.offline
    fetch, todo = store.fetch, [meanwhile]

    async def slow(user_id: int, limit: int):
        rows = await fetch(user_id, limit)
        while todo:
            await todo.pop()()
        return rows

    monkeypatch.setattr(store, "fetch", slow)


@pytest.mark.parametrize("sender", [1, 2])
async def test_what_is_sent_meanwhile_comes_after_what_waited(world, alice, monkeypatch, sender):
    await say(alice, "1", "2")
    await world.settle()
    carol = await world.client("carol", worker=sender)

    async def meanwhile():
        await say(carol, "3")
        async with asyncio.timeout(3):
            while not bob.session.later:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    fetch_slowly(monkeypatch, world, meanwhile)
    bob = await world.client("bob", presence=None)
    await bob.send("<presence/>")
    await world.settle()
    assert bodies(bob) == ["1", "2", "3"]
    await say(carol, "4")
    await world.settle()
    assert bodies(bob) == ["1", "2", "3", "4"]
    assert await waiting(world) == 0


async def test_what_is_sent_while_others_hear_of_the_client_comes_after_what_waited(world, alice, monkeypatch):
    await say(alice, "1")
    await world.settle()
    bob = await world.client("bob", presence=None)
    registry = world.servers[1].registry
    update = registry.update

    async def slow(session) -> None:
        await say(alice, "2")
        await world.settle()
        await update(session)

    monkeypatch.setattr(registry, "update", slow)
    await bob.send("<presence/>")
    await world.settle()
    assert bodies(bob) == ["1", "2"]


@pytest.mark.parametrize("first", ["found", "the store is away", "not committed yet"])
async def test_what_a_worker_kept_and_died_before_it_said_so_is_handed_out(world, alice, monkeypatch, first):
    monkeypatch.setattr(offline, "LAST_COMMIT_SECONDS", 0.01 if first == "not committed yet" else 60)
    monkeypatch.setattr(offline, "RETRY_SECONDS", 0.01 if first == "the store is away" else 60)
    store = world.servers[2].store.offline
    owners, looks = store.owners, []

    async def found():
        looks.append(first)
        if len(looks) > 1 or first == "found":
            return await owners()
        if first == "the store is away":
            raise StoreError(first)
        return set()

    monkeypatch.setattr(store, "owners", found)
    bob = await comes_online(world, worker=2)
    monkeypatch.setattr(world.servers[1].registry, "of", lambda bare: {})  # worker 1 has not heard of him yet
    monkeypatch.setattr(world.servers[1].registry, "tell_all", lambda op: None)  # and dies
    await say(alice, "1")
    assert await waiting(world) == 1
    await bob.nothing("message")
    await world.servers[2].registry.worker_lost(1)
    await bob.expect("message")
    assert await waiting(world) == 0


async def test_what_is_sent_meanwhile_waits_for_the_next_client_if_this_one_goes(world, alice, monkeypatch):
    await say(alice, "1")
    await world.settle()

    async def meanwhile():
        await say(alice, "2")
        async with asyncio.timeout(3):
            while not bob.session.later:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await bob.leave()

    fetch_slowly(monkeypatch, world, meanwhile)
    bob = await world.client("bob", presence=None)
    await bob.send("<presence/>")
    await world.settle()
    assert bodies(await comes_online(world)) == ["1", "2"]


async def test_a_session_that_moves_meanwhile_takes_it_along(world, alice, monkeypatch):
    await say(alice, "1")
    await world.settle()
    taken: list[bytes] = []

    async def meanwhile():
        await say(alice, "2")
        async with asyncio.timeout(3):
            while not bob.session.later:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        taken.extend(bob.session.snapshot(0.0).queue)

    fetch_slowly(monkeypatch, world, meanwhile)
    bob = await world.client("bob", presence=None)
    bob.server.enable_sm(bob.session, True)
    await bob.send("<presence/>")
    await world.settle()
    assert sum(b"<body>2</body>" in data for data in taken) == 1


async def test_only_so_many_wait_for_older_ones(world, alice, monkeypatch):
    await say(alice, "1")
    await world.settle()
    monkeypatch.setattr(session, "HELD_MAX", 2)

    async def meanwhile():
        await say(alice, "2", "3")
        await bob.expect("message")  # though "1" is still being read

    fetch_slowly(monkeypatch, world, meanwhile)
    bob = await world.client("bob", presence=None)
    await bob.send("<presence/>")
    await world.settle()
    assert bodies(bob) == ["3", "1"]


async def test_a_store_that_does_not_answer_is_asked_again(world, alice, monkeypatch):
    await say(alice, "1")
    await world.settle()

    async def meanwhile():
        raise StoreError("away")

    fetch_slowly(monkeypatch, world, meanwhile)
    monkeypatch.setattr(offline, "RETRY_SECONDS", 0.01)
    assert bodies(await comes_online(world)) == ["1"]


async def test_two_devices_at_once_lose_nothing(world, alice):
    await say(alice, *"123")
    await world.settle()
    one = await world.client("bob", "one", presence=None)
    two = await world.client("bob", "two", presence=None)
    await asyncio.gather(one.send("<presence/>"), two.send("<presence/>"))
    await world.settle()
    assert sorted(bodies(one) + bodies(two)) == list("123")

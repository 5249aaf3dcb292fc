"""A room outlives the worker that owns it: planned or killed, nobody is out without being told."""

from __future__ import annotations

import asyncio
import time

import pytest
from harness import condition
from rooms import ROOM, codes, configure, hears, item, join, make, read_list, say, set_item

from nestbox.wire.stanza import id_by


def service(world, worker):
    return world.servers[worker].router.hosts["rooms.nestbox.test"].__self__


def owner(world, room="tea"):
    """The worker that has a room."""
    return int(world.hub.hashes["muc-owners"][room].partition(b":")[0])


async def kill(world, worker):
    """A worker is gone without a word, and the others notice."""
    del world.hub.buses[worker]
    dead = world.servers.pop(worker)
    for server in world.servers.values():
        server.spawn(server.registry.worker_lost(worker))
    await world.settle()
    world.dead = [*getattr(world, "dead", []), dead]


@pytest.fixture
async def world(world):
    """Three workers; those that a test kills have their stores closed at the end."""
    await world.start_worker(3)
    yield world
    for server in getattr(world, "dead", ()):
        await server.store.close()


async def three(world, **settings):
    """A room of worker 1 with people on all workers."""
    anna = await make(world, persistentroom="1", **settings)
    ben = await world.client("ben", worker=2)
    cleo = await world.client("cleo", worker=3)
    await join(ben, "Ben")
    await join(cleo, "Cleo")
    for client in (anna, ben, cleo):
        await client.drain()
    assert owner(world) == 1
    return anna, ben, cleo


async def test_a_room_has_one_owner_whoever_speaks(world):
    anna, ben, cleo = await three(world)
    for client in (anna, ben, cleo):
        await say(client, client.session.entry.bare)
    orders = []
    for client in (anna, ben, cleo):
        orders.append([s.element.findtext("{jabber:client}body") for s in await client.drain() if s.kind == "message"])
    assert orders[0] == orders[1] == orders[2] == [client.bare for client in (anna, ben, cleo)]
    assert "tea" in service(world, 1).rooms
    assert "tea" not in service(world, 2).rooms and "tea" not in service(world, 3).rooms


async def test_when_its_worker_is_killed_another_takes_the_room_over(world):
    anna, ben, cleo = await three(world, moderatedroom="1")
    await set_item(anna, "nick='Ben' role='participant'")
    await anna.send(f"<message to='{ROOM}' type='groupchat'><subject>Earl Grey</subject></message>")
    await say(ben, "before")
    await ben.drain()
    await cleo.drain()
    await kill(world, 1)
    assert owner(world) in (2, 3)
    for client in (ben, cleo):
        gone = await client.expect("presence", from_=f"{ROOM}/Anna", type="unavailable")
        assert codes(gone) == {333} and item(gone)["role"] == "none"
        await client.nothing("presence")
    await say(ben, "after")  # with the voice that he was given
    assert (await hears(cleo, "after")).from_ == f"{ROOM}/Ben"
    await say(cleo, "x")
    assert condition(await cleo.expect("message", type="error")) == "forbidden"
    dora = await world.client("dora", worker=2)
    await join(dora, "Dora")
    said = [s.element.findtext("{jabber:client}body") for s in dora.received if s.kind == "message"]
    assert said == ["before", "after"]


async def test_a_stanza_that_waited_for_a_dead_worker_is_passed_on_again(world):
    _, ben, cleo = await three(world)
    world.hub.buses[1].handler = lambda payload: None  # it takes what comes and does nothing
    waiting = asyncio.create_task(say(ben, "hello?"))
    await asyncio.sleep(0)
    assert not waiting.done()
    await kill(world, 1)
    await waiting
    assert (await hears(cleo, "hello?")).from_ == f"{ROOM}/Ben"
    await cleo.nothing("message")


async def test_when_its_worker_stops_another_takes_the_room_over_at_once(world):
    anna, ben, cleo = await three(world)
    stopped = world.servers.pop(1)
    await stopped.stop()
    await world.settle()
    assert owner(world) in (2, 3)
    await world.servers[2].registry.reload()
    gone = await ben.expect("presence", from_=f"{ROOM}/Anna", type="unavailable")
    assert item(gone)["role"] == "none" and anna.closed
    await say(cleo, "on we go")
    assert (await hears(ben, "on we go")).from_ == f"{ROOM}/Cleo"
    await stopped.bus.close()
    await stopped.store.close()


async def test_a_seat_waits_for_a_session_that_will_be_resumed(world):
    """A worker stops; its clients resume elsewhere and have missed nothing."""
    anna, ben, cleo = await three(world)
    sm_id = world.servers[2].enable_sm(ben.session, True)
    await world.servers[2].resumption.park(ben.session)
    await world.settle()
    await say(cleo, "while you were away")
    await cleo.send(f"<message to='{ROOM}/Ben' type='chat'><body>psst</body></message>")
    assert condition(await cleo.expect("message", type="error")) == "recipient-unavailable"
    await anna.nothing("presence")
    assert ben.received == type(ben.received)()
    session = await world.servers[3].resume(ben, "ben", sm_id, 0)
    for data in session.sm.unacked():
        ben.send_stanza(data)
    await world.settle()
    got = await hears(ben, "while you were away")
    assert got.from_ == f"{ROOM}/Cleo" and id_by(got, ROOM)
    await ben.nothing(lambda s: s.element.findtext("{jabber:client}body") == "while you were away")
    ben.session, ben.server = session, world.servers[3]
    await say(ben, "back")
    assert (await hears(cleo, "back")).from_ == f"{ROOM}/Ben"
    await anna.nothing("presence")


async def test_a_seat_is_given_up_when_its_session_is_not_resumed(world):
    anna, ben, _ = await three(world)
    world.servers[2].enable_sm(ben.session, True)
    await world.servers[2].resumption.park(ben.session)
    room = service(world, 1).rooms["tea"]
    await world.settle()
    service(world, 1).check_seats(room)
    await anna.nothing("presence")
    limit = world.config.limits.resume_seconds
    service(world, 1).check_seats(room, int(time.time()) + limit + 100)
    await anna.expect("presence", from_=f"{ROOM}/Ben", type="unavailable")


async def test_after_a_gap_in_the_bus_everything_is_looked_at_again(world):
    anna, ben, cleo = await three(world)
    world.hub.hashes.pop("muc-owners")  # Valkey was restarted and has forgotten all
    world.hub.hashes.pop("muc:tea")
    for server in world.servers.values():
        await server.registry.reload()
    await world.settle()
    assert owner(world) == 1 and world.hub.hashes["muc:tea"].keys() == {anna.jid, ben.jid, cleo.jid}
    await say(ben, "still here")
    await hears(cleo, "still here")


async def test_an_owner_that_was_thought_dead_gives_way(world):
    anna, ben, cleo = await three(world)
    world.hub.hashes["muc-owners"]["tea"] = b"3:another-life"
    await world.servers[1].registry.reload()
    await world.settle()
    assert "tea" not in service(world, 1).rooms
    world.hub.hashes["muc-owners"].pop("tea")
    await say(anna, "who has it?")
    await hears(cleo, "who has it?")
    await hears(ben, "who has it?")


async def test_a_restarted_worker_takes_its_rooms_back_and_clears_them(world):
    _, ben, cleo = await three(world)
    await kill(world, 1)
    assert owner(world) != 1
    world.hub.hashes["muc-owners"]["old"] = b"1:a-life-before"
    await world.start_worker(1)
    await world.settle()
    assert "old" in service(world, 1).rooms
    await say(ben, "hi")
    await hears(cleo, "hi")


async def test_a_room_in_which_somebody_is_stays_open(world):
    await three(world)
    service(world, 1).rooms["tea"].used = float("-inf")
    service(world, 1)._sweep()
    await world.settle()
    assert owner(world) == 1 and "tea" in service(world, 1).rooms


async def test_an_empty_room_is_closed_and_opened_again_by_whoever_comes(world):
    anna = await make(world, persistentroom="1", roomname="Tea")
    await set_item(anna, "affiliation='member' jid='ben@nestbox.test' nick='Chief'")
    await say(anna, "kept")
    await anna.send(f"<presence to='{ROOM}/Anna' type='unavailable'/>")
    await world.settle()
    service(world, 1).rooms["tea"].used = float("-inf")
    service(world, 1)._sweep()
    await world.settle()
    assert "tea" not in world.hub.hashes["muc-owners"] and not service(world, 1).rooms
    ben = await world.client("ben", worker=2)
    assert item(await join(ben, "Chief"))["affiliation"] == "member"
    assert await hears(ben, "kept")
    assert owner(world) == 2
    await join(anna, "Anna")
    assert [each["nick"] for each in await read_list(anna, "affiliation='member'")] == ["Chief"]


async def test_a_deleted_accounts_name_brings_no_rights(world):
    anna, ben, _ = await three(world)
    await set_item(anna, f"affiliation='admin' jid='{ben.bare}'")
    await world.servers[1].store.accounts.delete("ben")
    for server in world.servers.values():
        await server._account_changed("ben")
    await world.settle()
    await world.user("ben")
    for server in world.servers.values():
        await server._account_changed("ben")
    again = await world.client("ben", worker=2)
    assert item(await join(again, "Ben"))["affiliation"] == "none"
    assert condition(await configure(again, roomname="mine")) == "forbidden"

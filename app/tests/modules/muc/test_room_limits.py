"""What a client can make grow in rooms, and that it stops; and a room of a thousand."""

from __future__ import annotations

import pytest
from harness import condition
from rooms import ADMIN, HOST, ROOM, configure, enter, join, make, read_list, say, set_item

from nestbox.config import Limits
from nestbox.wire.stanza import Stanza, parse_stanza


@pytest.fixture
def limits(request):
    return Limits(**getattr(request, "param", {}))


def limited(**limits):
    return pytest.mark.parametrize("limits", [limits], indirect=True)


@limited(rooms_per_user=2)
async def test_an_account_owns_so_many_rooms(world):
    anna = await world.client("anna", worker=2)
    for number in range(2):
        await join(anna, "Anna", f"room{number}@{HOST}")
    await enter(anna, "Anna", f"room2@{HOST}")
    assert condition(await anna.expect("presence", type="error")) == "resource-constraint"
    assert world.limits_hit() == {"rooms_per_user": 1}
    assert await world.servers[1].store.rooms.get("room2") is None
    await anna.send(f"<presence to='room0@{HOST}/Anna' type='unavailable'/>")
    await world.settle()
    await join(anna, "Anna", f"room2@{HOST}")


@limited(room_occupants=2)
async def test_a_room_holds_so_many_sessions(world):
    anna = await make(world)
    ben, cleo = await world.client("ben", worker=2), await world.client("cleo", worker=2)
    await join(ben, "Ben")
    await enter(cleo, "Cleo")
    error = await cleo.expect("presence", type="error")
    assert condition(error) == "service-unavailable"
    assert error.find("{jabber:client}error").get("type") == "wait"
    assert world.limits_hit() == {"room_occupants": 1}
    await set_item(anna, f"affiliation='admin' jid='{cleo.bare}'")
    await enter(cleo, "Cleo")  # the server's own limit is for admins, too
    assert condition(await cleo.expect("presence", type="error")) == "service-unavailable"


@limited(room_affiliations=3)
async def test_a_rooms_lists_are_so_long(world):
    anna = await make(world, membersonly="1")
    await world.user("dora")
    items = "".join(f"<item affiliation='member' jid='{name}@nestbox.test'/>" for name in ("ben", "cleo"))
    assert (await anna.iq("set", f"<query xmlns='{ADMIN}'>{items}</query>", ROOM)).type == "result"
    answer = await set_item(anna, "affiliation='outcast' jid='eve@nestbox.test'")
    assert condition(answer) == "resource-constraint"
    invite = "<invite to='dora@nestbox.test'/>"
    await anna.send(f"<message to='{ROOM}'><x xmlns='http://jabber.org/protocol/muc#user'>{invite}</x></message>")
    assert condition(await anna.expect("message", type="error")) == "resource-constraint"
    assert condition(await configure(anna, roomadmins=["fred@nestbox.test"])) == "resource-constraint"
    assert world.limits_hit() == {"room_affiliations": 3}
    assert len(await read_list(anna, "affiliation='member'")) == 2
    assert (await set_item(anna, "affiliation='none' jid='ben@nestbox.test'")).type == "result"
    assert (await set_item(anna, "affiliation='outcast' jid='eve@nestbox.test'")).type == "result"


@limited(room_affiliations=1)
async def test_nobody_registers_with_a_full_room(world):
    await make(world)
    ben = await world.client("ben", worker=2)
    form = (
        "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>"
        "http://jabber.org/protocol/muc#register</value></field>"
        "<field var='muc#register_roomnick'><value>Ben</value></field></x>"
    )
    answer = await ben.iq("set", f"<query xmlns='jabber:iq:register'>{form}</query>", ROOM)
    assert condition(answer) == "resource-constraint" and world.limits_hit() == {"room_affiliations": 1}


@limited(room_history=3)
async def test_a_room_remembers_so_much(world):
    anna = await make(world, **{"muc#maxhistoryfetch": "100"})
    for number in range(5):
        await say(anna, str(number))
    ben = await world.client("ben", worker=2)
    await enter(ben, "Ben", inner="<history maxstanzas='100'/>")
    got = [each.element.findtext("{jabber:client}body") for each in await ben.drain() if each.kind == "message"]
    assert got == ["2", "3", "4", None]


async def test_long_presences_reasons_and_lists_are_refused(world):
    anna = await make(world)
    await anna.send(f"<presence to='{ROOM}/Anna'><status>{'x' * 9000}</status></presence>")
    assert condition(await anna.expect("presence", type="error")) == "policy-violation"
    answer = await set_item(anna, "affiliation='outcast' jid='eve@nestbox.test'", reason="x" * 1100)
    assert condition(answer) == "policy-violation"
    items = "".join(f"<item affiliation='member' jid='u{number}@nestbox.test'/>" for number in range(501))
    assert condition(await anna.iq("set", f"<query xmlns='{ADMIN}'>{items}</query>", ROOM)) == "bad-request"
    destroy = f"<destroy><reason>{'x' * 1100}</reason></destroy>"
    answer = await anna.iq("set", f"<query xmlns='http://jabber.org/protocol/muc#owner'>{destroy}</query>", ROOM)
    assert condition(answer) == "policy-violation"
    assert world.limits_hit() == {"room_presence_bytes": 1, "room_reason_bytes": 2, "room_changes": 1}


async def test_names_that_somebody_tries_are_forgotten(world, monkeypatch):
    monkeypatch.setattr("nestbox.modules.muc.service.OPEN_MAX", 5)
    anna = await make(world)
    ben = await world.client("ben", worker=1)
    rooms = world.servers[1].router.hosts[HOST].__self__.rooms
    for number in range(20):
        await ben.iq("get", "<ping xmlns='urn:xmpp:ping'/>", f"none{number}@{HOST}")
        for room in rooms.values():
            room.used -= 2.0
    await world.settle()
    assert 2 <= len(rooms) <= 6 and "tea" in rooms
    assert len(world.hub.hashes["muc-owners"]) <= 6
    await say(anna, "still open")
    await anna.expect("message", type="groupchat")


class Ear:
    """A client's link that only counts what it is sent."""

    def __init__(self):
        self.heard = []

    def send_stanza(self, data):
        self.heard.append(data)

    def end(self, error):
        pass


async def test_a_room_of_a_thousand(world, monkeypatch):
    """What a message costs besides its bytes for each is the same for one and for all: it is serialised once."""
    serialised = []
    encode = Stanza.encode
    monkeypatch.setattr(Stanza, "encode", lambda stanza, *to: (serialised.append(stanza.kind), encode(stanza, *to))[1])
    anna = await make(world, presencebroadcast=["moderator"])
    serialised.clear()
    await say(anna, "to myself")
    await world.settle()
    for_one = list(serialised)
    await world.user("crowd")
    servers = list(world.servers.values())
    ears = []
    for server in servers:
        server.config.limits.sessions_per_user = 2000
    for number in range(1000):
        ear, server = Ear(), servers[number % 2]
        session = await server.bind(ear, "crowd", f"r{number}", "127.0.0.1", "tcp")
        xml = f"<presence to='{ROOM}/n{number}'><x xmlns='http://jabber.org/protocol/muc'/></presence>"
        await server.router.from_client(session, parse_stanza(xml.encode()))
        ears.append(ear)
    await world.settle()
    for ear in ears:
        ear.heard.clear()
    sent = {server.bus.worker: 0 for server in servers}
    bus = world.servers[1].bus
    plain = bus.send
    bus.send = lambda worker, payload: (sent.__setitem__(worker, sent[worker] + 1), plain(worker, payload))
    serialised.clear()
    await say(anna, "to all of you")
    await world.settle()
    assert serialised == for_one == ["message"]
    assert [len(ear.heard) for ear in ears] == [1] * 1000
    assert all(b"to all of you" in ear.heard[0] for ear in ears)
    assert all(f'to="crowd@nestbox.test/r{number}"'.encode() in ear.heard[0] for number, ear in enumerate(ears))
    assert sent[2] == 1  # one message on the bus for all of the other worker's five hundred

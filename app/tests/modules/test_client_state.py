"""XEP-0352: what waits for a client that is not looked at, and what wakes it."""

from __future__ import annotations

import pytest
from harness import DOMAIN, show

from nestbox.core import session as core_session
from nestbox.modules.client_state import urgent
from nestbox.wire.element import el
from nestbox.wire.stanza import parse_stanza

STATE = "<composing xmlns='http://jabber.org/protocol/chatstates'/>"


def say(client, state: str) -> None:
    client.server.nonzas["{urn:xmpp:csi:0}" + state](client.session, el("{urn:xmpp:csi:0}" + state))


def bodies(stanzas) -> list[str]:
    return [stanza.element.findtext("{jabber:client}body") or stanza.kind for stanza in stanzas]


@pytest.mark.parametrize(
    "xml, expected",
    [
        ("<presence/>", False),
        ("<presence type='unavailable'/>", False),
        ("<presence type='subscribe'/>", True),
        ("<iq type='set' id='1'><query xmlns='jabber:iq:roster'/></iq>", True),
        ("<message><body>x</body></message>", True),
        (f"<message><body>x</body>{STATE}</message>", True),
        (f"<message>{STATE}</message>", False),
        (f"<message>{STATE}<no-store xmlns='urn:xmpp:hints'/><thread>1</thread></message>", False),
        ("<message><event xmlns='http://jabber.org/protocol/pubsub#event'/></message>", False),
        ("<message><encrypted xmlns='urn:xmpp:omemo:2'/></message>", True),
        ("<message><propose xmlns='urn:xmpp:jingle-message:0' id='1'/></message>", True),
        (f"<message>{STATE}<request xmlns='urn:xmpp:receipts'/></message>", True),
    ],
)
def test_what_may_wait(xml, expected):
    assert urgent(parse_stanza(xml.encode())) is expected


@pytest.mark.parametrize("worker", [1, 2])
async def test_little_things_wait_and_come_in_order(world, worker):
    await world.friends("alice", "bob")
    alice = await world.client("alice")
    bob = await world.client("bob", worker=worker)
    await alice.drain()
    say(bob, "inactive")
    await alice.send("<presence><show>away</show></presence>")
    await alice.send(f"<message to='{bob.bare}' type='chat'>{STATE}</message>")
    await bob.nothing()
    await alice.send(f"<message to='{bob.bare}' type='chat'><body>wake up</body></message>")
    presence, typing, wake_up = got = await bob.drain()
    assert bodies(got) == ["presence", "message", "wake up"]
    for held in (presence, typing):  # what has waited is no news
        assert held.find("{urn:xmpp:delay}delay").get("from") == DOMAIN
    assert not wake_up.has("{urn:xmpp:delay}delay")
    await alice.send("<presence/>")
    await bob.nothing()  # still inactive
    say(bob, "active")
    assert bodies(await bob.drain()) == ["presence"]
    await alice.send("<presence/>")
    assert bodies(await bob.drain()) == ["presence"]


async def test_of_a_resource_only_the_newest_presence_waits(world):
    await world.friends("alice", "bob")
    alice = await world.client("alice", "desk")
    phone = await world.client("alice", "phone", worker=2)
    bob = await world.client("bob")
    say(bob, "inactive")
    for state in ("away", "dnd", "xa"):
        await alice.send(f"<presence><show>{state}</show></presence>")
    await phone.leave()
    await bob.nothing()
    await alice.send("<presence><show>chat</show></presence>")
    await bob.nothing()
    say(bob, "active")
    came = [(s.from_, s.type, s.element.findtext("{jabber:client}show")) for s in await bob.drain()]
    assert came == [(phone.jid, "unavailable", None), (alice.jid, None, "chat")]


async def test_what_waits_is_bounded(world, monkeypatch):
    monkeypatch.setattr(core_session, "HELD_MAX", 5)
    alice = await world.client("alice")
    bob = await world.client("bob")
    say(bob, "inactive")
    for _ in range(4):
        await alice.send(f"<message to='{bob.bare}' type='chat'>{STATE}</message>")
    await bob.nothing()
    await alice.send(f"<message to='{bob.bare}' type='chat'>{STATE}</message>")
    assert len(await bob.drain()) == 5
    padding = f"<x xmlns='http://jabber.org/protocol/chatstates'>{'x' * core_session.HELD_BYTES}</x>"
    await alice.send(f"<message to='{bob.bare}' type='chat'>{padding}</message>")
    assert len(await bob.drain()) == 1


async def test_nobody_else_learns_of_it(world):
    await world.friends("alice", "bob")
    alice = await world.client("alice")
    bob = await world.client("bob")
    await alice.drain()
    say(bob, "inactive")
    say(bob, "active")
    assert [show(stanza) for stanza in await alice.drain()] == []


async def test_a_carbon_of_a_chat_state_waits_too(world):
    alice = await world.client("alice")
    desk = await world.client("bob", "desk", worker=2)
    phone = await world.client("bob", "phone")
    await phone.iq("set", "<enable xmlns='urn:xmpp:carbons:2'/>")
    await world.settle()
    phone.received.clear()
    say(phone, "inactive")
    await alice.send(f"<message to='{desk.jid}' type='chat'>{STATE}</message>")
    await desk.expect("message")
    await phone.nothing("message")
    await alice.send(f"<message to='{desk.jid}' type='chat'><body>hi</body></message>")
    assert len([stanza for stanza in await phone.drain() if stanza.kind == "message"]) == 2


async def test_it_is_offered(world):
    assert b'<csi xmlns="urn:xmpp:csi:0"/>' in world.servers[1].stream_features

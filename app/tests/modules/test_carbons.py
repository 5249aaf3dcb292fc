"""XEP-0280: every device sees both sides, once, and nobody can forge that."""

from __future__ import annotations

import pytest
from harness import condition

from nestbox.wire.stanza import STANZA_ID

RECEIVED = "{urn:xmpp:carbons:2}received"
SENT = "{urn:xmpp:carbons:2}sent"
MESSAGE = "{urn:xmpp:forward:0}forwarded/{jabber:client}message"
ENABLE = "<enable xmlns='urn:xmpp:carbons:2'/>"
DISABLE = "<disable xmlns='urn:xmpp:carbons:2'/>"
STATE = "<composing xmlns='http://jabber.org/protocol/chatstates'/>"


async def device(world, name: str, resource: str, *, worker: int = 1, carbons: bool = True, **kwargs):
    client = await world.client(name, resource, worker=worker, **kwargs)
    if carbons:
        assert (await client.iq("set", ENABLE)).type == "result"
    return client


@pytest.fixture
async def alice(world):
    return await world.client("alice", "one")


@pytest.fixture
async def desk(world):
    return await device(world, "bob", "desk")


@pytest.fixture
async def phone(world, desk):
    phone = await device(world, "bob", "phone", worker=2)
    await desk.drain()
    await phone.drain()
    return phone


def inner(copy, name: str):
    return copy.find(name).find(MESSAGE)


async def test_the_other_device_gets_what_was_received(alice, desk, phone):
    await alice.send(f"<message to='{desk.jid}' type='chat' id='m1'><body>hi</body></message>")
    original = await desk.expect("message", id="m1")
    copy = await phone.expect("message")
    assert (copy.from_, copy.to, copy.type) == (desk.bare, phone.jid, "chat")
    message = inner(copy, RECEIVED)
    assert (message.get("from"), message.get("to"), message.get("id")) == (alice.jid, desk.jid, "m1")
    assert message.findtext("{jabber:client}body") == "hi"
    assert message.find(STANZA_ID).attrib == original.find(STANZA_ID).attrib
    await desk.nothing()
    await phone.nothing()


async def test_the_other_device_gets_what_was_sent(alice, desk, phone):
    await desk.send(f"<message to='{alice.bare}' type='chat' id='m1'><body>hi</body></message>")
    original = await alice.expect("message", id="m1")
    copy = await phone.expect("message")
    assert (copy.from_, copy.to, copy.type) == (desk.bare, phone.jid, "chat")
    message = inner(copy, SENT)
    assert (message.get("from"), message.get("to")) == (desk.jid, alice.bare)
    theirs, ours = original.find(STANZA_ID), message.findall(STANZA_ID)
    assert [(i.get("by"), i.get("id")) for i in ours] == [(desk.bare, theirs.get("id"))]  # its own archive's, no other
    await desk.nothing()


async def test_nobody_gets_a_message_twice(alice, desk, phone):
    await alice.send(f"<message to='{desk.bare}' type='chat' id='m1'><body>hi</body></message>")
    for client in (desk, phone):
        assert [stanza.id for stanza in await client.drain()] == ["m1"]
    await desk.send(f"<message to='{desk.bare}' type='chat' id='m2'><body>note</body></message>")
    for client in (desk, phone):
        assert [stanza.id for stanza in await client.drain()] == ["m2"]
    await desk.send(f"<message to='{phone.jid}' type='chat' id='m3'><body>over there</body></message>")
    assert [stanza.id for stanza in await phone.drain()] == ["m3"]
    await desk.nothing()


async def test_only_those_that_asked_and_only_as_long(world, alice, desk):
    tablet = await device(world, "bob", "tablet", worker=2, carbons=False)
    phone = await device(world, "bob", "phone", worker=2)
    for client in (desk, tablet, phone):
        await client.drain()
    await alice.send(f"<message to='{desk.jid}' type='chat'><body>1</body></message>")
    await tablet.nothing()
    assert len(await phone.drain()) == 1
    assert (await phone.iq("set", ENABLE)).type == "result"  # again is no error
    assert (await phone.iq("set", DISABLE)).type == "result"
    assert (await phone.iq("set", DISABLE)).type == "result"
    await world.settle()
    await alice.send(f"<message to='{desk.jid}' type='chat'><body>2</body></message>")
    await phone.nothing()


async def test_a_device_with_negative_priority_gets_copies(world, alice, desk):
    watch = await device(world, "bob", "watch", presence="<presence><priority>-1</priority></presence>")
    await watch.drain()
    await alice.send(f"<message to='{desk.bare}' type='chat'><body>hi</body></message>")
    assert inner(await watch.expect("message"), RECEIVED) is not None


@pytest.mark.parametrize(
    "type, payload, copied",
    [
        ("chat", "<body>x</body>", True),
        ("chat", STATE, True),
        ("normal", "<body>x</body>", True),
        ("normal", "<received xmlns='urn:xmpp:receipts' id='1'/>", True),
        ("normal", "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>", True),
        ("chat", "<propose xmlns='urn:xmpp:jingle-message:0' id='1'/>", True),
        ("normal", "<x xmlns='jabber:x:conference' jid='room@rooms.nestbox.test'/>", True),
        ("normal", "<x xmlns='urn:example:custom'/>", False),
        ("headline", "<body>x</body>", False),
        ("groupchat", "<body>x</body>", False),
        ("error", "<body>x</body>", False),
        ("chat", "<body>x</body><no-copy xmlns='urn:xmpp:hints'/>", False),
        ("chat", "<body>x</body><private xmlns='urn:xmpp:carbons:2'/>", False),
        ("chat", "<x xmlns='http://jabber.org/protocol/muc#user'><invite from='a@nestbox.test'/></x>", True),
    ],
)
async def test_what_is_copied(world, alice, desk, phone, type, payload, copied):
    second = await device(world, "alice", "two", worker=2)
    await second.drain()
    await alice.send(f"<message to='{desk.jid}' type='{type}'>{payload}</message>")
    original = await desk.expect("message")
    assert original.find("{urn:xmpp:carbons:2}private") is None
    assert len(await phone.drain()) == copied
    assert len(await second.drain()) == copied


async def test_what_comes_from_an_occupant_of_a_room_is_copied_to_the_sender_only(world, alice, desk, phone):
    """Section 6.1: the room gives it to each of the recipient's sessions that is in the room."""
    second = await device(world, "alice", "two", worker=2)
    await second.drain()
    muc = "<x xmlns='http://jabber.org/protocol/muc#user'/>"
    await alice.send(f"<message to='{desk.jid}' type='chat'><body>x</body>{muc}</message>")
    await desk.expect("message")
    await phone.nothing("message")
    assert inner(await second.expect("message"), SENT) is not None


async def test_a_forged_copy_comes_from_its_forger(alice, desk, phone):
    """Clients believe copies from their own bare JID only (section 12); nobody can write that into a stanza."""
    forged = (
        "<received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' "
        f"from='carol@nestbox.test/x' to='{desk.jid}' type='chat'><body>money, please</body></message>"
        "</forwarded></received>"
    )
    await alice.send(f"<message to='{desk.jid}' type='chat'>{forged}</message>")
    assert (await desk.expect("message")).from_ == alice.jid
    copy = await phone.expect("message")
    assert inner(copy, RECEIVED).find(RECEIVED) is not None  # the forgery is inside, as what alice wrote
    assert inner(copy, RECEIVED).get("from") == alice.jid


async def test_carbons_are_switched_by_their_owner(alice, desk):
    assert condition(await alice.iq("set", ENABLE, to=desk.bare)) == "not-allowed"
    assert condition(await alice.iq("set", DISABLE, to=desk.bare)) == "not-allowed"
    assert desk.session.entry.carbons


async def test_it_is_announced(world):
    assert "urn:xmpp:carbons:2" in world.servers[1].host_features


async def test_a_bounced_copy_bothers_nobody(alice, desk, phone):
    await alice.send(f"<message to='{desk.jid}' type='chat'><body>hi</body></message>")
    copy = await phone.expect("message")
    error = "<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
    await phone.send(f"<message to='{copy.from_}' type='error'>{error}</message>")
    await alice.nothing()

"""XEP-0398: one picture in PEP (XEP-0084), vCard and presence (XEP-0153)."""

from __future__ import annotations

import base64

from avatar import DATA, METADATA, UPDATE, info, photo_hash, publish_avatar, sha1
from harness import DOMAIN
from pep import event, ids, items, listener, publish

VCARD = "{vcard-temp}"
PICTURE = b"\x89PNG " + bytes(range(200))
OTHER = b"\xff\xd8\xff" + bytes(range(200))


def vcard(picture: bytes | None) -> str:
    if picture is None:
        return "<vCard xmlns='vcard-temp'><FN>Alice</FN></vCard>"
    data = base64.encodebytes(picture).decode()
    photo = f"<PHOTO><TYPE>image/jpeg</TYPE><BINVAL>\n{data}</BINVAL></PHOTO>"
    return f"<vCard xmlns='vcard-temp'><FN>Alice</FN>{photo}</vCard>"


async def test_a_published_picture_is_in_the_vcard_and_in_presence(world):
    await world.friends("alice", "bob")
    alice = await world.client("alice")
    bob = await listener(world, "bob", METADATA, worker=2)
    bob.received.clear()
    await alice.iq("set", vcard(None))
    await publish_avatar(alice, PICTURE, "<info bytes='1' id='x' type='image/gif' url='https://x.org/y'/>")
    assert (await event(bob, METADATA))[0].get("id") == sha1(PICTURE)
    presence = await bob.expect("presence", from_=alice.jid)
    assert photo_hash(presence) == sha1(PICTURE)
    card = (await bob.iq("get", "<vCard xmlns='vcard-temp'/>", alice.bare)).payload
    assert card.findtext(VCARD + "FN") == "Alice"
    assert card.find(VCARD + "PHOTO").findtext(VCARD + "TYPE") == "image/png"
    assert base64.b64decode(card.find(VCARD + "PHOTO").findtext(VCARD + "BINVAL")) == PICTURE


async def test_a_new_session_and_directed_presence_have_the_hash_on_every_worker(world):
    await world.friends("alice", "bob")
    alice = await world.client("alice")
    await publish_avatar(alice, PICTURE)
    bob = await world.client("bob")
    eve = await world.client("eve", worker=2)
    phone = await world.client("alice", "phone", worker=2)
    assert photo_hash(await bob.expect("presence", from_=phone.jid)) == sha1(PICTURE)
    await phone.send(f"<presence to='{eve.bare}'/>")
    assert photo_hash(await eve.expect("presence", from_=phone.jid)) == sha1(PICTURE)


async def test_the_client_may_show_no_picture_and_an_empty_element_is_filled(world):
    await world.friends("alice", "bob")
    alice = await world.client("alice")
    await publish_avatar(alice, PICTURE)
    bob = await world.client("bob", worker=2)
    for inner, expected in (
        ("<photo/>", ""),
        ("", sha1(PICTURE)),
        (f"<photo>{'0' * 40}</photo>", sha1(PICTURE)),
    ):
        await alice.send(f"<presence><x xmlns='vcard-temp:x:update'>{inner}</x></presence>")
        presence = await bob.expect("presence", from_=alice.jid)
        assert photo_hash(presence) == expected
        assert len(presence.element.findall(UPDATE + "x")) == 1


async def test_without_a_picture_presence_is_left_alone(world):
    await world.friends("alice", "bob")
    alice, bob = await world.client("alice"), await world.client("bob", worker=2)
    await alice.send("<presence><show>away</show></presence>")
    assert photo_hash(await bob.expect("presence", from_=alice.jid)) is None
    await alice.send("<presence><x xmlns='vcard-temp:x:update'><photo>abc</photo></x></presence>")
    assert photo_hash(await bob.expect("presence", from_=alice.jid)) == "abc"


async def test_the_photo_of_a_vcard_is_published(world):
    await world.friends("alice", "bob")
    alice = await world.client("alice", worker=2)
    bob = await listener(world, "bob", METADATA)
    bob.received.clear()
    assert (await alice.iq("set", vcard(OTHER))).type == "result"
    said = (await event(bob, METADATA))[0]
    assert said.get("id") == sha1(OTHER)
    assert said[0][0].attrib == {"bytes": str(len(OTHER)), "id": sha1(OTHER), "type": "image/jpeg"}
    data = (await items(bob, DATA, alice.bare, f"<item id='{sha1(OTHER)}'/>")).payload
    assert base64.b64decode(data[0][0][0].text) == OTHER
    assert photo_hash(await bob.expect("presence", from_=alice.jid)) == sha1(OTHER)
    assert (await alice.iq("set", vcard(OTHER).replace("Alice", "Alicia"))).type == "result"
    await bob.nothing()  # the same picture is no news


async def test_taking_the_picture_away_works_both_ways(world):
    await world.friends("alice", "bob")
    alice = await world.client("alice")
    bob = await listener(world, "bob", METADATA, worker=2)
    bob.received.clear()
    await publish_avatar(alice, PICTURE)
    await event(bob, METADATA)
    await bob.expect("presence", from_=alice.jid)
    assert (await publish(alice, METADATA, "off", f"<metadata xmlns='{METADATA}'/>")).type == "result"
    assert photo_hash(await bob.expect("presence", from_=alice.jid)) == ""
    assert (await alice.iq("get", "<vCard xmlns='vcard-temp'/>")).payload.find(VCARD + "PHOTO") is None
    await event(bob, METADATA)
    await alice.iq("set", vcard(PICTURE))
    assert photo_hash(await bob.expect("presence", from_=alice.jid)) == sha1(PICTURE)
    await event(bob, METADATA)
    await alice.iq("set", vcard(None))
    assert len((await event(bob, METADATA))[0][0]) == 0
    assert photo_hash(await bob.expect("presence", from_=alice.jid)) == ""


async def test_a_picture_that_is_not_what_it_says_is_not_taken_over(world):
    alice = await world.client("alice")
    data = base64.b64encode(OTHER).decode()
    await publish(alice, DATA, sha1(PICTURE), f"<data xmlns='{DATA}'>{data}</data>")
    await publish(alice, METADATA, sha1(PICTURE), f"<metadata xmlns='{METADATA}'>{info(PICTURE)}</metadata>")
    await publish(alice, METADATA, "b", f"<metadata xmlns='{METADATA}'>{info(OTHER)}</metadata>")  # no data of that id
    assert (await alice.iq("get", "<vCard xmlns='vcard-temp'/>")).payload.find(VCARD + "PHOTO") is None
    assert alice.session.user.photo == ""
    await alice.iq("set", "<vCard xmlns='vcard-temp'><PHOTO><BINVAL>%%%</BINVAL></PHOTO></vCard>")
    assert ids(await items(alice, METADATA)) == ["b"]


async def test_the_account_says_that_it_converts(world):
    alice = await world.client("alice")
    info = (await alice.iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", f"alice@{DOMAIN}")).payload
    assert "urn:xmpp:pep-vcard-conversion:0" in {each.get("var") for each in info}

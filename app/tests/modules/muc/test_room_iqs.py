"""Disco, pings, iqs through the room, the room's picture (XEP-0030, 0045, 0410, 0486, 0054)."""

from __future__ import annotations

import base64
import hashlib

import pytest
from harness import condition, show
from rooms import HOST, ROOM, codes, configure, join, make, set_item

INFO = "<query xmlns='http://jabber.org/protocol/disco#info'/>"
ITEMS = "<query xmlns='http://jabber.org/protocol/disco#items'/>"
RSM = "http://jabber.org/protocol/rsm"
PING = "<ping xmlns='urn:xmpp:ping'/>"


def identity(answer):
    found = answer.payload.find("{http://jabber.org/protocol/disco#info}identity")
    return found.get("category"), found.get("type"), found.get("name")


def features(answer):
    return {each.get("var") for each in answer.payload.iter("{http://jabber.org/protocol/disco#info}feature")}


def field(answer, name):
    for each in answer.payload.iter("{jabber:x:data}field"):
        if each.get("var") == name:
            return [value.text or "" for value in each]
    return None


async def test_the_host_is_found(world):
    anna = await world.client("anna", worker=2)
    hosts = await anna.iq("get", ITEMS, "nestbox.test")
    assert HOST in [each.get("jid") for each in hosts.payload]
    answer = await anna.iq("get", INFO, HOST)
    assert identity(answer)[:2] == ("conference", "text")
    assert {"http://jabber.org/protocol/muc", "urn:xmpp:ping", RSM} <= features(answer)
    assert (await anna.iq("get", PING, HOST)).type == "result"
    assert condition(await anna.iq("get", "<x xmlns='urn:example'/>", HOST)) == "service-unavailable"
    node = INFO.replace("/>", " node='x'/>")
    assert condition(await anna.iq("get", node, HOST)) == "item-not-found"


async def test_public_rooms_are_listed_in_pages(world):
    anna = await make(world, roomname="Tea")
    for name in ("a", "b", "hidden"):
        await join(anna, "Anna", f"{name}@{HOST}")
        await configure(anna, f"{name}@{HOST}", publicroom="0" if name == "hidden" else "1")
    await join(anna, "Anna", f"locked@{HOST}")
    ben = await world.client("ben", worker=2)
    answer = await ben.iq("get", ITEMS, HOST)
    assert {each.get("jid"): each.get("name") for each in answer.payload} == {
        f"a@{HOST}": "a",
        f"b@{HOST}": "b",
        ROOM: "Tea",
    }

    async def page(inner):
        answer = await ben.iq("get", ITEMS.replace("/>", f"><set xmlns='{RSM}'>{inner}</set></query>"), HOST)
        assert answer.element.findtext(f".//{{{RSM}}}count") == "3"
        return [each.get("jid").partition("@")[0] for each in answer.payload if each.get("jid")]

    assert await page("<max>2</max>") == ["a", "b"]
    assert await page(f"<max>2</max><after>b@{HOST}</after>") == ["tea"]
    assert await page("<max>2</max><before/>") == ["b", "tea"]
    assert await page(f"<max>2</max><before>b@{HOST}</before>") == ["a"]
    assert await page("<max>0</max>") == []
    for stranger in ("b", "b@elsewhere.test"):  # an id that nobody was given
        asked = ITEMS.replace("/>", f"><set xmlns='{RSM}'><after>{stranger}</after></set></query>")
        assert condition(await ben.iq("get", asked, HOST)) == "item-not-found"


async def test_a_room_says_what_it_is(world):
    anna = await make(world, roomname="Tea", roomdesc="at five", lang="en")
    await anna.send(f"<message to='{ROOM}' type='groupchat'><subject>Earl Grey</subject></message>")
    ben = await world.client("ben", worker=2)
    answer = await ben.iq("get", INFO, ROOM)
    assert identity(answer) == ("conference", "text", "Tea")
    muc = "http://jabber.org/protocol/muc"
    assert {
        muc, f"{muc}#stable_id", f"{muc}#self-ping-optimization", f"{muc}#request", "jabber:iq:register", "vcard-temp",
        "urn:xmpp:mam:2", "urn:xmpp:sid:0", "urn:xmpp:occupant-id:0", "urn:xmpp:message-moderate:1",
        "urn:xmpp:message-retract:1", "urn:xmpp:message-retract:1#tombstone", "muc_public", "muc_open", "muc_temporary",
        "muc_unmoderated", "muc_unsecured", "muc_semianonymous",
    } <= features(answer)  # fmt: skip
    assert field(answer, "FORM_TYPE") == [f"{muc}#roominfo"]
    assert field(answer, "muc#roominfo_description") == ["at five"]
    assert field(answer, "muc#roominfo_occupants") == ["1"] and field(answer, "muc#roominfo_lang") == ["en"]
    assert field(answer, "muc#roominfo_subject") == ["Earl Grey"] and field(answer, "muc#roominfo_contactjid") is None
    assert condition(await ben.iq("get", INFO, f"no-{ROOM}")) == "item-not-found"
    assert condition(await ben.iq("get", INFO.replace("/>", " node='x'/>"), ROOM)) == "item-not-found"


async def test_who_is_inside_is_told_to_those_who_may_know(world):
    anna = await make(world)
    ben = await world.client("ben", worker=2)

    async def items():
        return [each.get("jid") for each in (await ben.iq("get", ITEMS, ROOM)).payload]

    assert await items() == [f"{ROOM}/Anna"]
    await configure(anna, publicroom="0")
    assert await items() == []
    await set_item(anna, f"affiliation='member' jid='{ben.bare}'")
    assert await items() == [f"{ROOM}/Anna"]


async def test_a_ping_to_oneself_says_whether_one_is_inside(world):
    anna = await make(world)
    ben = await world.client("ben", worker=2)
    assert condition(await ben.iq("get", PING, f"{ROOM}/Ben")) == "not-acceptable"
    await join(ben, "Ben")
    assert (await ben.iq("get", PING, f"{ROOM}/Ben")).type == "result"
    assert condition(await ben.iq("get", PING, f"{ROOM}/Benny")) == "item-not-found"
    assert (await ben.iq("get", PING, ROOM)).type == "result"
    await anna.nothing("iq")
    await set_item(anna, "nick='Ben' role='none'")
    assert condition(await ben.iq("get", PING, f"{ROOM}/Ben")) == "not-acceptable"


async def test_who_has_waited_longest_is_told_when_too_many_wait(world, monkeypatch):
    monkeypatch.setattr("nestbox.modules.muc.iqs.PENDING_MAX", 2)
    anna = await make(world)
    ben = await world.client("ben", worker=2)
    await join(ben, "Ben")
    for number in range(3):
        await ben.send(f"<iq type='get' id='v{number}' to='{ROOM}/Anna'><query xmlns='jabber:iq:version'/></iq>")
    asked = [await anna.expect("iq", type="get") for _ in range(3)]
    answer = await ben.expect("iq", type="error")
    assert (answer.id, answer.from_, condition(answer)) == ("v0", f"{ROOM}/Anna", "resource-constraint")
    assert world.limits_hit() == {"room_iqs": 1}
    for question in asked:
        await anna.send(f"<iq type='result' id='{question.id}' to='{ROOM}/Ben'/>")
    assert [(await ben.expect("iq", type="result")).id for _ in range(2)] == ["v1", "v2"]
    await ben.nothing("iq")


@pytest.mark.parametrize("kind", ["result", "error"])
async def test_iqs_go_through_the_room_and_back(world, kind):
    anna = await make(world)
    ben = await world.client("ben", worker=2)
    await join(ben, "Ben")
    await ben.send(f"<iq type='get' id='v' to='{ROOM}/Anna'><query xmlns='jabber:iq:version'/></iq>")
    asked = await anna.expect("iq", type="get")
    assert asked.from_ == f"{ROOM}/Ben" and asked.to == anna.jid and asked.id != "v" and ben.bare not in show(asked)
    # Only who was asked answers.
    cleo = await world.client("cleo", worker=2)
    await join(cleo, "Cleo")
    await cleo.send(f"<iq type='result' id='{asked.id}' to='{ROOM}/Ben'><forged xmlns='urn:example'/></iq>")
    await ben.nothing("iq")
    await anna.send(f"<iq type='{kind}' id='{asked.id}' to='{ROOM}/Ben'><query xmlns='jabber:iq:version'/></iq>")
    answer = await ben.expect("iq", type=kind)
    assert (answer.from_, answer.to, answer.id) == (f"{ROOM}/Anna", ben.jid, "v")
    await anna.send(f"<iq type='result' id='{asked.id}' to='{ROOM}/Ben'/>")
    await ben.nothing("iq")


async def test_iqs_of_strangers_stay_outside(world):
    anna = await make(world)
    eve = await world.client("eve", worker=2)
    query = "<query xmlns='jabber:iq:version'/>"
    assert condition(await eve.iq("get", query, f"{ROOM}/Anna")) == "not-acceptable"
    assert condition(await anna.iq("get", query, f"{ROOM}/Nobody")) == "item-not-found"
    assert condition(await anna.iq("get", query, ROOM)) == "service-unavailable"
    await anna.nothing("iq")


async def test_an_occupants_vcard_is_that_of_the_account(world):
    anna = await make(world)
    ben = await world.client("ben", worker=2)
    await join(ben, "Ben")
    assert (await anna.iq("set", "<vCard xmlns='vcard-temp'><FN>Anna A.</FN></vCard>")).type == "result"
    answer = await ben.iq("get", "<vCard xmlns='vcard-temp'/>", f"{ROOM}/Anna")
    assert answer.type == "result" and answer.from_ == f"{ROOM}/Anna"
    assert answer.payload.findtext("{vcard-temp}FN") == "Anna A." and anna.bare not in show(answer)
    answer = await anna.iq("get", "<vCard xmlns='vcard-temp'/>", f"{ROOM}/Ben")
    assert condition(answer) == "service-unavailable" and answer.from_ == f"{ROOM}/Ben"


async def test_the_rooms_picture(world):
    anna = await make(world)
    ben = await world.client("ben", worker=2)
    await join(ben, "Ben")
    picture = b"not really a picture"
    digest = hashlib.sha1(picture).hexdigest()
    photo = f"<PHOTO><TYPE>image/png</TYPE><BINVAL>{base64.b64encode(picture).decode()}</BINVAL></PHOTO>"
    card = f"<vCard xmlns='vcard-temp'>{photo}</vCard>"
    assert condition(await ben.iq("get", "<vCard xmlns='vcard-temp'/>", ROOM)) == "item-not-found"
    assert condition(await ben.iq("set", card, ROOM)) == "forbidden"
    assert (await anna.iq("set", card, ROOM)).type == "result"
    assert codes(await ben.expect("message", from_=ROOM)) == {104}
    seen = await ben.expect("presence", from_=ROOM)
    assert seen.element.findtext("{vcard-temp:x:update}x/{vcard-temp:x:update}photo") == digest
    assert field(await ben.iq("get", INFO, ROOM), "muc#roominfo_avatarhash") == [digest]
    got = await ben.iq("get", "<vCard xmlns='vcard-temp'/>", ROOM)
    assert base64.b64decode(got.payload.findtext("{vcard-temp}PHOTO/{vcard-temp}BINVAL")) == picture
    cleo = await world.client("cleo", worker=2)
    await join(cleo, "Cleo")
    assert (await cleo.expect("presence", from_=ROOM)).has("{vcard-temp:x:update}x")
    assert (await anna.iq("set", "<vCard xmlns='vcard-temp'/>", ROOM)).type == "result"
    assert field(await ben.iq("get", INFO, ROOM), "muc#roominfo_avatarhash") is None
    assert len((await ben.iq("get", "<vCard xmlns='vcard-temp'/>", ROOM)).payload) == 0
    assert condition(await anna.iq("set", card.replace("</BINVAL>", "!</BINVAL>"), ROOM)) == "bad-request"
    assert (
        condition(await anna.iq("set", card.replace("</TYPE>", f"</TYPE>{'x' * 200_000}"), ROOM)) == "policy-violation"
    )
    assert world.limits_hit() == {"room_vcard_bytes": 1}

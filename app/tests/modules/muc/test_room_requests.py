"""Invitations, voice, registration (XEP-0045, sections 7.8, 7.10, 7.13 and 8.6; XEP-0249)."""

from __future__ import annotations

import pytest
from harness import condition
from rooms import DATA, MUC, ROOM, USER, X, codes, configure, enter, form, item, join, make, read_list, say, set_item

REGISTER = "jabber:iq:register"


async def invite(client, *to, reason="come"):
    inner = "".join(f"<invite to='{each}'><reason>{reason}</reason></invite>" for each in to)
    await client.send(f"<message to='{ROOM}'><x xmlns='{MUC}#user'>{inner}</x></message>")


async def test_an_invitation_is_passed_on(world):
    anna = await make(world, passwordprotectedroom="1", roomsecret="open")
    ben = await world.client("ben", worker=2)
    await invite(anna, ben.bare)
    got = await ben.expect("message", from_=ROOM)
    given = got.find(X).find(f"{{{MUC}#user}}invite")
    assert given.get("from") == anna.bare and given.findtext(f"{{{MUC}#user}}reason") == "come"
    assert got.find(X).findtext(f"{{{MUC}#user}}password") == "open"
    direct = got.find("{jabber:x:conference}x")
    assert (direct.get("jid"), direct.get("reason"), direct.get("password")) == (ROOM, "come", "open")


async def test_an_invitation_waits_for_one_who_is_not_there(world):
    anna = await make(world)
    await world.user("ben")
    await invite(anna, "ben@nestbox.test")
    await world.settle()
    ben = await world.client("ben", worker=2, presence=None)
    await ben.send("<presence/>")
    got = await ben.expect("message", from_=ROOM)
    assert got.find(X).find(f"{{{MUC}#user}}invite").get("from") == anna.bare and got.has("{urn:xmpp:delay}delay")


async def test_whoever_is_invited_to_a_members_only_room_becomes_its_member(world):
    anna = await make(world, membersonly="1")
    ben, cleo = await world.client("ben", worker=2), await world.client("cleo", worker=2)
    await invite(anna, ben.bare)
    await ben.expect("message", tag=X)
    await join(ben, "Ben")
    await invite(ben, cleo.bare)
    assert condition(await ben.expect("message", type="error")) == "forbidden"
    await configure(anna, allowinvites="1")
    await invite(ben, cleo.bare)
    await join(cleo, "Cleo")
    assert {each["jid"] for each in await read_list(anna, "affiliation='member'")} == {ben.bare, cleo.bare}


@pytest.mark.parametrize(
    ("to", "error"),
    [
        ("nobody@nestbox.test", "item-not-found"),
        ("@@", "jid-malformed"),
        ("nestbox.test", "jid-malformed"),
        ("ben@other.example", "remote-server-not-found"),
        ("eve@nestbox.test", "forbidden"),
    ],
)
async def test_whom_one_cannot_invite(world, to, error):
    anna = await make(world)
    await world.user("eve")
    await set_item(anna, "affiliation='outcast' jid='eve@nestbox.test'")
    await anna.drain()
    await invite(anna, to)
    assert condition(await anna.expect("message", type="error")) == error


async def test_only_those_inside_invite_and_not_the_whole_world(world):
    anna = await make(world)
    ben = await world.client("ben", worker=2)
    await invite(ben, anna.bare)
    assert condition(await ben.expect("message", type="error")) == "not-acceptable"
    await invite(anna, *[ben.bare] * 21)
    assert condition(await anna.expect("message", type="error")) == "policy-violation"
    assert world.limits_hit() == {"room_invites": 1}
    long = f"<invite to='{ben.bare}'><reason>{'x' * 1025}</reason></invite>"
    await anna.send(f"<message to='{ROOM}'><x xmlns='{USER}'>{long}</x></message>")
    assert condition(await anna.expect("message", type="error")) == "policy-violation"
    assert world.limits_hit()["room_reason_bytes"] == 1
    await ben.nothing("message")


async def test_an_invitation_is_declined(world):
    anna = await make(world)
    ben = await world.client("ben", worker=2)
    decline = f"<decline to='{anna.bare}'><reason>no time</reason></decline>"
    await ben.send(f"<message to='{ROOM}'><x xmlns='{MUC}#user'>{decline}</x></message>")
    told = (await anna.expect("message", from_=ROOM)).find(X).find(f"{{{MUC}#user}}decline")
    assert told.get("from") == ben.bare and told.findtext(f"{{{MUC}#user}}reason") == "no time"
    decline = "<decline to='cleo@nestbox.test'/>"
    await ben.send(f"<message to='{ROOM}'><x xmlns='{MUC}#user'>{decline}</x></message>")
    assert condition(await ben.expect("message", type="error")) == "item-not-found"


async def test_a_visitor_asks_for_voice(world):
    anna = await make(world, moderatedroom="1")
    ben, cleo = await world.client("ben", worker=2), await world.client("cleo", worker=2)
    await join(ben, "Ben")
    await join(cleo, "Cleo")
    await anna.drain()
    request = form({"FORM_TYPE": f"{MUC}#request", "muc#role": "participant"})
    await ben.send(f"<message to='{ROOM}'>{request}</message>")
    asked = (await anna.expect("message", from_=ROOM)).find(f"{{{DATA}}}x")
    fields = {each.get("var"): each.findtext(f"{{{DATA}}}value") for each in asked.iterfind(f"{{{DATA}}}field")}
    assert asked.get("type") == "form" and fields == {
        "FORM_TYPE": f"{MUC}#request",
        "muc#role": "participant",
        "muc#jid": ben.jid,
        "muc#roomnick": "Ben",
        "muc#request_allow": "false",
    }
    await cleo.nothing("message")
    answer = {**fields, "muc#request_allow": "true"}
    await cleo.send(f"<message to='{ROOM}'>{form(answer)}</message>")
    assert condition(await cleo.expect("message", type="error")) == "forbidden"
    await ben.drain()
    await anna.send(f"<message to='{ROOM}'>{form({**fields, 'muc#request_allow': 'false'})}</message>")
    await ben.nothing("presence")
    await anna.send(f"<message to='{ROOM}'>{form(answer)}</message>")
    assert item(await ben.expect("presence", from_=f"{ROOM}/Ben"))["role"] == "participant"
    await anna.send(f"<message to='{ROOM}'>{form({**answer, 'muc#jid': '', 'muc#roomnick': ''})}</message>")
    assert condition(await anna.expect("message", type="error")) == "bad-request"
    await anna.send(f"<message to='{ROOM}'>{form({**answer, 'muc#jid': cleo.jid, 'muc#roomnick': ''})}</message>")
    assert item(await cleo.expect("presence", from_=f"{ROOM}/Cleo"))["role"] == "participant"


async def register(client, nick):
    fields = {"FORM_TYPE": f"{MUC}#register", "muc#register_roomnick": nick}
    return await client.iq("set", f"<query xmlns='{REGISTER}'>{form(fields)}</query>", ROOM)


async def test_registering_reserves_a_nick(world):
    anna = await make(world)
    ben, cleo = await world.client("ben", worker=2), await world.client("cleo", worker=2)
    asked = await ben.iq("get", f"<query xmlns='{REGISTER}'/>", ROOM)
    names = [each.get("var") for each in asked.payload.iter(f"{{{DATA}}}field")]
    assert names == ["FORM_TYPE", "muc#register_roomnick"]
    assert asked.payload.find(f"{{{REGISTER}}}registered") is None
    assert (await register(ben, "Ben")).type == "result"
    asked = await ben.iq("get", f"<query xmlns='{REGISTER}'/>", ROOM)
    assert asked.payload.find(f"{{{REGISTER}}}registered") is not None
    assert asked.payload.findtext(f"{{{REGISTER}}}username") == "Ben"
    node = "<query xmlns='http://jabber.org/protocol/disco#info' node='x-roomuser-item'/>"
    assert (await ben.iq("get", node, ROOM)).payload[0].get("name") == "Ben"
    assert len((await cleo.iq("get", node, ROOM)).payload) == 0
    await enter(cleo, "Ben")
    assert condition(await cleo.expect("presence", type="error")) == "conflict"
    assert condition(await register(cleo, "Ben")) == "conflict"
    assert condition(await register(cleo, "Anna")) == "conflict"  # she uses it
    assert condition(await register(cleo, "")) == "not-acceptable"
    assert item(await join(ben, "Ben"))["affiliation"] == "member"
    assert (await ben.iq("set", f"<query xmlns='{REGISTER}'><remove/></query>", ROOM)).type == "result"
    assert await read_list(anna, "affiliation='member'") == []
    answer = await ben.iq("set", f"<query xmlns='{REGISTER}'><remove/></query>", ROOM)
    assert condition(answer) == "registration-required"


async def test_registering_is_no_way_round_the_door_or_voice(world):
    anna = await make(world)
    ben = await world.client("ben", worker=2)
    for settings in ({"membersonly": "1"}, {"membersonly": "0", "moderatedroom": "1"}):
        await configure(anna, **settings)
        assert condition(await register(ben, "Ben")) == "not-allowed"
        assert condition(await ben.iq("get", f"<query xmlns='{REGISTER}'/>", ROOM)) == "not-allowed"
    await set_item(anna, f"affiliation='outcast' jid='{ben.bare}'")
    assert condition(await register(ben, "Ben")) == "forbidden"
    await set_item(anna, f"affiliation='member' jid='{ben.bare}'")
    assert (await register(ben, "Ben")).type == "result"
    assert (await register(anna, "Boss")).type == "result"
    owners = await read_list(anna, "affiliation='owner'")
    assert [(each["jid"], each["nick"]) for each in owners] == [(anna.bare, "Boss")]
    assert (await anna.iq("set", f"<query xmlns='{REGISTER}'><remove/></query>", ROOM)).type == "result"
    assert [each["jid"] for each in await read_list(anna, "affiliation='owner'")] == [anna.bare]


async def test_an_admin_reserves_a_nick_for_a_member(world):
    anna = await make(world)
    ben, cleo = await world.client("ben", worker=2), await world.client("cleo", worker=2)
    await set_item(anna, f"affiliation='member' jid='{ben.bare}' nick='Chief'")
    assert condition(await set_item(anna, f"affiliation='member' jid='{cleo.bare}' nick='Chief'")) == "conflict"
    await enter(cleo, "Chief")
    assert condition(await cleo.expect("presence", type="error")) == "conflict"
    assert 110 in codes(await join(ben, "Chief"))
    await say(ben, "here")

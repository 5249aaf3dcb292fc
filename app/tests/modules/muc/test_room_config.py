"""Configuring and destroying rooms (XEP-0045, sections 10.1, 10.2, 10.9)."""

from __future__ import annotations

import pytest
from harness import condition, show
from rooms import DATA, MUC, OWNER, ROOM, X, codes, configure, enter, hears, item, join, make, say, set_item

INFO = "<query xmlns='http://jabber.org/protocol/disco#info'/>"


def values(x):
    """The values of a form by field."""
    return {
        field.get("var").removeprefix("muc#roomconfig_"): [
            value.text or "" for value in field.findall(f"{{{DATA}}}value")
        ]
        for field in x.iterfind(f"{{{DATA}}}field")
    }


async def get_form(client):
    """The configuration form, filled in."""
    answer = await client.iq("get", f"<query xmlns='{OWNER}'/>", ROOM)
    return values(answer.payload.find(f"{{{DATA}}}x"))


async def features(client):
    """What a room says of itself."""
    answer = await client.iq("get", INFO, ROOM)
    return {each.get("var") for each in answer.payload if each.get("var")}


async def test_the_form_shows_what_was_set(world):
    anna = await make(world)
    form = await get_form(anna)
    assert form["FORM_TYPE"] == [f"{MUC}#roomconfig"] and form["roomowners"] == [anna.bare]
    assert form["persistentroom"] == ["0"] and form["maxusers"] == ["none"] and form["whois"] == ["moderators"]
    new = {
        "roomname": "Tea & more",
        "roomdesc": "One\nTwo",
        "lang": "de",
        "persistentroom": "1",
        "publicroom": "0",
        "membersonly": "true",
        "moderatedroom": "1",
        "passwordprotectedroom": "1",
        "roomsecret": "open",
        "whois": "anyone",
        "maxusers": "30",
        "changesubject": "1",
        "allowinvites": "1",
        "allowpm": "moderators",
        "enablelogging": "0",
        "presencebroadcast": ["moderator"],
        "getmemberlist": [],
        "muc#maxhistoryfetch": "7",
        "roomadmins": ["ben@nestbox.test"],
    }
    sent = {name: value.replace("&", "&amp;") if isinstance(value, str) else value for name, value in new.items()}
    assert (await configure(anna, **sent)).type == "result"
    form = await get_form(anna)
    for name, value in new.items():
        wanted = value if isinstance(value, list) else [value.replace("true", "1")]
        assert form[name] == wanted, name
    found = await features(anna)
    for one, other in (
        ("muc_hidden", "muc_public"),
        ("muc_membersonly", "muc_open"),
        ("muc_moderated", "muc_unmoderated"),
        ("muc_passwordprotected", "muc_unsecured"),
        ("muc_nonanonymous", "muc_semianonymous"),
        ("muc_persistent", "muc_temporary"),
    ):
        assert one in found and other not in found
    assert "urn:xmpp:mam:2" not in found


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("whois", "everybody", "not-acceptable"),
        ("persistentroom", "maybe", "not-acceptable"),
        ("maxusers", "many", "not-acceptable"),
        ("presencebroadcast", "king", "not-acceptable"),
        ("roomname", "x" * 1100, "not-acceptable"),
        ("roomowners", "@@", "jid-malformed"),
        ("roomowners", "", "conflict"),
        ("passwordprotectedroom", "1", "not-acceptable"),
        ("FORM_TYPE", "other", "bad-request"),
    ],
)
async def test_wrong_values_are_refused_and_change_nothing(world, field, value, error):
    anna = await make(world)
    before = await get_form(anna)
    name = field if field == "FORM_TYPE" else f"muc#roomconfig_{field}"
    fields = {"FORM_TYPE": f"{MUC}#roomconfig", "muc#roomconfig_roomdesc": "new", name: value}
    inner = "".join(f"<field var='{each}'><value>{text}</value></field>" for each, text in fields.items())
    answer = await anna.iq("set", f"<query xmlns='{OWNER}'><x xmlns='{DATA}' type='submit'>{inner}</x></query>", ROOM)
    assert condition(answer) == error
    assert await get_form(anna) == before
    assert world.limits_hit() == ({"room_text_bytes": 1} if field == "roomname" else {})


async def test_only_owners_configure(world):
    anna = await make(world)
    ben = await world.client("ben", worker=2)
    await set_item(anna, f"affiliation='admin' jid='{ben.bare}'")
    assert condition(await ben.iq("get", f"<query xmlns='{OWNER}'/>", ROOM)) == "forbidden"
    assert condition(await configure(ben, roomname="mine")) == "forbidden"
    assert condition(await ben.iq("set", f"<query xmlns='{OWNER}'><destroy/></query>", ROOM)) == "forbidden"
    assert condition(await anna.iq("set", f"<query xmlns='{OWNER}'/>", ROOM)) == "bad-request"
    assert condition(await anna.iq("get", f"<query xmlns='{OWNER}'/>", f"no-{ROOM}")) == "item-not-found"


async def test_who_sets_a_room_up_is_told_what_it_has_become(world):
    anna = await world.client("anna")
    await join(anna, "Anna")
    await configure(anna, whois="anyone", membersonly="1")
    assert codes(await anna.expect("message", type="groupchat", from_=ROOM)) == {104, 172}


async def test_in_a_room_that_is_moderated_no_more_everybody_may_talk(world):
    anna = await make(world, moderatedroom="1")
    ben = await world.client("ben", worker=2)
    assert item(await join(ben, "Ben"))["role"] == "visitor"
    await configure(anna, moderatedroom="0")
    assert item(await ben.expect("presence", from_=f"{ROOM}/Ben"))["role"] == "participant"
    await say(ben, "at last")
    await hears(anna, "at last")


async def test_a_form_need_not_say_which_it_is(world):
    anna = await make(world)
    field = "<field var='muc#roomconfig_roomname'><value>Tea</value></field>"
    x = f"<x xmlns='jabber:x:data' type='submit'>{field}</x>"
    assert (await anna.iq("set", f"<query xmlns='{OWNER}'>{x}</query>", ROOM)).type == "result"
    assert (await get_form(anna))["roomname"] == ["Tea"]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"roomname": "New"}, {104}),
        ({"enablearchiving": "0", "enablelogging": "1"}, {171}),
        ({"enablelogging": "0"}, {171}),
        ({"whois": "anyone"}, {172}),
        ({"whois": "anyone", "roomname": "New"}, {104, 172}),
    ],
)
async def test_changes_are_told(world, settings, wanted):
    anna = await make(world)
    ben = await world.client("ben", worker=2)
    await join(ben, "Ben")
    await configure(anna, **settings)
    told = await ben.expect("message", type="groupchat", from_=ROOM)
    assert codes(told) == wanted
    await configure(anna, **settings)  # nothing is new
    await ben.nothing("message")
    back = {"enablelogging": ({"enablelogging": "1"}, {170}), "whois": ({"whois": "moderators"}, {173})}
    for name, (undo, code) in back.items():
        if name in settings:
            await configure(anna, **undo)
            assert codes(await ben.expect("message", type="groupchat")) == code


async def test_owners_and_admins_by_the_form(world):
    anna = await make(world)
    ben = await world.client("ben", worker=2)
    await join(ben, "Ben")
    await ben.drain()
    await configure(anna, roomowners=[anna.bare, ben.bare], roomadmins=["cleo@nestbox.test"])
    seen = await ben.expect("presence", from_=f"{ROOM}/Ben")
    assert seen.find(X)[0].get("affiliation") == "owner" and seen.find(X)[0].get("role") == "moderator"
    form = await get_form(ben)
    assert sorted(form["roomowners"]) == [anna.bare, ben.bare] and form["roomadmins"] == ["cleo@nestbox.test"]
    await configure(ben, roomowners=[ben.bare], roomadmins=[])
    assert condition(await anna.iq("get", f"<query xmlns='{OWNER}'/>", ROOM)) == "forbidden"


async def test_presence_is_told_of_the_roles_that_the_owner_names(world):
    anna = await make(world, presencebroadcast=["moderator"])
    ben = await world.client("ben", worker=2)
    own = await join(ben, "Ben")
    assert codes(own) >= {110}
    await anna.nothing("presence")
    await anna.send(f"<presence to='{ROOM}/Anna'><show>away</show></presence>")
    await ben.expect(lambda s: s.from_ == f"{ROOM}/Anna" and s.element.findtext("{jabber:client}show") == "away")
    await set_item(anna, "nick='Ben' role='moderator'")
    await anna.expect("presence", from_=f"{ROOM}/Ben")


async def test_destroying_a_room(world):
    anna = await make(world, persistentroom="1")
    ben = await world.client("ben", worker=2)
    await join(ben, "Ben")
    await anna.drain()
    destroy = (
        "<destroy jid='coffee@rooms.nestbox.test'><reason>moved &amp; gone</reason><password>x</password></destroy>"
    )
    assert (await anna.iq("set", f"<query xmlns='{OWNER}'>{destroy}</query>", ROOM)).type == "result"
    for client, nick in ((anna, "Anna"), (ben, "Ben")):
        gone = await client.expect("presence", type="unavailable", from_=f"{ROOM}/{nick}")
        told = gone.find(X).find(f"{{{MUC}#user}}destroy")
        assert told.get("jid") == "coffee@rooms.nestbox.test"
        assert (
            told.findtext(f"{{{MUC}#user}}reason") == "moved & gone" and told.findtext(f"{{{MUC}#user}}password") == "x"
        )
        assert gone.find(X)[0].get("affiliation") == "none" and 110 in codes(gone)
    assert condition(await ben.iq("get", INFO, ROOM)) == "item-not-found"
    assert await world.servers[1].store.rooms.get("tea") is None
    own = await join(ben, "Ben")  # the name is free again, and nothing of the old room is there
    assert 201 in codes(own) and (await get_form(ben))["roomowners"] == [ben.bare]


async def test_an_instant_room_is_made_by_an_empty_form(world):
    anna, ben = await world.client("anna"), await world.client("ben", worker=2)
    await join(anna, "Anna")
    empty = f"<query xmlns='{OWNER}'><x xmlns='{DATA}' type='submit'/></query>"
    assert (await anna.iq("set", empty, ROOM)).type == "result"
    await anna.nothing("message")
    await join(ben, "Ben")


async def test_a_room_whose_owner_leaves_before_it_is_set_up_is_gone(world):
    anna, ben = await world.client("anna"), await world.client("ben", worker=2)
    await join(anna, "Anna")
    await anna.leave()
    await enter(ben, "Ben")
    own = await ben.expect("presence", type=None)
    assert 201 in codes(own), show(own)

"""Entering and leaving (XEP-0045, sections 7.1, 7.2, 7.6, 7.14)."""

from __future__ import annotations

import pytest
from harness import DOMAIN, condition, show
from rooms import HOST, MUC, OWNER, ROOM, USER, X, codes, configure, enter, hears, item, join, make, say, set_item


async def test_the_first_makes_the_room_and_the_second_sees_him(world):
    anna, ben = await world.client("anna"), await world.client("ben", worker=2)
    own = await join(anna, "Anna")
    assert codes(own) == {110, 170, 201}
    assert own.from_ == f"{ROOM}/Anna" and item(own)["affiliation"] == "owner" and item(own)["role"] == "moderator"
    await configure(anna)
    await enter(ben, "Ben")
    order = [stanza for stanza in await ben.drain() if stanza.kind in ("presence", "message")]
    assert [stanza.from_ for stanza in order] == [f"{ROOM}/Anna", f"{ROOM}/Ben", ROOM]
    assert "jid" not in item(order[0]) and codes(order[0]) == set()
    assert codes(order[1]) == {110, 170} and item(order[1])["role"] == "participant"
    subject = order[2].element.find("{jabber:client}subject")
    assert order[2].type == "groupchat" and subject is not None and not subject.text
    seen = await anna.expect("presence", from_=f"{ROOM}/Ben")
    assert item(seen) == {"affiliation": "none", "role": "participant", "jid": ben.jid}  # moderators see addresses


async def test_a_locked_room_is_none_for_others(world):
    anna, ben = await world.client("anna"), await world.client("ben", worker=2)
    await join(anna, "Anna")
    await enter(ben, "Ben")
    error = await ben.expect("presence", type="error")
    assert condition(error) == "item-not-found" and error.from_ == f"{ROOM}/Ben"
    info = await ben.iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", ROOM)
    assert condition(info) == "item-not-found"
    await configure(anna)
    await join(ben, "Ben")


@pytest.mark.parametrize("cancels", [True, False])
async def test_a_room_that_its_maker_does_not_set_up_is_gone(world, cancels):
    anna = await world.client("anna")
    await join(anna, "Anna")
    if cancels:
        cancel = f"<query xmlns='{OWNER}'><x xmlns='jabber:x:data' type='cancel'/></query>"
        assert (await anna.iq("set", cancel, ROOM)).type == "result"
    else:
        await anna.send(f"<presence to='{ROOM}/Anna' type='unavailable'/>")
    gone = await anna.expect("presence", from_=f"{ROOM}/Anna", type="unavailable")
    assert gone.element.find(f"{X}/{{{USER}}}destroy") is not None and item(gone)["affiliation"] == "none"
    await world.settle()
    info = await anna.iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", ROOM)
    assert condition(info) == "item-not-found"


async def test_non_anonymous_rooms_say_so(world):
    anna = await make(world, whois="anyone")
    ben = await world.client("ben", worker=2)
    assert codes(await join(ben, "Ben")) == {100, 110, 170}
    cleo = await world.client("cleo", worker=2)
    await join(cleo, "Cleo")
    assert item(await ben.expect("presence", from_=f"{ROOM}/Cleo"))["jid"] == cleo.jid
    await anna.expect("presence", from_=f"{ROOM}/Cleo")


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"membersonly": "1"}, "registration-required"),
        ({"passwordprotectedroom": "1", "roomsecret": "open"}, "not-authorized"),
        ({"maxusers": "1"}, "service-unavailable"),
    ],
)
async def test_who_may_not_enter_is_told_why(world, settings, error):
    await make(world, **settings)
    ben = await world.client("ben", worker=2)
    await enter(ben, "Ben", inner="<password>wrong</password>")
    told = await ben.expect("presence", type="error")
    assert condition(told) == error and told.from_ == f"{ROOM}/Ben" and told.has(f"{{{MUC}}}x")
    assert told.find("{jabber:client}error").get("by") == ROOM
    await ben.nothing("presence")


async def test_banned_people_stay_out(world):
    anna = await make(world)
    ben = await world.client("ben", worker=2)
    await set_item(anna, f"affiliation='outcast' jid='{ben.bare}'")
    await enter(ben, "Ben")
    assert condition(await ben.expect("presence", type="error")) == "forbidden"


async def test_the_password_opens(world):
    await make(world, passwordprotectedroom="1", roomsecret="öffne")
    ben = await world.client("ben", worker=2)
    await join(ben, "Ben", inner="<password>öffne</password>")


async def test_admins_enter_a_full_room(world):
    anna = await make(world, maxusers="1")
    ben = await world.client("ben", worker=2)
    await set_item(anna, f"affiliation='admin' jid='{ben.bare}'")
    await join(ben, "Ben")


async def test_a_nick_belongs_to_one_account(world):
    anna = await make(world)
    ben = await world.client("ben", worker=2)
    await enter(ben, "Anna")
    assert condition(await ben.expect("presence", type="error")) == "conflict"
    await enter(ben, "Ben")
    await ben.drain()
    await enter(ben, "Anna")
    error = await ben.expect("presence", type="error")
    assert condition(error) == "conflict" and error.from_ == f"{ROOM}/Anna"
    await say(ben, "still Ben")
    assert (await hears(anna, "still Ben")).from_ == f"{ROOM}/Ben"


async def test_an_account_is_there_with_several_sessions(world):
    anna = await make(world)
    phone = await world.client("ben", "phone", worker=2)
    desk = await world.client("ben", "desk", worker=1)
    await join(phone, "Ben")
    await join(desk, "Ben")
    await anna.drain()
    await phone.drain()
    await say(desk, "two")
    for client in (anna, phone, desk):
        assert (await hears(client, "two")).from_ == f"{ROOM}/Ben"
    await desk.send(f"<presence to='{ROOM}/Ben' type='unavailable'/>")
    gone = await desk.expect("presence", type="unavailable")
    assert codes(gone) == {110}
    await anna.nothing("presence", type="unavailable")
    await phone.nothing("presence", type="unavailable")
    await phone.send(f"<presence to='{ROOM}/Ben' type='unavailable'><status>bye</status></presence>")
    gone = await anna.expect("presence", type="unavailable", from_=f"{ROOM}/Ben")
    assert gone.element.findtext("{jabber:client}status") == "bye" and item(gone)["role"] == "none"


async def test_changing_the_nick(world):
    anna = await make(world)
    ben = await world.client("ben", worker=2)
    await join(ben, "Ben")
    await anna.drain()
    await ben.send(f"<presence to='{ROOM}/Benny'/>")
    for client, own in ((anna, set()), (ben, {110})):
        gone = await client.expect("presence", from_=f"{ROOM}/Ben", type="unavailable")
        assert codes(gone) == {303} | own and item(gone)["nick"] == "Benny"
        assert codes(await client.expect("presence", from_=f"{ROOM}/Benny", type=None)) == own
    await say(ben, "hi")
    assert (await hears(anna, "hi")).from_ == f"{ROOM}/Benny"


async def test_presence_is_passed_on_without_what_only_the_room_may_say(world):
    anna = await make(world)
    ben = await world.client("ben", worker=2)
    await join(ben, "Ben")
    await anna.drain()
    await ben.send(
        f"<presence to='{ROOM}/Ben'><show>away</show><x xmlns='{MUC}#user'><item affiliation='owner' role='none'/></x>"
        "<occupant-id xmlns='urn:xmpp:occupant-id:0' id='1'/><occupant-id xmlns='urn:xmpp:occupant-id:0' id='2'/>"
        "<hats xmlns='urn:xmpp:hats:0'/></presence>"
    )
    seen = await anna.expect("presence", from_=f"{ROOM}/Ben")
    assert seen.element.findtext("{jabber:client}show") == "away"
    assert len(seen.element.findall(f"{{{MUC}#user}}x")) == 1 and item(seen)["affiliation"] == "none"
    ids = [each.get("id") for each in seen.element.iterfind("{urn:xmpp:occupant-id:0}occupant-id")]
    assert len(ids) == 1 and ids[0] not in ("1", "2") and not seen.has("{urn:xmpp:hats:0}hats")


async def test_what_is_no_way_in(world):
    await make(world)
    ben = await world.client("ben", worker=2)
    await ben.send(f"<presence to='{ROOM}/Ben'/>")  # GC 1.0, or a client that thinks that it is inside
    told = await ben.expect("presence", type="unavailable", from_=f"{ROOM}/Ben")
    assert codes(told) == {110, 307, 333} and item(told)["role"] == "none"
    await enter(ben, "")
    await ben.drain()
    await ben.send(f"<presence to='{ROOM}'><x xmlns='{MUC}'/></presence>")
    assert condition(await ben.expect("presence", type="error")) == "jid-malformed"
    await enter(ben, "x" * 256)
    assert condition(await ben.expect("presence", type="error")) == "not-acceptable"
    assert world.limits_hit() == {"room_nick_bytes": 1}


async def test_one_who_is_inside_may_tell_the_room_how_he_is(world):
    anna = await make(world)
    await anna.send(f"<presence to='{ROOM}'><show>away</show></presence>")
    seen = await anna.expect("presence", from_=f"{ROOM}/Anna")
    assert seen.type is None and seen.element.findtext("{jabber:client}show") == "away"


async def test_entering_again_shows_everything_again(world):
    anna = await make(world)
    ben = await world.client("ben", worker=2)
    await join(ben, "Ben")
    await anna.drain()
    await join(ben, "Ben")
    assert (await ben.expect("presence", from_=f"{ROOM}/Anna")).type is None
    await anna.nothing("presence", type="unavailable")


async def test_occupants_may_ask_who_is_there(world):
    """XEP-0045, section 17.3: Converse.js asks for those whose messages it has found in the archive."""
    anna = await make(world)
    ben, cleo = await world.client("ben", worker=2), await world.client("cleo", worker=2)
    await set_item(anna, f"affiliation='member' jid='{cleo.bare}' nick='Cleo'")
    await join(ben, "Ben")
    await ben.drain()
    await anna.drain()

    async def probe(client, nick):
        await client.send(f"<presence to='{ROOM}{nick}' type='probe'/>")
        return [(stanza.from_, stanza.type, item(stanza)) for stanza in await client.drain()]

    shown = {"affiliation": "owner", "role": "moderator"}
    assert await probe(ben, "/Anna") == [(f"{ROOM}/Anna", None, shown)]
    own = {"affiliation": "none", "role": "participant", "jid": ben.jid}
    assert await probe(ben, "/Ben") == [(f"{ROOM}/Ben", None, own)]
    assert await probe(anna, "/Ben") == [(f"{ROOM}/Ben", None, own)]
    assert await probe(ben, "") == [(f"{ROOM}/Anna", None, shown), (f"{ROOM}/Ben", None, own)]
    away = {"affiliation": "member", "role": "none", "nick": "Cleo"}
    assert await probe(ben, "/Cleo") == [(f"{ROOM}/Cleo", "unavailable", away)]
    assert await probe(anna, "/Cleo") == [(f"{ROOM}/Cleo", "unavailable", {**away, "jid": cleo.bare})]
    assert await probe(ben, "/Dan") == [(f"{ROOM}/Dan", "unavailable", {"affiliation": "none", "role": "none"})]
    await cleo.send(f"<presence to='{ROOM}/Anna' type='probe'/>")
    assert condition(await cleo.expect("presence", type="error")) == "not-acceptable"
    await configure(anna, presencebroadcast="participant")
    await ben.drain()
    assert await probe(ben, "/Anna") == [(f"{ROOM}/Anna", None, shown)]  # broadcast or not
    assert await probe(ben, "") == [(f"{ROOM}/Ben", None, own)]


@pytest.mark.parametrize("end", ["leave", "vanish", "unavailable", "kick"])
async def test_the_end_of_a_session_is_the_end_of_its_seat(world, end):
    anna = await make(world)
    ben = await world.client("ben", "phone", worker=2)
    await join(ben, "Ben")
    await anna.drain()
    if end == "kick":
        await world.client("ben", "phone", worker=1, presence=None)
    elif end == "unavailable":
        await ben.send("<presence type='unavailable'/>")
    else:
        await getattr(ben, end)()
    gone = await anna.expect("presence", from_=f"{ROOM}/Ben", type="unavailable")
    assert item(gone)["role"] == "none" and codes(gone) == set()
    await anna.nothing("presence", from_=f"{ROOM}/Ben")
    assert world.hub.hashes["muc:tea"].keys() == {anna.jid}


async def test_a_temporary_room_goes_with_the_last_one(world):
    anna = await make(world)
    await anna.send(f"<presence to='{ROOM}/Anna' type='unavailable'/>")
    await world.settle()
    assert await world.servers[1].store.rooms.get("tea") is None
    assert 201 in codes(await join(anna, "Anna"))


async def test_a_persistent_room_stays(world):
    anna = await make(world, persistentroom="1", roomname="Tea time")
    await anna.send(f"<presence to='{ROOM}/Anna' type='unavailable'/>")
    await world.settle()
    assert 201 not in codes(await join(anna, "Anna"))
    info = await anna.iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", ROOM)
    assert "Tea time" in show(info)


async def test_only_people_of_this_server_are_hosts(world):
    anna = await world.client("anna")
    for address in (f"tea@rooms.other.{DOMAIN}/Anna", "tea@elsewhere.example/Anna"):
        await anna.send(f"<presence to='{address}'><x xmlns='{MUC}'/></presence>")
        assert condition(await anna.expect("presence", type="error")) == "remote-server-not-found"
    await anna.send(f"<message to='{HOST}' type='chat'><body>x</body></message>")
    assert condition(await anna.expect("message", type="error")) == "service-unavailable"


async def test_only_occupants_look_at_occupants(world):
    """XEP-0045, section 6.6."""
    await make(world)
    ben = await world.client("ben")
    for what in ("info", "items"):
        answer = await ben.iq("get", f"<query xmlns='http://jabber.org/protocol/disco#{what}'/>", f"{ROOM}/Anna")
        assert condition(answer) == "bad-request"

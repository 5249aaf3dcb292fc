"""Kicks, bans, voice, lists (XEP-0045, sections 8 to 10)."""

from __future__ import annotations

import pytest
from harness import DOMAIN, condition
from rooms import ADMIN, ROOM, X, codes, configure, enter, hears, item, join, make, read_list, say, set_item


async def room_of(world, *others, **settings):
    """Anna's room with others in it, whose names are their nicks in small letters."""
    clients = [await make(world, **settings)]
    for name in others:
        client = await world.client(name, worker=2)
        await join(client, name.capitalize())
        clients.append(client)
    for client in clients:
        await client.drain()
    return clients


async def test_a_kick(world):
    anna, ben, cleo = await room_of(world, "ben", "cleo")
    assert (await set_item(anna, "nick='Ben' role='none'", reason="too loud")).type == "result"
    for client, own in ((ben, {110}), (cleo, set()), (anna, set())):
        gone = await client.expect("presence", from_=f"{ROOM}/Ben", type="unavailable")
        assert codes(gone) == {307} | own and item(gone)["role"] == "none" and item(gone)["affiliation"] == "none"
        about = gone.find(X)[0]
        assert about.find(f"{{{ADMIN[:-6]}#user}}actor").get("nick") == "Anna"
        assert about.findtext(f"{{{ADMIN[:-6]}#user}}reason") == "too loud"
    await say(ben, "still here?")
    assert condition(await ben.expect("message", type="error")) == "not-acceptable"
    await join(ben, "Ben")  # a kick is no ban


async def test_a_ban(world):
    anna, ben, cleo = await room_of(world, "ben", "cleo")
    assert (await set_item(anna, f"affiliation='outcast' jid='{ben.bare}'", reason="enough")).type == "result"
    for client, own in ((ben, {110}), (cleo, set())):
        gone = await client.expect("presence", from_=f"{ROOM}/Ben", type="unavailable")
        assert codes(gone) == {301} | own and item(gone)["affiliation"] == "outcast"
    await enter(ben, "Ben")
    assert condition(await ben.expect("presence", type="error")) == "forbidden"
    assert await read_list(anna, "affiliation='outcast'") == [{"affiliation": "outcast", "jid": ben.bare}]
    assert (await set_item(anna, f"affiliation='none' jid='{ben.bare}'")).type == "result"
    assert await read_list(anna, "affiliation='outcast'") == []
    await join(ben, "Ben")


async def test_a_ban_by_nick_and_of_a_domain(world):
    anna, ben, cleo = await room_of(world, "ben", "cleo")
    assert (await set_item(anna, "affiliation='outcast' nick='Ben'")).type == "result"
    assert 301 in codes(await ben.expect("presence", type="unavailable"))
    assert (await set_item(anna, "affiliation='outcast' jid='nestbox.test'")).type == "result"
    assert 301 in codes(await cleo.expect("presence", type="unavailable"))
    await say(anna, "the owner stays")
    await hears(anna, "the owner stays")


async def test_voice(world):
    anna, ben, cleo = await room_of(world, "ben", "cleo", moderatedroom="1")
    assert (await set_item(anna, "nick='Ben' role='participant'")).type == "result"
    for client in (ben, cleo):
        assert item(await client.expect("presence", from_=f"{ROOM}/Ben"))["role"] == "participant"
    await say(ben, "thanks")
    await hears(cleo, "thanks")
    assert (await set_item(anna, "nick='Ben' role='visitor'")).type == "result"
    await ben.drain()
    await say(ben, "x")
    assert condition(await ben.expect("message", type="error")) == "forbidden"


async def test_a_moderator_helps_but_is_no_admin(world):
    anna, ben, cleo, _ = await room_of(world, "ben", "cleo", "dora")
    await set_item(anna, "nick='Ben' role='moderator'")
    await set_item(anna, "nick='Dora' role='moderator'")
    assert (await set_item(ben, "nick='Cleo' role='visitor'")).type == "result"
    assert condition(await set_item(ben, "nick='Cleo' role='moderator'")) == "forbidden"
    assert condition(await set_item(ben, "nick='Anna' role='none'")) == "not-allowed"
    assert condition(await set_item(ben, "nick='Anna' role='visitor'")) == "not-allowed"
    assert condition(await set_item(ben, "nick='Dora' role='none'")) == "not-allowed"
    assert condition(await set_item(ben, f"affiliation='outcast' jid='{cleo.bare}'")) == "forbidden"
    assert (await set_item(ben, "nick='Cleo' role='none'")).type == "result"
    assert (await set_item(anna, "nick='Dora' role='participant'")).type == "result"


async def test_admins_and_owners(world):
    anna, ben, cleo = await room_of(world, "ben", "cleo")
    assert (await set_item(anna, f"affiliation='admin' jid='{ben.bare}'")).type == "result"
    seen = item(await cleo.expect("presence", from_=f"{ROOM}/Ben"))
    assert seen["affiliation"] == "admin" and seen["role"] == "moderator"
    assert condition(await set_item(ben, f"affiliation='outcast' jid='{anna.bare}'")) == "not-allowed"
    assert condition(await set_item(ben, f"affiliation='admin' jid='{cleo.bare}'")) == "forbidden"
    assert (await set_item(ben, f"affiliation='member' jid='{cleo.bare}'")).type == "result"
    assert condition(await set_item(anna, f"affiliation='outcast' jid='{anna.bare}'")) == "conflict"
    assert condition(await set_item(anna, f"affiliation='none' jid='{anna.bare}'")) == "conflict"  # the last owner
    assert (await set_item(anna, f"affiliation='owner' jid='{ben.bare}'")).type == "result"
    assert (await set_item(ben, f"affiliation='member' jid='{anna.bare}'")).type == "result"
    seen = item(await cleo.expect(lambda s: s.from_ == f"{ROOM}/Anna"))
    assert seen["affiliation"] == "member" and seen["role"] == "participant"
    assert condition(await set_item(anna, f"affiliation='none' jid='{cleo.bare}'")) == "forbidden"


async def test_many_changes_are_made_together_or_not_at_all(world):
    anna, ben, cleo = await room_of(world, "ben", "cleo")
    items = f"<item affiliation='member' jid='{ben.bare}'/><item nick='Nobody' role='none'/>"
    assert condition(await anna.iq("set", f"<query xmlns='{ADMIN}'>{items}</query>", ROOM)) == "item-not-found"
    assert await read_list(anna, "affiliation='member'") == []
    items = "".join(f"<item affiliation='member' jid='{each}'/>" for each in (ben.bare, cleo.bare, "dora@nestbox.test"))
    items += "<item nick='Cleo' role='visitor'/>"
    assert (await anna.iq("set", f"<query xmlns='{ADMIN}'>{items}</query>", ROOM)).type == "result"
    members = {each["jid"]: each.get("nick") for each in await read_list(anna, "affiliation='member'")}
    assert members == {ben.bare: "Ben", cleo.bare: "Cleo", "dora@nestbox.test": None}


@pytest.mark.parametrize(
    ("items", "error"),
    [
        ("", "bad-request"),
        ("<item affiliation='king' jid='x@nestbox.test'/>", "bad-request"),
        ("<item nick='Anna' role='king'/>", "bad-request"),
        ("<item affiliation='member' jid='@@'/>", "jid-malformed"),
        ("<item affiliation='member'/>", "item-not-found"),
        ("<item nick='Anna'/>", "bad-request"),
    ],
)
async def test_what_makes_no_sense_is_refused(world, items, error):
    anna = await make(world)
    assert condition(await anna.iq("set", f"<query xmlns='{ADMIN}'>{items}</query>", ROOM)) == error
    if not items:
        assert condition(await anna.iq("get", f"<query xmlns='{ADMIN}'/>", ROOM)) == "bad-request"


async def test_lists_of_roles_are_for_moderators(world):
    anna, ben = await room_of(world, "ben")
    found = await read_list(anna, "role='participant'")
    assert found == [{"affiliation": "none", "role": "participant", "nick": "Ben", "jid": ben.jid}]
    assert [each["nick"] for each in await read_list(anna, "role='moderator'")] == ["Anna"]
    assert condition(await read_list(ben, "role='participant'")) == "forbidden"


async def test_lists_of_affiliations_show_addresses_only_to_those_who_see_them_anyway(world):
    anna, ben = await room_of(world, "ben")
    eve = await world.client("eve", worker=2)
    for kind in ("owner", "admin", "member", "outcast"):
        assert condition(await read_list(ben, f"affiliation='{kind}'")) == "forbidden"
    await set_item(anna, f"affiliation='admin' jid='{ben.bare}'")
    for kind in ("owner", "admin"):  # sections 10.5 and 10.8
        assert condition(await read_list(ben, f"affiliation='{kind}'")) == "forbidden"
    assert await read_list(ben, "affiliation='outcast'") == []
    await set_item(anna, f"affiliation='none' jid='{ben.bare}'")
    await configure(anna, whois="anyone")
    assert [each["jid"] for each in await read_list(ben, "affiliation='owner'")] == [anna.bare]
    assert condition(await read_list(ben, "affiliation='outcast'")) == "forbidden"
    assert condition(await read_list(eve, "affiliation='owner'")) == "forbidden"
    await set_item(anna, f"affiliation='member' jid='{eve.bare}'")
    assert [each["jid"] for each in await read_list(eve, "affiliation='member'")] == [eve.bare]
    await configure(anna, getmemberlist=["moderator"])
    assert condition(await read_list(ben, "affiliation='owner'")) == "forbidden"
    assert condition(await read_list(eve, "affiliation='member'")) == "forbidden"  # nor from outside


async def test_those_who_are_not_here_are_told_and_told_of(world):
    anna, ben = await room_of(world, "ben")
    cleo = await world.client("cleo", worker=2)
    await set_item(anna, f"affiliation='member' jid='{cleo.bare}'")
    told = await cleo.expect("message", from_=ROOM)
    assert codes(told) == {101} and item(told)["affiliation"] == "member"
    told = await anna.expect("message", from_=ROOM)
    assert item(told)["jid"] == cleo.bare and item(told)["affiliation"] == "member"
    await ben.nothing("message")  # he sees no addresses


async def test_losing_membership_in_a_members_only_room(world):
    anna, ben, cleo = await room_of(world, "ben", "cleo")
    await set_item(anna, f"affiliation='member' jid='{ben.bare}'")
    await ben.drain()
    await configure(anna, membersonly="1")
    gone = await ben.expect("presence", from_=f"{ROOM}/Cleo", type="unavailable")
    assert codes(gone) == {322}
    assert codes(await cleo.expect("presence", type="unavailable")) == {110, 322}
    await set_item(anna, f"affiliation='none' jid='{ben.bare}'")
    assert codes(await ben.expect("presence", from_=f"{ROOM}/Ben", type="unavailable")) == {110, 321}


async def test_the_service_belongs_to_the_operators_admins(world):
    await make(world)
    world.servers[1].router.hosts["rooms.nestbox.test"].__self__._admins.add("root@nestbox.test")
    world.servers[2].router.hosts["rooms.nestbox.test"].__self__._admins.add("root@nestbox.test")
    root = await world.client("root", worker=2)
    own = await join(root, "Root")
    assert item(own)["affiliation"] == "owner" and item(own)["role"] == "moderator"
    assert (await configure(root, roomname="Ours")).type == "result"


async def test_a_reserved_nick_can_be_given_up(world):
    anna = await make(world)
    await set_item(anna, f"affiliation='member' jid='cleo@{DOMAIN}' nick='Queen'")
    assert [each["nick"] for each in await read_list(anna, "affiliation='member'")] == ["Queen"]
    answer = await set_item(anna, f"affiliation='member' jid='cleo@{DOMAIN}' nick=''")
    assert answer.type == "result"
    assert ["nick" in each for each in await read_list(anna, "affiliation='member'")] == [False]


async def test_a_new_moderator_sees_addresses(world):
    anna, ben, cleo = await room_of(world, "ben", "cleo")
    by_role, by_affiliation = "role='moderator' nick='Ben'", f"affiliation='admin' jid='{cleo.bare}'"
    for how, client, other in ((by_role, ben, cleo), (by_affiliation, cleo, ben)):
        await set_item(anna, how)
        seen = await client.expect(lambda s, other=other: s.kind == "presence" and item(s).get("jid") == other.jid)
        assert seen.type is None


async def test_who_is_not_shown_any_more_is_gone_for_the_others(world):
    anna, ben, cleo = await room_of(world, "ben", "cleo", presencebroadcast=["moderator"])
    await set_item(anna, "role='moderator' nick='Ben'")
    assert (await cleo.expect("presence", from_=f"{ROOM}/Ben")).type is None
    await set_item(anna, "role='participant' nick='Ben'")
    assert item(await cleo.expect("presence", from_=f"{ROOM}/Ben", type="unavailable"))["role"] == "participant"
    assert codes(await ben.expect("presence", from_=f"{ROOM}/Ben", type=None, to=ben.jid)) == {110}


async def test_an_owner_may_be_named_a_moderator_by_an_admin(world):
    anna, ben, _ = await room_of(world, "ben", "cleo")
    await set_item(anna, f"affiliation='admin' jid='{ben.bare}'")
    both = "<item role='moderator' nick='Cleo'/><item role='moderator' nick='Anna'/>"
    assert (await ben.iq("set", f"<query xmlns='{ADMIN}'>{both}</query>", ROOM)).type == "result"
    assert [each["nick"] for each in await read_list(anna, "role='moderator'")] == ["Anna", "Ben", "Cleo"]

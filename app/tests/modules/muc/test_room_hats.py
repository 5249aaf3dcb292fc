"""Hats: made by admins, given to people, seen by everybody."""

from __future__ import annotations

import pytest
from harness import condition
from rooms import DATA, HOST, ROOM, configure, form, item, join, make, set_item

from nestbox.config import Limits
from nestbox.modules.muc import hats

COMMANDS = "http://jabber.org/protocol/commands"
TYPE = "urn:xmpp:hats:commands"
HATS = "{urn:xmpp:hats:0}hats"
TEACHER, PROCTOR = "http://school.test/hats#Teacher", "http://school.test/hats#Proctor"


@pytest.fixture
def limits(request):
    return Limits(**getattr(request, "param", {}))


async def run(client, what, fields=None, room=ROOM, **attributes):
    """Execute a command, with a form when there are fields; the answer."""
    given = "".join(f" {name}='{value}'" for name, value in attributes.items())
    inner = form({"FORM_TYPE": TYPE} | fields) if fields is not None else ""
    return await client.iq("set", f"<command xmlns='{COMMANDS}' node='{TYPE}:{what}'{given}>{inner}</command>", room)


async def create(client, title, uri, hue=None):
    return await run(client, "create", {"hats#title": title, "hats#uri": uri} | ({"hats#hue": hue} if hue else {}))


def worn(stanza):
    """The hats in a presence: (URI, title, hue)."""
    found = stanza.element.find(HATS)
    return [] if found is None else [(hat.get("uri"), hat.get("title"), hat.get("hue")) for hat in found]


def rows(answer):
    """The table of an answer."""
    items = answer.payload.iterfind(f"{{{DATA}}}x/{{{DATA}}}item")
    return [{field.get("var"): field[0].text for field in each} for each in items]


async def school(world, **settings):
    """A room with two hats, its owner and a pupil."""
    anna = await make(world, **settings)
    ben = await world.client("ben", worker=2)
    await join(ben, "Ben")
    assert (await create(anna, "Teacher &amp; friend", TEACHER, "327.25")).type == "result"
    assert (await create(anna, "Proctor", PROCTOR)).type == "result"
    await anna.drain()
    await ben.drain()
    return anna, ben


async def test_a_hat_is_seen_by_all_and_by_who_comes_later(world):
    anna, ben = await school(world)
    answer = await run(anna, "assign", {"hats#jid": ben.bare, "hat": TEACHER})
    assert answer.type == "result" and answer.payload.get("status") == "completed"
    cleo = await world.client("cleo", worker=2)
    await join(cleo, "Cleo")
    for client in (anna, ben, cleo):
        seen = [s for s in await client.drain() if s.kind == "presence" and s.from_ == f"{ROOM}/Ben"]
        assert worn(seen[-1]) == [(TEACHER, "Teacher & friend", "327.25")] and item(seen[-1])["affiliation"] == "member"


async def test_two_hats_one_taken_off_and_one_destroyed(world):
    anna, ben = await school(world)
    for uri in (TEACHER, PROCTOR):
        await run(anna, "assign", {"hats#jid": ben.bare, "hat": uri})
    assert rows(await run(anna, "list-assigned")) == [
        {"hats#jid": ben.bare, "hats#uri": TEACHER, "hats#title": "Teacher & friend", "hats#hue": "327.25"},
        {"hats#jid": ben.bare, "hats#uri": PROCTOR, "hats#title": "Proctor", "hats#hue": None},
    ]
    await ben.drain()
    await run(anna, "unassign", {"hats#jid": ben.bare, "hat": TEACHER})
    assert worn(await ben.expect("presence")) == [(PROCTOR, "Proctor", None)]
    await run(anna, "destroy", {"hat": PROCTOR})
    assert worn(await ben.expect("presence")) == []
    assert [row["hats#uri"] for row in rows(await run(anna, "list"))] == [TEACHER]
    assert rows(await run(anna, "list-assigned")) == []


async def test_a_hat_that_is_made_again_changes_on_every_head(world):
    anna, ben = await school(world)
    await run(anna, "assign", {"hats#jid": ben.bare, "hat": TEACHER})
    await ben.drain()
    await create(anna, "Headmistress", TEACHER, "20")
    assert worn(await ben.expect("presence")) == [(TEACHER, "Headmistress", "20")]


async def test_a_command_asks_with_a_form_and_ends_with_it(world):
    """As XEP-0050 has it, and with the names of version 0.2."""
    anna, ben = await school(world)
    asked = (await run(anna, "don", action="execute")).payload
    assert asked.get("status") == "executing" and asked.find(f"{{{COMMANDS}}}actions")[0].tag.endswith("}complete")
    options = asked.iterfind(f"{{{DATA}}}x/{{{DATA}}}field[@var='hat']/{{{DATA}}}option")
    assert [(each.get("label"), each[0].text) for each in options] == [
        ("Teacher & friend", TEACHER),
        ("Proctor", PROCTOR),
    ]
    session = asked.get("sessionid")
    fields = {"accountjid": f"{ben.bare}/phone", "hat": PROCTOR}
    done = (await run(anna, "don", fields, sessionid=session, action="complete")).payload
    assert (done.get("status"), done.get("sessionid")) == ("completed", session)
    assert worn((await ben.drain())[-1]) == [(PROCTOR, "Proctor", None)]
    assert (await run(anna, "doff", action="cancel")).payload.get("status") == "canceled"
    await run(anna, "doff", fields)
    assert worn(await ben.expect("presence")) == []


async def test_only_admins_are_offered_the_commands_and_may_use_them(world):
    anna, ben = await school(world)
    ask = "<query xmlns='http://jabber.org/protocol/disco#{}' node='{}'/>".format
    offered = await anna.iq("get", ask("items", COMMANDS), ROOM)
    assert {each.get("node").removeprefix(f"{TYPE}:") for each in offered.payload} == {
        *("create", "destroy", "list", "assign", "unassign", "list-assigned")
    }
    assert len((await ben.iq("get", ask("items", COMMANDS), ROOM)).payload) == 0
    room = await ben.iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", ROOM)
    assert {"urn:xmpp:hats:0", COMMANDS} <= {each.get("var") for each in room.payload}
    info = (await anna.iq("get", ask("info", f"{TYPE}:assign"), ROOM)).payload
    assert info[0].get("type") == "command-node"
    assert condition(await anna.iq("get", ask("info", f"{TYPE}:knit"), ROOM)) == "item-not-found"
    for what, fields in (("assign", {"hats#jid": ben.bare, "hat": TEACHER}), ("list", None), ("create", None)):
        assert condition(await run(ben, what, fields)) == "forbidden"
    await set_item(anna, f"affiliation='admin' jid='{ben.bare}'")
    assert (await run(ben, "assign", {"hats#jid": ben.bare, "hat": TEACHER})).type == "result"


async def test_hats_outlive_the_room_in_memory_and_go_with_the_affiliation(world):
    anna, ben = await school(world, persistentroom="1")
    await run(anna, "assign", {"hats#jid": ben.bare, "hat": TEACHER})
    assert (await configure(anna, roomname="School")).type == "result"
    for client in (anna, ben):
        await client.send(f"<presence to='{ROOM}' type='unavailable'/>")
        await client.drain()
    await world.settle()
    service = world.servers[1].router.hosts[HOST].__self__
    room = service.rooms["tea"]
    room.load(await world.servers[1].store.rooms.get("tea"))
    assert worn(await join(ben, "Ben")) == [(TEACHER, "Teacher & friend", "327.25")]
    await join(anna, "Anna")
    await ben.drain()
    await set_item(anna, f"affiliation='none' jid='{ben.bare}'")
    assert worn(await ben.expect("presence")) == []
    await set_item(anna, f"affiliation='outcast' jid='{ben.bare}'")
    assert condition(await run(anna, "assign", {"hats#jid": ben.bare, "hat": TEACHER})) == "not-allowed"


async def test_the_next_account_of_a_name_has_no_hats_of_the_last_one(world):
    anna, ben = await school(world)
    await run(anna, "assign", {"hats#jid": ben.bare, "hat": TEACHER})
    room = world.servers[1].router.hosts[HOST].__self__.rooms["tea"]
    room.affiliates[ben.bare].user_id += 1000
    assert room.hats_of(ben.bare) == {} and rows(await run(anna, "list-assigned")) == []


@pytest.mark.parametrize(
    ("what", "fields", "error"),
    [
        ("create", {"hats#title": "", "hats#uri": TEACHER}, "not-acceptable"),
        ("create", {"hats#title": "Teacher", "hats#uri": "teacher"}, "not-acceptable"),
        ("create", {"hats#title": "x", "hats#uri": TEACHER, "hats#hue": "361"}, "not-acceptable"),
        ("create", {"hats#title": "x", "hats#uri": TEACHER, "hats#hue": "red"}, "not-acceptable"),
        ("create", {"hats#title": "x", "hats#uri": TEACHER, "hats#hue": "nan"}, "not-acceptable"),
        ("assign", {"hats#jid": "ben@nestbox.test", "hat": "urn:none"}, "item-not-found"),
        ("assign", {"hats#jid": "@", "hat": TEACHER}, "jid-malformed"),
        ("assign", {"hats#jid": "nestbox.test", "hat": TEACHER}, "not-acceptable"),
        ("assign", {"hat": TEACHER}, "jid-malformed"),
        ("unassign", {"hats#jid": "ben@nestbox.test", "hat": TEACHER}, "item-not-found"),
        ("destroy", {"hat": "urn:none"}, "item-not-found"),
        ("knit", {}, "item-not-found"),
    ],
)
async def test_what_makes_no_sense_is_refused(world, what, fields, error):
    anna, _ = await school(world)
    assert condition(await run(anna, what, fields)) == error
    assert len(rows(await run(anna, "list"))) == 2


async def test_titles_and_hats_have_their_limits(world, monkeypatch):
    anna, ben = await school(world)
    assert condition(await create(anna, "x" * 257, TEACHER)) == "not-acceptable"
    monkeypatch.setattr(hats, "MAX_HATS", 2)
    assert condition(await create(anna, "Third", "urn:third")) == "resource-constraint"
    assert (await create(anna, "Teacher", TEACHER)).type == "result"
    monkeypatch.setattr(hats, "MAX_WORN", 1)
    monkeypatch.setattr(hats, "MAX_WEARERS", 1)
    assert (await run(anna, "assign", {"hats#jid": ben.bare, "hat": TEACHER})).type == "result"
    assert condition(await run(anna, "assign", {"hats#jid": ben.bare, "hat": PROCTOR})) == "resource-constraint"
    await world.user("cleo")
    assert condition(await run(anna, "assign", {"hats#jid": "cleo@nestbox.test", "hat": PROCTOR})) == (
        "resource-constraint"
    )
    assert world.limits_hit() == {"room_hat_bytes": 1, "room_hats": 1, "room_hats_worn": 1, "room_hat_wearers": 1}


@pytest.mark.parametrize("limits", [{"room_affiliations": 1}], indirect=True)
async def test_a_hat_makes_no_member_of_a_full_room(world):
    anna = await make(world)
    await create(anna, "Teacher", TEACHER)
    await world.user("ben")
    answer = await run(anna, "assign", {"hats#jid": "ben@nestbox.test", "hat": TEACHER})
    assert condition(answer) == "resource-constraint" and world.limits_hit() == {"room_affiliations": 1}

"""The room's archive: who reads it, what is in it, and how messages are taken out (XEP-0313, XEP-0424, XEP-0425)."""

from __future__ import annotations

import pytest
from harness import condition, show
from rooms import MUC, ROOM, codes, configure, hears, join, make, say, set_item

from nestbox.wire.stanza import id_by

MAM = "urn:xmpp:mam:2"
RETRACT = "urn:xmpp:message-retract:1"
MODERATE = "urn:xmpp:message-moderate:1"
RESULT = f"{{{MAM}}}result"
BODY = "{jabber:client}body"
OCCUPANT_ID = "{urn:xmpp:occupant-id:0}occupant-id"


async def query(client, *, fields=None, rsm="", room=ROOM):
    """Ask for the archive: the iq's answer and the messages, as (id, message)."""
    form = ""
    if fields:
        form = "".join(f"<field var='{name}'><value>{value}</value></field>" for name, value in fields.items())
        form = f"<field var='FORM_TYPE' type='hidden'><value>{MAM}</value></field>{form}"
        form = f"<x xmlns='jabber:x:data' type='submit'>{form}</x>"
    set_ = f"<set xmlns='http://jabber.org/protocol/rsm'>{rsm}</set>" if rsm else ""
    answer = await client.iq("set", f"<query xmlns='{MAM}' queryid='q'>{form}{set_}</query>", room)
    found = []
    for stanza in [each for each in client.received if each.has(RESULT)]:
        client.received.remove(stanza)
        assert stanza.from_ == room and stanza.to == client.jid
        result = stanza.find(RESULT)
        found.append((int(result.get("id")), result[0].find("{jabber:client}message")))
    return answer, found


def bodies(found):
    return [message.findtext(BODY) for _, message in found]


def real(message):
    """The real address that a message of the archive shows."""
    item = message.find(f"{{{MUC}#user}}x/{{{MUC}#user}}item")
    return None if item is None else item.get("jid")


async def two(world, **settings):
    anna = await make(world, **settings)
    ben = await world.client("ben", worker=2)
    await join(ben, "Ben")
    await anna.drain()
    return anna, ben


async def test_what_was_said_is_found_by_everybody_in_the_room(world):
    anna, ben = await two(world)
    for number in range(5):
        await say(anna if number % 2 else ben, str(number))
    heard = [id_by(await hears(ben, str(number)), ROOM) for number in range(5)]
    await anna.send(
        f"<message to='{ROOM}' type='groupchat'><body>secret</body><no-store xmlns='urn:xmpp:hints'/></message>"
    )
    await hears(ben, "secret")
    for client in (anna, ben):
        answer, found = await query(client)
        assert answer.payload.get("complete") == "true"
        assert bodies(found) == ["0", "1", "2", "3", "4"] and [each for each, _ in found] == heard
        assert found[0][1].get("from") == f"{ROOM}/Ben" and found[0][1].get("to") is None
        assert found[0][1].get("type") == "groupchat"
    _, found = await query(ben, fields={"with": f"{ROOM}/Anna"})
    assert bodies(found) == ["1", "3"]
    answer, found = await query(ben, rsm="<max>2</max><before/>")
    assert bodies(found) == ["3", "4"] and answer.payload.get("complete") is None
    _, found = await query(ben, rsm=f"<max>2</max><before>{heard[3]}</before>")
    assert bodies(found) == ["1", "2"]
    answer, _ = await query(ben, rsm="<max>0</max>")
    assert answer.element.findtext(".//{http://jabber.org/protocol/rsm}count") == "5"
    assert condition((await query(ben, rsm="<after>1</after>"))[0]) == "item-not-found"
    form = await ben.iq("get", f"<query xmlns='{MAM}'/>", ROOM)
    assert "after-id" in show(form)
    ends = (await ben.iq("get", f"<metadata xmlns='{MAM}'/>", ROOM)).payload
    assert [int(each.get("id")) for each in ends] == [heard[0], heard[4]]


async def test_real_addresses_are_shown_to_those_who_see_them(world):
    anna, ben = await two(world)
    await say(ben, "x")
    await hears(anna, "x")
    assert real((await query(anna))[1][0][1]) == ben.bare
    assert real((await query(ben))[1][0][1]) == ben.bare  # his own is no secret from him
    await say(anna, "y")
    await hears(ben, "y")
    assert real((await query(ben))[1][1][1]) is None
    _, found = await query(ben, fields={"with": f"{ROOM}/Ben"})
    assert bodies(found) == ["x"]
    assert (await query(ben, fields={"with": anna.bare}))[1] == []  # nobody finds out who is who by asking
    await configure(anna, whois="anyone")
    assert real((await query(ben))[1][0][1]) == ben.bare


ACCESS = {  # affiliation: (open, members-only, password), with nobody of them in the room
    "owner": (True, True, True),
    "admin": (True, True, True),
    "member": (True, True, True),
    "none": (True, False, False),
    "outcast": (False, False, False),
}


@pytest.mark.parametrize("affiliation", ACCESS)
async def test_who_may_read_the_archive(world, affiliation):
    anna = await make(world, persistentroom="1")
    await say(anna, "x")
    reader = await world.client("reader", worker=2)
    if affiliation != "none":
        assert (await set_item(anna, f"affiliation='{affiliation}' jid='{reader.bare}'")).type == "result"
    protected = {"membersonly": "0", "passwordprotectedroom": "1", "roomsecret": "open"}
    for settings, allowed in zip(({}, {"membersonly": "1"}, protected), ACCESS[affiliation], strict=True):
        await configure(anna, **settings)
        answer, found = await query(reader)
        metadata = await reader.iq("get", f"<metadata xmlns='{MAM}'/>", ROOM)
        form = await reader.iq("get", f"<query xmlns='{MAM}'/>", ROOM)
        if allowed:
            assert bodies(found) == ["x"] and metadata.type == form.type == "result"
        else:
            assert {condition(each) for each in (answer, metadata, form)} == {"forbidden"} and found == []


class TestAdminsOfTheService:
    @pytest.fixture
    def config(self, config):
        config.admins = ["root"]
        return config

    async def test_read_every_rooms_archive(self, world):
        """They own every room, as they do the machine that it is on."""
        anna = await make(world, persistentroom="1", membersonly="1")
        await say(anna, "x")
        root, sam = await world.client("root", worker=2), await world.client("sam", worker=2)
        assert bodies((await query(root))[1]) == ["x"]
        answer, found = await query(sam)
        assert condition(answer) == "forbidden" and found == []


async def test_one_who_is_inside_knows_the_password(world):
    anna = await make(world, passwordprotectedroom="1", roomsecret="open")
    await say(anna, "x")
    ben = await world.client("ben", worker=2)
    assert condition((await query(ben))[0]) == "forbidden"
    await join(ben, "Ben", inner="<password>open</password>")
    assert bodies((await query(ben))[1]) == ["x"]


async def test_a_room_without_archive(world):
    anna, ben = await two(world, enablelogging="0")
    assert await say(anna, "x") == 0
    assert id_by(await hears(ben, "x"), ROOM) is not None  # reactions refer to it
    assert condition((await query(ben))[0]) == "service-unavailable"
    assert condition((await query(ben, room=f"no-{ROOM}"))[0]) == "item-not-found"
    cleo = await world.client("cleo", worker=1)
    assert 170 not in codes(await join(cleo, "Cleo"))


async def moderate(client, message_id, reason="spam"):
    inner = f"<retract xmlns='{RETRACT}'/><reason>{reason}</reason>"
    return await client.iq("set", f"<moderate xmlns='{MODERATE}' id='{message_id}'>{inner}</moderate>", ROOM)


async def test_a_moderator_takes_a_message_back(world):
    anna, ben = await two(world)
    await say(ben, "buy this")
    await say(ben, "and that")
    message_id = id_by(await hears(anna, "buy this"), ROOM)
    occupant = (await hears(anna, "and that")).find(OCCUPANT_ID).get("id")
    assert condition(await moderate(ben, message_id)) == "forbidden"
    assert condition(await moderate(anna, 1)) == "item-not-found"
    assert condition(await moderate(anna, "x")) == "item-not-found"
    assert condition(await moderate(anna, message_id, "x" * 1025)) == "policy-violation"
    assert world.limits_hit() == {"room_reason_bytes": 1}
    assert (await moderate(anna, message_id)).type == "result"
    for client in (anna, ben):
        told = await client.expect("message", from_=ROOM, type="groupchat")
        retract = told.find(f"{{{RETRACT}}}retract")
        assert retract.get("id") == str(message_id) and retract.findtext(f"{{{RETRACT}}}reason") == "spam"
        moderated = retract.find(f"{{{MODERATE}}}moderated")
        assert moderated.get("by") == f"{ROOM}/Anna" and moderated.find(OCCUPANT_ID) is not None
    _, found = await query(ben)
    tombstone, other, retraction = (message for _, message in found)
    assert found[0][0] == message_id and tombstone.find(BODY) is None and other.findtext(BODY) == "and that"
    retracted = tombstone.find(f"{{{RETRACT}}}retracted")
    assert retracted.get("stamp") and retracted.find(f"{{{MODERATE}}}moderated").get("by") == f"{ROOM}/Anna"
    assert retracted.get("id") == retraction.get("id") and retracted.findtext(f"{{{RETRACT}}}reason") == "spam"
    assert tombstone.find(OCCUPANT_ID).get("id") == occupant and tombstone.get("from") == f"{ROOM}/Ben"
    assert real((await query(anna))[1][0][1]) == ben.bare
    cleo = await world.client("cleo", worker=1)
    await join(cleo, "Cleo")
    assert await cleo.drain() is not None and "buy this" not in "".join(map(show, cleo.received))


async def test_history_forgets_what_was_taken_back(world):
    anna, ben = await two(world)
    await say(ben, "one")
    await say(ben, "two")
    await moderate(anna, id_by(await hears(anna, "one"), ROOM))
    cleo = await world.client("cleo", worker=1)
    await join(cleo, "Cleo")  # waits for the subject, which comes after the history
    assert [each.element.findtext(BODY) for each in cleo.received if each.kind == "message"] == ["two"]


async def retract(client, message_id):
    await client.send(
        f"<message to='{ROOM}' type='groupchat' id='r'><retract xmlns='{RETRACT}' id='{message_id}'/>"
        "<body>This person took a message back.</body><store xmlns='urn:xmpp:hints'/></message>"
    )


async def test_one_takes_back_ones_own_message(world):
    anna, ben = await two(world)
    await say(ben, "oops")
    message_id = id_by(await hears(anna, "oops"), ROOM)
    await retract(ben, message_id)
    told = await anna.expect("message", tag=f"{{{RETRACT}}}retract")
    assert told.from_ == f"{ROOM}/Ben" and told.find(f"{{{RETRACT}}}retract").get("id") == str(message_id)
    _, found = await query(anna)
    assert found[0][1].find(f"{{{RETRACT}}}retracted").get("id") == "r" and found[0][1].find(BODY) is None


async def test_nobody_takes_back_anothers_message(world):
    anna, ben = await two(world)
    await say(anna, "mine")
    message_id = id_by(await hears(ben, "mine"), ROOM)
    await retract(ben, message_id)
    assert condition(await ben.expect("message", type="error")) == "forbidden"
    await anna.nothing("message", tag=f"{{{RETRACT}}}retract")
    assert bodies((await query(anna))[1]) == ["mine"]

"""Messages to everybody, history, subject, private messages (XEP-0045, sections 7.4, 7.5, 7.2.13, 8.1)."""

from __future__ import annotations

import asyncio

import pytest
from archive_client import query
from harness import condition, show
from rooms import MUC, ROOM, configure, enter, hears, join, make, say, set_item

from nestbox.core.delay import timestamp
from nestbox.core.ids import id_to_ms
from nestbox.wire.stanza import id_by

BODY = "{jabber:client}body"
DELAY = "{urn:xmpp:delay}delay"
MESSAGE = "{urn:xmpp:forward:0}forwarded/{jabber:client}message"
SUBJECT = "{jabber:client}subject"


async def two(world, **settings):
    """Anna, who owns the room, and Ben on the other worker."""
    anna = await make(world, **settings)
    ben = await world.client("ben", worker=2)
    await join(ben, "Ben")
    await anna.drain()
    await ben.drain()
    return anna, ben


async def test_everybody_hears_what_is_said_and_the_sender_too(world):
    anna, ben = await two(world)
    await ben.send(
        f"<message to='{ROOM}' type='groupchat' id='o1' xml:lang='de'><body>hallo</body>"
        "<x xmlns='urn:example'/></message>"
    )
    heard = [await hears(client, "hallo") for client in (anna, ben)]
    for stanza, client in zip(heard, (anna, ben), strict=True):
        assert (stanza.from_, stanza.to, stanza.type, stanza.id) == (f"{ROOM}/Ben", client.jid, "groupchat", "o1")
        assert stanza.has("{urn:example}x") and not stanza.has(DELAY)
        assert stanza.element.get("{http://www.w3.org/XML/1998/namespace}lang") == "de"
    assert id_by(heard[0], ROOM) == id_by(heard[1], ROOM) is not None


async def test_ids_are_given_by_the_room_alone(world):
    anna, ben = await two(world)
    forged = (
        f"<stanza-id xmlns='urn:xmpp:sid:0' by='{ROOM}' id='1'/>"
        f"<stanza-id xmlns='urn:xmpp:sid:0' by='{ROOM}/Ben' id='2'/>"
        f"<stanza-id xmlns='urn:xmpp:sid:0' by='{anna.bare}' id='3'/>"
        "<stanza-id xmlns='urn:xmpp:sid:0' by='other.example' id='4'/>"
        "<occupant-id xmlns='urn:xmpp:occupant-id:0' id='5'/><occupant-id xmlns='urn:xmpp:occupant-id:0' id='6'/>"
        f"<x xmlns='{MUC}#user'><item affiliation='owner' jid='eve@x.example'/></x><x xmlns='{MUC}#user'/>"
        f"<delay xmlns='urn:xmpp:delay' from='{ROOM}' stamp='2001-01-01T00:00:00Z'/>"
    )
    await say(ben, "one", extra=forged)
    await say(ben, "two")
    one, two_ = await hears(anna, "one"), await hears(anna, "two")
    ids = [each.get("id") for each in one.element.iterfind("{urn:xmpp:sid:0}stanza-id")]
    assert len(ids) == 2 and ids[0] == "4" and int(ids[1]) == id_by(one, ROOM)
    assert not one.has(f"{{{MUC}#user}}x") and not one.has(DELAY)
    occupant = [each.get("id") for each in one.element.iterfind("{urn:xmpp:occupant-id:0}occupant-id")]
    assert len(occupant) == 1 and occupant[0] == two_.find("{urn:xmpp:occupant-id:0}occupant-id").get("id")
    assert id_by(two_, ROOM) > id_by(one, ROOM)


async def test_an_occupant_id_stays_with_the_account_and_differs_by_room(world):
    anna, ben = await two(world)
    await say(ben, "one")
    one = (await hears(anna, "one")).find("{urn:xmpp:occupant-id:0}occupant-id").get("id")
    await ben.send(f"<presence to='{ROOM}/Ben' type='unavailable'/>")
    again = await world.client("ben", "other", worker=1)
    await join(again, "Benjamin")
    await say(again, "two")
    assert (await hears(anna, "two")).find("{urn:xmpp:occupant-id:0}occupant-id").get("id") == one
    other = ROOM.replace("tea", "coffee")
    await join(again, "Ben", other)
    await say(again, "three", other)
    assert (await hears(again, "three")).find("{urn:xmpp:occupant-id:0}occupant-id").get("id") != one


@pytest.mark.parametrize("kind", ["groupchat", "chat", None])
async def test_those_outside_say_nothing(world, kind):
    await make(world)
    eve = await world.client("eve", worker=2)
    attribute = f" type='{kind}'" if kind else ""
    to = ROOM if kind == "groupchat" else f"{ROOM}/Anna"
    await eve.send(f"<message to='{to}'{attribute}><body>x</body></message>")
    assert condition(await eve.expect("message", type="error")) == "not-acceptable"
    await eve.send(f"<message to='none-{to}'{attribute}><body>x</body></message>")
    assert condition(await eve.expect("message", type="error")) == "item-not-found"


async def test_visitors_say_nothing_to_everybody(world):
    anna, ben = await two(world, moderatedroom="1")
    await say(ben, "x")
    assert condition(await ben.expect("message", type="error")) == "forbidden"
    await anna.nothing("message")


async def test_what_makes_no_sense_comes_back(world):
    anna, ben = await two(world)
    await ben.send(f"<message to='{ROOM}/Anna' type='groupchat'><body>x</body></message>")
    assert condition(await ben.expect("message", type="error")) == "bad-request"
    await ben.send(f"<message to='{ROOM}' type='chat'><body>x</body></message>")
    assert condition(await ben.expect("message", type="error")) == "bad-request"
    await ben.send(f"<message to='{ROOM}/Nobody' type='chat'><body>x</body></message>")
    assert condition(await ben.expect("message", type="error")) == "item-not-found"
    await anna.nothing("message")


async def test_newcomers_get_the_history(world):
    anna, _ = await two(world)
    for number in range(30):
        await say(anna, str(number))
    await anna.send(
        f"<message to='{ROOM}' type='groupchat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>"
    )
    sent = [await hears(anna, str(number)) for number in range(30)]
    cleo = await world.client("cleo", worker=2)
    await enter(cleo, "Cleo")
    got = [stanza for stanza in await cleo.drain() if stanza.kind == "message"]
    assert [stanza.element.findtext(BODY) for stanza in got] == [*map(str, range(10, 30)), None]
    assert all(stanza.find(DELAY).get("from") == ROOM for stanza in got[:-1]) and got[-1].has(SUBJECT)
    assert [id_by(stanza, ROOM) for stanza in got[:-1]] == [id_by(stanza, ROOM) for stanza in sent[10:]]
    assert got[0].from_ == f"{ROOM}/Anna" and not got[0].has(f"{{{MUC}#user}}x")


async def test_a_subject_with_a_thread_is_a_message(world):
    """XEP-0045, section 8.1: neither a change of the subject nor left out of the history."""
    anna, _ = await two(world)
    await anna.send(f"<message to='{ROOM}' type='groupchat'><subject>Jam</subject><thread>t1</thread></message>")
    cleo = await world.client("cleo", worker=2)
    await enter(cleo, "Cleo")
    seen, subject = [stanza for stanza in await cleo.drain() if stanza.kind == "message"]
    assert (seen.element.findtext(SUBJECT), seen.element.findtext("{jabber:client}thread")) == ("Jam", "t1")
    assert seen.has(DELAY) and not subject.element.findtext(SUBJECT)


async def history(world, request):
    """The bodies that a newcomer gets who asks in this way."""
    cleo = await world.client("cleo", worker=2)
    await enter(cleo, "Cleo", inner=f"<history {request}/>")
    got = [stanza.element.findtext(BODY) for stanza in await cleo.drain() if stanza.kind == "message"]
    await cleo.leave()
    return got[:-1]


async def test_nobody_gets_more_history_than_the_room_gives(world):
    anna, _ = await two(world, **{"muc#maxhistoryfetch": "1"})
    await say(anna, "one")
    await say(anna, "two")
    for request in ("maxstanzas='50'", "since='1970-01-01T00:00:00Z'", "maxchars='65000'", ""):
        assert await history(world, request) == ["two"]
    await configure(anna, **{"muc#maxhistoryfetch": "0"})
    assert await history(world, "maxstanzas='50'") == []


async def test_newcomers_choose_how_much_history_they_want(world):
    anna, _ = await two(world)
    await say(anna, "early")
    await hears(anna, "early")
    await asyncio.sleep(0.002)  # ids are of milliseconds
    await say(anna, "middle")
    middle = await hears(anna, "middle")
    await say(anna, "late")
    assert await history(world, "maxstanzas='2'") == ["middle", "late"]
    assert await history(world, "maxstanzas='0'") == []
    assert await history(world, "maxchars='0'") == []
    assert await history(world, "maxchars='100000'") == ["early", "middle", "late"]
    one = len(show(middle)) + 100
    assert await history(world, f"maxchars='{one + 100}'") == ["late"]
    assert await history(world, "seconds='3600'") == ["early", "middle", "late"]
    assert await history(world, "seconds='0'") == []
    stamp = id_to_ms(id_by(middle, ROOM))
    assert await history(world, f"since='{timestamp(stamp)}'") == ["middle", "late"]
    assert await history(world, "since='2001-01-01T00:00:00Z'") == ["early", "middle", "late"]


async def test_the_owner_says_how_much_history_there_is(world):
    anna, _ = await two(world)
    await say(anna, "a")
    await say(anna, "b")
    await configure(anna, **{"muc#maxhistoryfetch": "1"})
    cleo = await world.client("cleo", worker=2)
    await enter(cleo, "Cleo")
    await hears(cleo, "b")
    await cleo.nothing(lambda s: s.element.findtext(BODY) == "a")


async def test_the_subject_is_told_and_kept(world):
    anna, ben = await two(world, persistentroom="1")
    await anna.send(f"<message to='{ROOM}' type='groupchat' id='s'><subject>Earl Grey</subject></message>")
    told = await ben.expect("message", tag=SUBJECT)
    assert told.element.findtext(SUBJECT) == "Earl Grey" and told.from_ == f"{ROOM}/Anna" and not told.has(DELAY)
    for client, nick in ((anna, "Anna"), (ben, "Ben")):
        await client.send(f"<presence to='{ROOM}/{nick}' type='unavailable'/>")
    cleo = await world.client("cleo", worker=2)
    await enter(cleo, "Cleo")
    told = await cleo.expect("message", tag=SUBJECT)
    assert told.element.findtext(SUBJECT) == "Earl Grey" and told.from_ == f"{ROOM}/Anna" and told.has(DELAY)
    await cleo.nothing("message")


async def test_a_subject_can_be_taken_away(world):
    anna, ben = await two(world)
    await anna.send(f"<message to='{ROOM}' type='groupchat'><subject>x</subject></message>")
    await anna.send(f"<message to='{ROOM}' type='groupchat'><subject/></message>")
    assert (await ben.expect("message", tag=SUBJECT)).element.findtext(SUBJECT) == "x"
    assert not (await ben.expect("message", tag=SUBJECT)).element.findtext(SUBJECT)


async def test_who_may_change_the_subject(world):
    anna, ben = await two(world)
    subject = f"<message to='{ROOM}' type='groupchat'><subject>Green</subject></message>"
    await ben.send(subject)
    assert condition(await ben.expect("message", type="error")) == "forbidden"
    await configure(anna, changesubject="1")
    await ben.send(subject)
    await anna.expect("message", tag=SUBJECT)
    await ben.send(f"<message to='{ROOM}' type='groupchat'><subject>{'x' * 5000}</subject></message>")
    assert condition(await ben.expect("message", type="error")) == "policy-violation"
    assert world.limits_hit() == {"room_subject_bytes": 1}
    await say(ben, "a mail, not a subject", extra="<subject>about</subject>")  # with a body it is a message
    await hears(anna, "a mail, not a subject")


async def test_private_messages(world):
    anna, ben = await two(world)
    desk = await world.client("anna", "desk", worker=2)
    await join(desk, "Anna")
    cleo = await world.client("cleo", worker=1)
    await join(cleo, "Cleo")
    await ben.send(f"<message to='{ROOM}/Anna' type='chat' id='p'><body>psst</body></message>")
    for client in (anna, desk):
        got = await hears(client, "psst")
        assert (got.from_, got.to, got.type, got.id) == (f"{ROOM}/Ben", client.jid, "chat", "p")
        assert got.has(f"{{{MUC}#user}}x") and len(got.element.findall("{urn:xmpp:occupant-id:0}occupant-id")) == 1
    await cleo.nothing("message", type="chat")
    await ben.nothing("message", type="chat")


@pytest.mark.parametrize("worker", [1, 2])
async def test_private_messages_are_in_the_senders_history_and_on_the_other_devices(world, worker):
    anna, _ = await two(world)
    cleo = await world.client("cleo", "desk", worker=worker)
    phone = await world.client("cleo", "phone", worker=2)
    assert (await phone.iq("set", "<enable xmlns='urn:xmpp:carbons:2'/>")).type == "result"
    await join(cleo, "Cleo")
    await phone.drain()
    secret = "<body>only here</body><private xmlns='urn:xmpp:carbons:2'/>"
    await cleo.send(f"<message to='{ROOM}/Anna' type='chat'><body>psst</body></message>")
    await cleo.send(f"<message to='{ROOM}/Anna' type='chat'>{secret}</message>")
    if worker == 1:  # where the room is: another worker has to ask, and what it asked for is sent by then
        await cleo.send(f"<message to='{ROOM}/Nobody' type='chat'><body>who?</body></message>")
        assert condition(await cleo.expect("message", type="error")) == "item-not-found"
    copy = (await phone.expect("message")).find("{urn:xmpp:carbons:2}sent").find(MESSAGE)
    assert (copy.get("to"), copy.findtext(BODY)) == (f"{ROOM}/Anna", "psst")
    await phone.nothing("message")
    assert not (await hears(anna, "only here")).has("{urn:xmpp:carbons:2}private")
    assert (await query(cleo)).bodies == ["psst", "only here"]


@pytest.mark.parametrize(
    ("allowed", "visitor", "participant", "moderator"),
    [("anyone", 1, 1, 1), ("participants", 0, 1, 1), ("moderators", 0, 0, 1), ("none", 0, 0, 0)],
)
async def test_who_may_send_private_messages(world, allowed, visitor, participant, moderator):
    anna, ben = await two(world, allowpm=allowed, moderatedroom="1")
    cleo = await world.client("cleo", worker=2)
    await set_item(anna, f"affiliation='member' jid='{cleo.bare}'")
    await join(cleo, "Cleo")
    for client, to, may in ((ben, "Cleo", visitor), (cleo, "Anna", participant), (anna, "Cleo", moderator)):
        await client.drain()
        await client.send(f"<message to='{ROOM}/{to}' type='chat'><body>psst</body></message>")
        if may:
            await client.nothing("message", type="error")
        else:
            assert condition(await client.expect("message", type="error")) == "forbidden"


async def test_a_blocked_occupant_is_not_heard(world):
    anna, ben = await two(world)
    block = f"<block xmlns='urn:xmpp:blocking'><item jid='{ROOM}/Ben'/></block>"
    assert (await anna.iq("set", block)).type == "result"
    await anna.drain()
    await say(ben, "boo")
    await hears(ben, "boo")
    await anna.nothing("message")
    await ben.send(f"<message to='{ROOM}/Anna' type='chat'><body>psst</body></message>")
    assert condition(await ben.expect("message", type="error")) == "service-unavailable"
    await say(anna, "still here")
    await hears(ben, "still here")


async def test_a_client_that_returns_errors_is_taken_out(world):
    anna, ben = await two(world)
    wait = "<error type='wait'><resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
    await ben.send(f"<message to='{ROOM}' type='error' id='x'>{wait}</message>")
    await anna.nothing("presence")
    gone = "<error type='cancel'><recipient-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
    await ben.send(f"<message to='{ROOM}/Anna' type='error' id='x'>{gone}</message>")
    await anna.expect("presence", from_=f"{ROOM}/Ben", type="unavailable")
    assert condition(await anna.expect("message", type="error", from_=f"{ROOM}/Ben")) == "recipient-unavailable"


async def test_chat_states_are_passed_on_and_leave_no_trace(world):
    anna, ben = await two(world)
    state = "<composing xmlns='http://jabber.org/protocol/chatstates'/>"
    assert await anna.send(f"<message to='{ROOM}' type='groupchat'>{state}</message>") == 0
    got = await ben.expect("message", tag="{http://jabber.org/protocol/chatstates}composing")
    assert id_by(got, ROOM) is None


async def test_a_message_is_acknowledged_when_its_archive_row_is_durable(world):
    anna, ben = await two(world)
    committer = world.servers[1].store.committer
    batch = await say(anna, "here")
    assert batch > committer.committed
    await say(ben, "there")  # through another worker: it waits for the answer, and that for the commit
    assert committer.waiting_rows == 0
    await hears(anna, "there")

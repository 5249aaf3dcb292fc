"""XEP-0357: an app's server hears that something waits for a client that sleeps."""

from __future__ import annotations

import asyncio

import pytest
from harness import DOMAIN, PATIENCE, condition
from wire_client import WireClient

from nestbox.core.errors import StanzaError
from nestbox.core.jid import parse_jid
from nestbox.modules import push as module
from nestbox.net import connections as connection_module
from nestbox.net.connections import Connections
from nestbox.protocol.features import StreamOptions
from nestbox.wire.stanza import iq_error, iq_result, parse_stanza

PUSH = "urn:xmpp:push:0"
PUBSUB = "{http://jabber.org/protocol/pubsub}"
FORM = "{jabber:x:data}"
SERVICE = f"push.{DOMAIN}"
FORM_TYPE = "http://jabber.org/protocol/pubsub#publish-options"
SECRET = (
    f"<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>{FORM_TYPE}</value></field>"
    "<field var='secret'><value>eruio &amp; co</value></field></x>"
)


def values(x):
    """The fields of a form."""
    return {field.get("var"): field.findtext(f"{FORM}value") for field in x.iterfind(f"{FORM}field")}


class AppServer:
    """A push service on a host of its own; ``heard`` are (worker, iq), it answers with ``error`` where that is set."""

    def __init__(self, world):
        self.world = world
        self.heard = []
        self.error = None
        self.answering = True
        for server in world.servers.values():
            server.router.hosts[SERVICE] = lambda sender, to, stanza, session, s=server: self._take(s, stanza)

    def _take(self, server, stanza):
        stanza = parse_stanza(stanza.encode())
        self.heard.append((server.bus.worker, stanza))
        if self.answering:
            self.answer(server, stanza)
        return 0

    def answer(self, server, stanza):
        answer = iq_result(stanza) if self.error is None else iq_error(stanza, self.error.element())
        server.router.route(parse_jid(SERVICE), parse_jid(stanza.from_), answer)

    async def drain(self):
        """What came, once all is quiet."""
        await self.world.settle()
        heard, self.heard = self.heard, []
        return heard

    async def one(self):
        """The only notification that came: (worker, iq, fields of its summary)."""
        [(worker, iq)] = await self.drain()
        form = iq.payload.find(f"{PUBSUB}publish/{PUBSUB}item/{{{PUSH}}}notification/{FORM}x")
        return worker, iq, values(form)

    async def counts(self):
        return [
            values(iq.find(f".//{FORM}x"))["message-count"] for iq in (one.element for _, one in await self.drain())
        ]


@pytest.fixture
def app(world):
    return AppServer(world)


async def enable(client, node="n1", options="", jid=SERVICE):
    answer = await client.iq("set", f"<enable xmlns='{PUSH}' jid='{jid}' node='{node}'>{options}</enable>")
    await client.world.settle()
    return answer


async def phone(world, app, worker=1, name="anna", node="n1", **options):
    """A client that has registered, and can resume."""
    client = await world.client(name, "phone", worker=worker)
    client.server.enable_sm(client.session, True)
    assert (await enable(client, node, **options)).type == "result"
    return client


async def gone_phone(world, app):
    """One that has left since, as every worker knows."""
    client = await phone(world, app)
    await client.leave()
    await world.settle()
    return client


async def say(client, to, body="hi", kind="chat", extra=""):
    await client.send(f"<message to='{to}' type='{kind}'><body>{body}</body>{extra}</message>")
    await client.world.settle()


# registrations


async def test_the_feature(world):
    anna = await world.client("anna")
    info = await anna.iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", anna.bare)
    assert PUSH in [feature.get("var") for feature in info.payload]


async def test_a_message_to_somebody_who_is_away(world, app):
    anna = await gone_phone(world, app)
    ben = await world.client("ben", worker=2)
    await say(ben, anna.bare, "secret")
    _, iq, summary = await app.one()
    assert iq.type == "set" and iq.from_ == anna.bare and iq.to == SERVICE
    assert iq.payload.tag == f"{PUBSUB}pubsub" and iq.payload.find(f"{PUBSUB}publish").get("node") == "n1"
    assert summary == {"FORM_TYPE": "urn:xmpp:push:summary", "message-count": "1"}
    assert b"secret" not in iq.encode() and b"ben" not in iq.encode()
    assert iq.payload.find(f"{PUBSUB}publish-options") is None
    await say(ben, anna.bare)
    assert (await app.one())[2]["message-count"] == "2"
    assert world.servers[2].counts.pushes == 2


async def test_the_operator_may_want_details(world, app):
    world.config.push.details = True
    anna = await gone_phone(world, app)
    ben = await world.client("ben")
    await say(ben, anna.bare, "x" * 1000)
    summary = (await app.one())[2]
    assert summary["last-message-sender"] == ben.jid and summary["last-message-body"] == "x" * 200


@pytest.mark.parametrize("options", [SECRET, SECRET.replace(" type='submit'", "")])
async def test_options_go_with_each_notification(world, app, options):
    anna = await phone(world, app, options=options)
    await anna.leave()
    await say(await world.client("ben", worker=2), anna.bare)
    _, iq, _ = await app.one()
    form = iq.payload.find(f"{PUBSUB}publish-options/{FORM}x")
    assert form.get("type") == "submit" and values(form) == {"FORM_TYPE": FORM_TYPE, "secret": "eruio & co"}


async def test_the_last_options_count(world, app):
    anna = await phone(world, app, options=SECRET)
    await enable(anna, options=SECRET.replace("eruio", "new"))
    await anna.leave()
    await say(await world.client("ben"), anna.bare)
    _, iq, _ = await app.one()
    assert values(iq.payload.find(f"{PUBSUB}publish-options/{FORM}x"))["secret"] == "new & co"


async def test_a_registration_without_a_node(world, app):
    anna = await world.client("anna", "phone")
    assert (await anna.iq("set", f"<enable xmlns='{PUSH}' jid='{SERVICE}'/>")).type == "result"
    await anna.leave()
    await say(await world.client("ben"), anna.bare)
    assert (await app.one())[1].payload[0].get("node") is None


async def test_disabling_one_and_all(world, app):
    anna = await phone(world, app, node="n1")
    for node in ("n2", "n3"):
        await enable(anna, node)
    await anna.iq("set", f"<disable xmlns='{PUSH}' jid='{SERVICE}' node='n2'/>")
    ben = await world.client("ben", worker=2)
    await anna.leave()
    await say(ben, anna.bare)
    assert sorted(iq.payload[0].get("node") for _, iq in await app.drain()) == ["n1", "n3"]
    anna = await world.client("anna", "phone", worker=2)
    assert (await anna.iq("set", f"<disable xmlns='{PUSH}' jid='{SERVICE}'/>")).type == "result"
    await world.settle()
    assert (await anna.iq("set", f"<disable xmlns='{PUSH}' jid='{SERVICE}'/>")).type == "result"
    await anna.leave()
    await say(ben, anna.bare)
    assert await app.drain() == []


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (f"<enable xmlns='{PUSH}' node='n'/>", "bad-request"),
        (f"<disable xmlns='{PUSH}'/>", "bad-request"),
        (f"<enable xmlns='{PUSH}' jid='@' node='n'/>", "jid-malformed"),
        (
            f"<enable xmlns='{PUSH}' jid='{SERVICE}' node='n'>{SECRET.replace(FORM_TYPE, 'other')}</enable>",
            "bad-request",
        ),
        (f"<enable xmlns='{PUSH}' jid='{SERVICE}' node='n'>{SECRET.replace('submit', 'form')}</enable>", "bad-request"),
    ],
)
async def test_what_is_no_registration(world, payload, error):
    anna = await world.client("anna")
    assert condition(await anna.iq("set", payload)) == error
    assert anna.session.user.pushes == ()


async def test_nobody_registers_for_somebody_else(world):
    ben = await world.client("ben")
    await world.user("anna")
    for name in ("enable", "disable"):
        answer = await ben.iq("set", f"<{name} xmlns='{PUSH}' jid='{SERVICE}' node='n'/>", f"anna@{DOMAIN}")
        assert condition(answer) == "forbidden"


async def test_the_limits(world, limits):
    limits.push_registrations, limits.push_options_bytes = 2, 1000
    anna = await world.client("anna")
    for node in ("1", "2", "2"):
        assert (await enable(anna, node)).type == "result"
    assert condition(await enable(anna, "3")) == "resource-constraint"
    assert condition(await enable(anna, "x" * 1025)) == "policy-violation"
    assert condition(await enable(anna, "1", SECRET.replace("eruio", "x" * 1000))) == "policy-violation"
    assert world.limits_hit() == {"push_registrations": 1, "push_node_bytes": 1, "push_options_bytes": 1}
    assert {registration.node for registration in anna.session.user.pushes} == {"1", "2"}


async def test_saying_it_again_writes_nothing(world, app, monkeypatch):
    anna = await phone(world, app)
    monkeypatch.setattr(world.servers[1].store.push, "enable", None)
    assert (await enable(anna)).type == "result"


async def test_registrations_outlive_the_server_and_not_the_account(world, app):
    anna = await phone(world, app)
    store = world.servers[1].store
    user_id = anna.session.user.id
    assert [r.node for r in await store.push.list(user_id)] == ["n1"]
    await store.accounts.delete("anna")
    assert await store.push.list(user_id) == []


# who is told, and when


async def test_a_client_that_is_there_is_not_told(world, app):
    anna = await phone(world, app)
    ben = await world.client("ben", worker=2)
    await say(ben, anna.bare)
    await say(ben, anna.jid)
    anna.server.nonzas["{urn:xmpp:csi:0}inactive"](anna.session, None)
    await say(ben, anna.bare)
    assert await app.drain() == []


async def test_the_phone_is_told_though_another_client_has_the_message(world, app):
    anna = await gone_phone(world, app)
    desk = await world.client("anna", "desk", worker=2)
    await say(await world.client("ben"), anna.bare)
    await desk.expect("message")
    assert (await app.one())[2]["message-count"] == "1"


async def test_what_one_writes_oneself_tells_no_phone(world, app):
    anna = await gone_phone(world, app)
    desk = await world.client("anna", "desk")
    ben = await world.client("ben", worker=2)
    await say(desk, ben.bare)
    await say(desk, anna.bare, "note to self")
    assert await app.drain() == []


@pytest.mark.parametrize("worker", [1, 2])
async def test_a_client_that_may_resume_is_told_once(world, app, worker):
    anna = await phone(world, app, worker=2)
    ben = await world.client("ben", worker=worker)
    await anna.vanish()
    assert await app.drain() == []  # nothing waits
    await say(ben, anna.bare)
    told_by, _, summary = await app.one()
    assert told_by == 2 and summary["message-count"] == "1"
    await say(ben, anna.bare)
    await say(ben, anna.jid)
    assert await app.drain() == []


async def test_after_a_resumption_it_is_told_again(world, app):
    anna = await WireClient.login(world, "anna", worker=1)
    client = await world.client("ben", worker=2)
    anna.send(f"<iq type='set' id='e'><enable xmlns='{PUSH}' jid='{SERVICE}' node='n'/></iq>")
    await anna.answered()
    for worker in (2, 1):
        anna.vanish()
        await world.settle()
        await say(client, anna.jid)
        assert await app.counts() == ["1"]
        assert await anna.resume(worker)
        anna.acknowledge()
        await world.settle()
    assert anna.bodies == ["hi", "hi"]


async def test_what_was_on_its_way_when_the_connection_broke(world, app):
    anna = await phone(world, app)
    ben = await world.client("ben", worker=2)
    for _ in range(2):
        await say(ben, anna.bare)  # the client acknowledges none
    await say(ben, anna.bare, kind="headline")
    assert await app.drain() == []
    await anna.vanish()
    assert (await app.one())[2]["message-count"] == "2"


async def test_what_was_acknowledged_is_no_news(world, app):
    anna = await phone(world, app)
    await say(await world.client("ben"), anna.bare)
    anna.session.acknowledge(anna.session.sm.sent)
    await anna.vanish()
    assert await app.drain() == []


async def test_a_client_that_falls_silent_is_told_once(world, app, monkeypatch):
    monkeypatch.setattr(connection_module, "SILENT_TICKS", 2)
    anna = await WireClient.login(world, "anna", worker=1)
    anna.send(f"<iq type='set' id='e'><enable xmlns='{PUSH}' jid='{SERVICE}' node='n'/></iq>")
    await anna.answered()
    connections = anna.pipe.connection.shared
    assert isinstance(connections, Connections) and isinstance(connections.options, StreamOptions)
    ben = await world.client("ben", worker=2)
    for _ in range(2):
        await asyncio.sleep(0)
        connections.tick()  # nothing is owed
    assert await app.drain() == []
    anna.silent = True
    await say(ben, anna.jid)
    connections.tick()
    assert await app.drain() == []
    for _ in range(3):
        connections.tick()
    assert await app.counts() == ["1"]
    anna.silent = False
    anna.acknowledge()
    await world.settle()
    anna.silent = True
    await say(ben, anna.jid)
    for _ in range(3):
        connections.tick()
    assert await app.counts() == ["1"]


async def test_copies_for_a_sleeping_client(world, app):
    anna = await phone(world, app)
    await anna.iq("set", "<enable xmlns='urn:xmpp:carbons:2'/>")
    desk = await world.client("anna", "desk", worker=2)
    ben = await world.client("ben")
    anna.session.acknowledge(anna.session.sm.sent)
    await anna.vanish()
    await say(desk, ben.jid, "written on the desk")
    assert await app.drain() == []
    await say(ben, desk.jid, "for the desk")
    await desk.expect("message")
    assert await app.counts() == ["1"]


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("<message to='%s' type='chat'><encrypted xmlns='eu.siacs.conversations.axolotl'/></message>", True),
        ("<message to='%s'><propose xmlns='urn:xmpp:jingle-message:0' id='c'/></message>", True),
        ("<message to='%s'><x xmlns='jabber:x:conference' jid='r@x'/></message>", True),
        ("<message to='%s' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>", False),
        ("<message to='%s' type='chat'><received xmlns='urn:xmpp:receipts' id='x'/></message>", False),
        ("<message to='%s' type='headline'><body>x</body></message>", False),
        ("<message to='%s' type='error'><body>x</body></message>", False),
        ("<message to='%s'><body>x</body><no-store xmlns='urn:xmpp:hints'/></message>", False),
        ("<presence to='%s'/>", False),
    ],
)
@pytest.mark.parametrize("away", ["gone", "asleep"])
async def test_what_wakes_a_phone(world, app, message, told, away):
    anna = await phone(world, app)
    anna.session.acknowledge(anna.session.sm.sent)
    await (anna.leave() if away == "gone" else anna.vanish())
    ben = await world.client("ben", worker=2)
    await ben.send(message % anna.bare)
    assert len(await app.drain()) == told


async def test_a_blocked_sender_wakes_nobody(world, app):
    anna = await phone(world, app)
    await anna.iq("set", f"<block xmlns='urn:xmpp:blocking'><item jid='ben@{DOMAIN}'/></block>")
    await anna.leave()
    await say(await world.client("ben"), anna.bare)
    assert await app.drain() == []


async def test_what_is_not_kept_anywhere_wakes_nobody(world, app):
    anna = await phone(world, app)
    query = "<prefs xmlns='urn:xmpp:mam:2' default='never'><always/><never/></prefs>"
    await anna.iq("set", query)
    await anna.leave()
    await world.client("anna", "desk")
    await say(await world.client("ben", worker=2), anna.bare)
    assert await app.drain() == []


async def test_after_the_end_of_a_session_each_message_counts(world, app):
    anna = await phone(world, app)
    ben = await world.client("ben")
    await anna.vanish()
    for _ in range(3):
        await say(ben, anna.bare)
    await app.one()
    await world.servers[1].end_session(anna.session)
    assert (await app.counts())[-1] == "3"  # they wait in the offline store
    await say(ben, anna.bare)
    assert (await app.one())[2]["message-count"] == "4"


async def test_a_message_for_a_session_that_has_just_ended(world, app):
    anna = await phone(world, app, worker=1)
    ben = await world.client("ben", worker=2)
    await anna.leave()
    assert world.servers[2].registry.of(anna.bare)  # not heard of it yet
    await say(ben, anna.bare)
    assert await app.counts() == ["1"]


# what the app's server says


async def test_a_refusal_ends_the_registration(world, app):
    anna = await phone(world, app)
    await enable(anna, "n2")
    await anna.leave()
    app.error = StanzaError("item-not-found")
    ben = await world.client("ben", worker=2)
    await say(ben, anna.bare)
    assert len(await app.drain()) == 2
    await say(ben, anna.bare)
    assert await app.drain() == []
    assert world.servers[2].counts.pushes_failed == 2
    assert await world.servers[1].store.push.list(anna.session.user.id) == []
    anna = await phone(world, app)
    app.error = None
    await anna.leave()
    await say(ben, anna.bare)
    assert len(await app.drain()) == 1


@pytest.mark.parametrize("error", ["resource-constraint", "remote-server-timeout", "remote-server-not-found"])
async def test_bad_luck_ends_it_after_many_times_in_a_row(world, app, monkeypatch, error):
    monkeypatch.setattr(module, "FAILURES", 3)
    anna = await gone_phone(world, app)
    ben = await world.client("ben", worker=2)
    for failing in (2, 3):
        app.error = StanzaError(error)
        for _ in range(failing):
            await say(ben, anna.bare)
        assert len(await app.drain()) == failing
        app.error = None
        await say(ben, anna.bare)
        assert len(await app.drain()) == (failing == 2)  # a success in between begins the count anew


async def test_a_service_that_nobody_reaches_is_counted(world, app):
    anna = await world.client("anna", "phone")
    assert (await enable(anna, jid="push.elsewhere.test")).type == "result"
    await anna.leave()
    await say(await world.client("ben"), anna.bare)
    assert world.servers[1].counts.pushes_failed == 1
    assert len(await world.servers[1].store.push.list(anna.session.user.id)) == 1


async def test_a_service_that_does_not_answer(world, app, monkeypatch):
    questions = world.servers[1].questions
    ask = questions.ask
    monkeypatch.setattr(questions, "ask", lambda *given: ask(*given, seconds=0.05))
    anna = await gone_phone(world, app)
    app.answering = False
    await say(await world.client("ben"), anna.bare)
    assert len(await app.drain()) == 1
    assert world.servers[1].counts.pushes_failed == 1 and not questions._open


async def test_one_notification_at_a_time(world, app):
    anna = await gone_phone(world, app)
    ben = await world.client("ben")
    app.answering = False
    await ben.send(f"<message to='{anna.bare}' type='chat'><body>first</body></message>")
    async with asyncio.timeout(PATIENCE):
        while not app.heard:  # noqa: ASYNC110
            await asyncio.sleep(0)
    for number in range(10):
        await ben.send(f"<message to='{anna.bare}' type='chat'><body>{number}</body></message>")
    assert len(app.heard) == 1
    app.answering = True
    app.answer(world.servers[1], app.heard[0][1])
    assert await app.counts() == ["1", "11"]

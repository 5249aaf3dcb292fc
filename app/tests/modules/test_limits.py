"""Every limit of the configuration: what goes over it gets the right error, and is counted."""

from __future__ import annotations

import asyncio
import base64
import re
from pathlib import Path

import msgspec
import pytest
from harness import DOMAIN, condition
from muc.rooms import ADMIN, HOST, ROOM, enter, make
from wire_client import HEADER, Pipe, WireClient

import nestbox
from nestbox.config import Limits
from nestbox.net.connections import PING_ANSWER_SECONDS, Connections
from nestbox.net.ws_frames import FrameError
from nestbox.protocol.features import StreamOptions

# What each limit is in its test, where it must be small to be gone over, and None where the default will do.
SMALL = {
    "stanza_bytes_before_login": 10_000,
    "stanza_bytes": 20_000,
    "login_seconds": None,
    "idle_seconds": None,
    "connections": 1,
    "sessions_per_user": 2,
    "roster_items": 2,
    "blocked_items": 2,
    "offline_messages": 2,
    "private_bytes": 1_000,
    "pubsub_nodes": 2,
    "pubsub_item_bytes": 1_000,
    "pubsub_bytes": 1_000,
    "pubsub_subscriptions": 1,
    "resume_seconds": None,
    "unacked_stanzas": 5,
    "unacked_bytes": 10_000,
    "directed_presences": 2,
    "command_sessions": 2,
    "command_seconds": None,
    "rooms_per_user": 1,
    "room_occupants": 1,
    "room_affiliations": 1,
}
# Those of streams and of the archive that nobody configures.
FIXED = ("xml_depth", "xml_elements", "xml_attributes", "login_attempts", "archive_ids")
# Those that refuse nobody, so that this metric does not count them, and what they do instead.
REFUSE_NOBODY = {
    "write_buffer_bytes": "who does not read is cut, see nestbox_slow_consumers",
    "session_stanzas": "who sends too much is read more slowly, see nestbox_clients_slowed",
    "session_bytes": "who sends too much is read more slowly, see nestbox_clients_slowed",
    "pubsub_items": "the oldest item goes",
    "caps_cached": "what was used longest ago is asked for again",
    "room_history": "the oldest message is left to the archive",
    "trusted_addresses": "for whom there are no limits",
}
_NAMES = re.compile(r'limit\w*(?:=|\[|\()"(\w+)"').findall
_QUOTED = re.compile(r'"(\w+)"').findall


@pytest.fixture
def limits(request):
    field = request.node.callspec.params.get("field") if hasattr(request.node, "callspec") else None
    small = SMALL.get(field)
    return Limits() if small is None else Limits(**{field: small})


@pytest.mark.parametrize("field", [*SMALL, *FIXED])
async def test_going_over(world, field):
    await globals()[f"over_{field}"](world)
    await world.settle()
    assert world.limits_hit() == {field: 1}


def test_every_limit_has_its_test():
    """Each is configured or has its name in the code, and a test that says what the metric then counts."""
    fields = {field.name for field in msgspec.structs.fields(Limits)}
    named = {name for file in Path(nestbox.__file__).parent.rglob("*.py") for name in _NAMES(file.read_text())}
    counted = {*SMALL, *FIXED}
    for file in Path(__file__).parents[1].rglob("test_*.py"):
        lines = file.read_text().splitlines()
        counted.update(name for line in lines if "limits_hit" in line for name in _QUOTED(line))
    assert (fields | named) - counted == REFUSE_NOBODY.keys()


# streams


class Stream(WireClient):
    """A stream with the limits of the configuration."""

    async def connect(self, worker):
        server = self.world.servers[worker]
        limits = server.config.limits
        options = StreamOptions(
            domain=DOMAIN,
            plain_allowed=True,
            features_after_auth=list(server.stream_features),
            max_bytes_before_auth=limits.stanza_bytes_before_login,
            max_bytes=limits.stanza_bytes,
        )
        self.connections = getattr(self, "connections", None) or Connections(server, options, None)
        self.pipe = Pipe(self)
        self.pipe.connection = self.connections.accept(self.pipe)
        self.pipe.feed(HEADER)
        await self.until(lambda: self.others)
        if self.error() is None:
            await self.expect("features")


async def stream(world, *, login=False):
    client = Stream(world, "alice")
    await world.user("alice")
    await client.connect(1)
    if login:
        await world.servers[1].store.accounts.set_password("alice", "password")
        await client.authenticate()
        await client.bind("wire")
    return client


async def ended(client):
    await client.until(lambda: client.pipe.closed)
    return client.error()


async def over_stanza_bytes_before_login(world):
    client = await stream(world)
    client.pipe.feed(b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + b"A" * 10_001)
    assert await ended(client) == "policy-violation"


async def over_stanza_bytes(world):
    client = await stream(world, login=True)
    client.pipe.feed(b"<message to='alice@nestbox.test'><body>" + b"A" * 20_001)
    assert await ended(client) == "policy-violation"


async def over_xml_depth(world):
    await _too_much(world, "<a>" * 70)


async def over_xml_elements(world):
    await _too_much(world, "<message>" + "<a/>" * 8_200)


async def over_xml_attributes(world):
    attributes = " ".join(f"a{number}=''" for number in range(70))
    await _too_much(world, f"<message {attributes}/>")


async def _too_much(world, xml):
    client = await stream(world, login=True)
    client.pipe.feed(xml.encode())
    assert await ended(client) == "policy-violation"


async def over_login_attempts(world):
    client = await stream(world)
    secret = base64.b64encode(b"\0alice\0wrong").decode()
    for _ in range(3):
        client.others.clear()
        client.pipe.feed(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>".encode())
        await client.until(lambda: client.others)
    assert await ended(client) == "policy-violation"


async def test_a_websocket_frame_that_is_too_big_is_counted(world):
    client = await stream(world)
    client.pipe.connection.connection_lost(FrameError(1009, "too big"))
    assert world.limits_hit() == {"stanza_bytes_before_login": 1}


async def over_login_seconds(world):
    client = await stream(world)
    client.pipe.connection.opened -= world.config.limits.login_seconds + 1
    client.connections.tick()
    assert await ended(client) == "connection-timeout"


async def over_idle_seconds(world):
    client = await stream(world, login=True)
    client.pipe.connection.heard -= world.config.limits.idle_seconds + 1
    client.connections.tick()
    await client.until(lambda: any(s.find("{urn:xmpp:ping}ping") is not None for s in client.stanzas))
    assert not client.pipe.closed
    client.pipe.connection.heard -= PING_ANSWER_SECONDS
    client.connections.tick()
    assert client.pipe.closed


async def over_connections(world):
    client = await stream(world)
    other = Stream(world, "bob")
    other.connections = client.connections
    await other.connect(1)
    assert await ended(other) == "resource-constraint"
    assert not client.pipe.closed


async def over_unacked_stanzas(world):
    await _unacked(world, "x")


async def over_unacked_bytes(world):
    await _unacked(world, "x" * 3_000)


async def _unacked(world, body):
    client = await stream(world, login=True)
    client.silent = True
    bob = await world.client("bob")
    for _ in range(6):
        await bob.send(f"<message to='{client.jid}' type='chat'><body>{body}</body></message>")
    assert await ended(client) == "resource-constraint"


async def over_resume_seconds(world):
    client = await stream(world, login=True)
    client.vanish()
    await world.settle()
    server = world.servers[1]
    session = server.registry.sessions[client.jid]
    session.away_since -= world.config.limits.resume_seconds + 1
    await server.tick()
    assert client.jid not in server.registry.sessions


# accounts


async def over_sessions_per_user(world):
    for _ in range(2):
        await world.client("alice")
    client = await stream(world)
    await world.servers[1].store.accounts.set_password("alice", "password")
    await client.authenticate()
    client.pipe.feed(b"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")
    answer = await client.expect("iq")
    assert answer.find("{jabber:client}error")[0].tag.endswith("}resource-constraint")


async def over_roster_items(world):
    alice = await world.client("alice")
    item = "<query xmlns='jabber:iq:roster'><item jid='{}@x.test'/></query>"
    for name in "ab":
        assert (await alice.iq("set", item.format(name))).type == "result"
    assert condition(await alice.iq("set", item.format("c"))) == "resource-constraint"
    assert (await alice.iq("set", item.format("a"))).type == "result"


async def over_blocked_items(world):
    alice = await world.client("alice")
    block = "<block xmlns='urn:xmpp:blocking'>{}</block>"
    items = "".join(f"<item jid='{name}@x.test'/>" for name in "abc")
    assert condition(await alice.iq("set", block.format(items))) == "resource-constraint"
    assert len((await alice.iq("get", "<blocklist xmlns='urn:xmpp:blocking'/>")).payload) == 0


async def over_offline_messages(world):
    alice = await world.client("alice")
    await world.user("bob")
    for _ in range(3):
        await alice.send("<message to='bob@nestbox.test' type='chat'><body>x</body></message>")
        await world.settle()
    assert condition(await alice.expect("message", type="error")) == "resource-constraint"


async def over_private_bytes(world):
    alice = await world.client("alice")
    big = f"<query xmlns='jabber:iq:private'><a xmlns='x:1'>{'x' * 1_001}</a></query>"
    assert condition(await alice.iq("set", big)) == "resource-constraint"


async def over_directed_presences(world):
    alice = await world.client("alice")
    for name in "abc":
        await alice.send(f"<presence to='{name}@nestbox.test'/>")
    assert condition(await alice.expect("presence", type="error")) == "policy-violation"


async def over_archive_ids(world):
    alice = await world.client("alice")
    ids = f"<field var='ids'>{'<value>1</value>' * 101}</field>"
    form = f"<field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field>{ids}"
    query = f"<query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data' type='submit'>{form}</x></query>"
    assert condition(await alice.iq("set", query)) == "bad-request"


# commands


COMMAND = "<command xmlns='http://jabber.org/protocol/commands' node='http://jabber.org/protocol/admin#announce'{}/>"


async def _begin(world):
    alice = await world.client("alice")
    for node, command in list(world.servers[1].commands.items()):
        world.servers[1].commands[node] = type(command)(node, command.name, command.steps)
    return alice, (await alice.iq("set", COMMAND.format(""), to=DOMAIN)).payload.get("sessionid")


async def over_command_sessions(world):
    alice, _ = await _begin(world)
    assert (await alice.iq("set", COMMAND.format(""), to=DOMAIN)).type == "result"
    assert condition(await alice.iq("set", COMMAND.format(""), to=DOMAIN)) == "resource-constraint"


async def over_command_seconds(world):
    alice, session = await _begin(world)
    world.config.limits.command_seconds = -1
    await asyncio.sleep(0)
    answer = await alice.iq("set", COMMAND.format(f" sessionid='{session}'"), to=DOMAIN)
    assert condition(answer) == "not-allowed"


# nodes


def publish(node, payload="<a xmlns='x:1'/>"):
    item = f"<publish node='{node}'><item id='1'>{payload}</item></publish>"
    return f"<pubsub xmlns='http://jabber.org/protocol/pubsub'>{item}</pubsub>"


async def over_pubsub_nodes(world):
    alice = await world.client("alice")
    for node in ("x:1", "x:2"):
        assert (await alice.iq("set", publish(node))).type == "result"
    assert condition(await alice.iq("set", publish("x:3"))) == "conflict"
    assert condition(await alice.iq("set", publish("x:1"))) is None


async def over_pubsub_item_bytes(world):
    alice = await world.client("alice")
    assert condition(await alice.iq("set", publish("x:1", f"<a xmlns='x:1'>{'x' * 1_000}</a>"))) == "not-acceptable"


async def over_pubsub_bytes(world):
    alice = await world.client("alice")
    big = f"<a xmlns='x:1'>{'x' * 600}</a>"
    assert (await alice.iq("set", publish("x:1", big))).type == "result"
    assert condition(await alice.iq("set", publish("x:2", big))) == "resource-constraint"


async def over_pubsub_subscriptions(world):
    alice, bob, carol = [await world.client(name) for name in ("alice", "bob", "carol")]
    create = "<pubsub xmlns='http://jabber.org/protocol/pubsub'><create node='news'/></pubsub>"
    service = f"pubsub.{DOMAIN}"
    assert (await alice.iq("set", create, to=service)).type == "result"
    answers = []
    for client in (bob, carol):
        subscribe = f"<subscribe node='news' jid='{client.bare}'/>"
        xml = f"<pubsub xmlns='http://jabber.org/protocol/pubsub'>{subscribe}</pubsub>"
        answers.append(condition(await client.iq("set", xml, to=service)))
    assert answers == [None, "policy-violation"]


# rooms


async def over_rooms_per_user(world):
    anna = await make(world)
    await enter(anna, "Anna", f"other@{HOST}")
    assert condition(await anna.expect("presence", type="error")) == "resource-constraint"


async def over_room_occupants(world):
    await make(world)
    bob = await world.client("bob", worker=1)
    await enter(bob, "Bob")
    assert condition(await bob.expect("presence", type="error")) == "service-unavailable"


async def test_a_room_keeps_so_many_messages_for_those_who_enter(world):
    world.config.limits.room_history = 2
    anna = await make(world, room=f"two@{HOST}")
    for number in range(4):
        await anna.send(f"<message to='two@{HOST}' type='groupchat'><body>{number}</body></message>")
    await world.settle()
    bob = await world.client("bob", worker=2)
    await enter(bob, "Bob", f"two@{HOST}")
    await world.settle()
    bodies = [s.find("{jabber:client}body").text for s in bob.received if s.has("{jabber:client}body")]
    assert bodies == ["2", "3"]


async def over_room_affiliations(world):
    anna = await make(world)
    member = f"<item affiliation='member' jid='bob@{DOMAIN}'/>"
    answer = await anna.iq("set", f"<query xmlns='{ADMIN}'>{member}</query>", to=ROOM)
    assert condition(answer) == "resource-constraint"

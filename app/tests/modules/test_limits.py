"""Every limit of the configuration: what goes over it gets the right error, and is counted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from harness import DOMAIN, condition
from muc.rooms import ADMIN, HOST, ROOM, enter, make
from wire_client import HEADER, Pipe, WireClient

from nestbox.config import Limits
from nestbox.net.connections import PING_ANSWER_SECONDS, Connections
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
# Those that need sockets, files or tokens, and those that refuse nobody but only bound what is kept.
ELSEWHERE = {
    "write_buffer_bytes": "net/bosh",
    "component_connections": "net/components",
    "push_registrations": "modules/test_push.py",
    "push_options_bytes": "modules/test_push.py",
    "token_clients": "modules/test_modern_login.py",
    "devices": "modules/test_devices.py",
    "uploaded_files": "modules/test_uploads.py",
    "open_invites": "modules/test_invites.py",
    "registrations_per_hour": "modules/test_registration.py",
    "pubsub_items": "modules/pubsub/test_items.py",
    "caps_cached": "modules/pubsub/test_client_caps.py",
    "room_history": "modules/test_limits.py",
    "trusted_addresses": "modules/test_floods.py",
    "visitors_per_address": "modules/test_floods.py",
    "failed_logins_per_address": "modules/test_floods.py",
    "failed_logins_per_account": "modules/test_floods.py",
    "session_stanzas": "modules/test_floods.py",
    "session_bytes": "modules/test_floods.py",
}


@pytest.fixture
def limits(request):
    field = request.node.callspec.params.get("field") if hasattr(request.node, "callspec") else None
    small = SMALL.get(field)
    return Limits() if small is None else Limits(**{field: small})


@pytest.mark.parametrize("field", SMALL)
async def test_going_over(world, field):
    counts = world.servers[1].counts
    before = counts.limits_hit
    await globals()[f"over_{field}"](world)
    await world.settle()
    assert counts.limits_hit == before + 1


def test_every_limit_has_its_test():
    fields = {field.name for field in msgspec.structs.fields(Limits)}
    assert fields == SMALL.keys() | ELSEWHERE.keys()
    tests = Path(__file__).parent.parent
    for field, place in ELSEWHERE.items():
        path = tests / place
        files = [path] if path.is_file() else list(path.glob("*.py"))
        assert any(field in file.read_text() for file in files), f"{place} says nothing of {field}"


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
    with pytest.raises(Exception, match="resource-constraint"):
        await world.client("alice")


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

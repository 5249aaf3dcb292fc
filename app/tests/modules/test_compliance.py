"""XEP-0479: every row that asks something of a server is answered by a small exchange with one."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from xml.etree.ElementTree import fromstring

import pytest
from harness import DOMAIN, World, condition
from muc.rooms import ROOM, join, make
from pubsub.pep import event, ids, items, listener, publish
from tornado.httpclient import AsyncHTTPClient
from tornado.websocket import websocket_connect

from nestbox.compliance import ROWS, Row, declared, is_met
from nestbox.config import Config, ExternalService
from nestbox.store import open_store
from nestbox.wire.stanza import iq_result, parse_stanza
from tests.live.conftest import free_port

Exchange = Callable[[World, SimpleNamespace], Awaitable[None]]
EXCHANGES: dict[tuple[str, str], Exchange] = {}
FOUND = declared()
BOT, BOT_SECRET = f"bot.{DOMAIN}", "correct-horse-battery"
STREAM = (
    f"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='{DOMAIN}' version='1.0'>"
).encode()


def row(category: str, feature: str) -> Callable[[Exchange], Exchange]:
    """The exchange that answers for a row."""

    def add(exchange: Exchange) -> Exchange:
        assert (category, feature) not in EXCHANGES
        EXCHANGES[category, feature] = exchange
        return exchange

    return add


@pytest.fixture
def config(config: Config) -> Config:
    config.external_services = [ExternalService("stun", f"turn.{DOMAIN}")]
    return config


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A worker process on its ports: ``c2s`` (STARTTLS), ``tls`` (as behind HAProxy), ``http``, and its ``context``."""
    folder = tmp_path_factory.mktemp("live")
    certificate, key, database = folder / "certificate.pem", folder / "key.pem", f"sqlite:///{folder}/nestbox.db"
    options = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", f"/CN={DOMAIN}", "-addext", f"subjectAltName=DNS:{DOMAIN}", "-keyout", key, "-out", certificate]
    subprocess.run(["openssl", "req", *options, *names], check=True, capture_output=True)

    async def prepare() -> None:
        store = await open_store(database)
        await store.migrate()
        await store.close()

    asyncio.run(prepare())
    ports = {name: free_port() for name in ("c2s", "tls", "http", "component")}
    config = folder / "nestbox.yml"
    config.write_text(
        f"domain: {DOMAIN}\nstate_dir: {folder}\ndatabase: {{url: '{database}'}}\n"
        f"tls: {{certificate: {certificate}, key: {key}}}\n"
        f"listen: {{http: '127.0.0.1:{ports['http']}', c2s: '127.0.0.1:{ports['c2s']}', metrics: '', "
        f"component: '127.0.0.1:{ports['component']}', "
        f"c2s_tls: '127.0.0.1:{ports['tls']}', proxy_protocol: false}}\n"
        f"components: [{{host: {BOT}, secret: {BOT_SECRET}}}]\n"
    )
    process = subprocess.Popen([sys.executable, "-m", "nestbox", "--config", str(config)])
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports["http"]), 1):
            break
        assert process.poll() is None and time.monotonic() < deadline, "the worker did not start"
        time.sleep(0.02)
    context = ssl.create_default_context(cafile=str(certificate))
    yield SimpleNamespace(context=context, **ports)
    process.terminate()
    process.wait(30)


async def features_of(client, to: str) -> set[str]:
    answer = await client.iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", to=to)
    return {each.get("var") for each in answer.payload.iter("{http://jabber.org/protocol/disco#info}feature")}


async def stream(reader, writer) -> bytes:
    """Open a stream; the features that are offered."""
    writer.write(STREAM)
    async with asyncio.timeout(10):
        return await reader.readuntil(b"</stream:features>")


# Core


@row("Core", "Core features")
@row("Core", "TLS")
async def starttls(world, live):
    reader, writer = await asyncio.open_connection("127.0.0.1", live.c2s)
    offered = await stream(reader, writer)
    assert b"<starttls" in offered and b"<required/>" in offered and b"<mechanisms" not in offered
    writer.write(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
    assert b"<proceed" in await reader.readuntil(b">")
    await writer.start_tls(live.context, server_hostname=DOMAIN)
    assert b"SCRAM-SHA-256-PLUS" in await stream(reader, writer)
    writer.close()


@row("Core", "Direct TLS")
async def direct_tls(world, live):
    reader, writer = await asyncio.open_connection("127.0.0.1", live.tls)  # as HAProxy passes it on
    offered = await stream(reader, writer)
    assert b"<starttls" not in offered and b"SCRAM-SHA-256" in offered
    writer.close()


@row("Core", "Feature discovery")
async def discovery(world, live):
    alice = await world.client("alice")
    assert "http://jabber.org/protocol/disco#info" in await features_of(alice, DOMAIN)
    items = await alice.iq("get", "<query xmlns='http://jabber.org/protocol/disco#items'/>", to=DOMAIN)
    assert items.type == "result"


@row("Core", "Feature broadcasts")
async def capabilities(world, live):
    (offered,) = [each for each in world.servers[1].stream_features if b"protocol/caps" in each]
    caps = fromstring(offered)
    alice = await world.client("alice")
    node = f"{caps.get('node')}#{caps.get('ver')}"
    query = f"<query xmlns='http://jabber.org/protocol/disco#info' node='{node}'/>"
    assert (await alice.iq("get", query, to=DOMAIN)).payload.get("node") == node


@row("Core", "Server Extensibility")
async def component(world, live):
    reader, writer = await asyncio.open_connection("127.0.0.1", live.component)
    names = "xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams'"
    writer.write(f"<stream:stream {names} to='{BOT}'>".encode())
    header = (await asyncio.wait_for(reader.readuntil(b">"), 10)) + await asyncio.wait_for(reader.readuntil(b">"), 10)
    stream_id = re.search(rb"id=['\"]([^'\"]+)", header).group(1)
    proof = hashlib.sha1(stream_id + BOT_SECRET.encode()).hexdigest()
    writer.write(f"<handshake>{proof}</handshake>".encode())
    assert b"<handshake" in await asyncio.wait_for(reader.readuntil(b">"), 10)
    writer.close()


@row("Core", "Event publishing")
async def pep(world, live):
    await world.friends("alice", "bob")
    alice, bob = await world.client("alice"), await listener(world, "bob", "urn:xmpp:tune", worker=2)
    assert "http://jabber.org/protocol/pubsub#publish" in await features_of(alice, alice.bare)
    assert (await publish(alice, "urn:xmpp:tune", "now", "<tune xmlns='urn:xmpp:tune'/>")).type == "result"
    await event(bob, "urn:xmpp:tune")


# Web


@row("Web", "Web Connection Mechanisms")
async def websocket_and_bosh(world, live):
    socket = await websocket_connect(f"ws://127.0.0.1:{live.http}/xmpp-websocket", subprotocols=["xmpp"])
    await socket.write_message(f"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='{DOMAIN}' version='1.0'/>")
    assert "<open" in await asyncio.wait_for(socket.read_message(), 10)
    assert "features" in await asyncio.wait_for(socket.read_message(), 10)
    socket.close()

    url = f"http://127.0.0.1:{live.http}/http-bind"
    body = (
        "<body xmlns='http://jabber.org/protocol/httpbind' content='text/xml; charset=utf-8' hold='1' rid='1573741820' "
        f"to='{DOMAIN}' ver='1.6' wait='10' xml:lang='en' xmpp:version='1.0' xmlns:xmpp='urn:xmpp:xbosh'/>"
    )
    answer = fromstring((await AsyncHTTPClient().fetch(url, method="POST", body=body)).body)
    assert answer.get("sid") and answer.find("{http://etherx.jabber.org/streams}features") is not None


# IM


@row("IM", "Core features")
async def chat(world, live):
    await world.friends("alice", "bob")
    alice = await world.client("alice")
    bob = await world.client("bob", worker=2, presence=None)
    await bob.send("<presence/>")
    await alice.expect("presence", from_=bob.jid)
    await alice.send(f"<message type='chat' to='{bob.bare}'><body>hi</body></message>")
    await bob.expect("message", from_=alice.jid)
    roster = await alice.iq("get", "<query xmlns='jabber:iq:roster'/>")
    assert [(item.get("jid"), item.get("subscription")) for item in roster.payload] == [(bob.bare, "both")]


@row("IM", "User Avatar Compatibility")
async def avatars(world, live):
    alice = await world.client("alice")
    picture = b"\x89PNG a picture"
    photo = f"<PHOTO><TYPE>image/png</TYPE><BINVAL>{base64.b64encode(picture).decode()}</BINVAL></PHOTO>"
    await alice.iq("set", f"<vCard xmlns='vcard-temp'>{photo}</vCard>")
    await world.settle()
    assert ids(await items(alice, "urn:xmpp:avatar:data")) == [hashlib.sha1(picture).hexdigest()]
    assert "urn:xmpp:pep-vcard-conversion:0" in await features_of(alice, alice.bare)


@row("IM", "Group Chat")
async def group_chat(world, live):
    anna, bob = await make(world), await world.client("bob", worker=2)
    await anna.send(f"<message to='{bob.bare}'><x xmlns='jabber:x:conference' jid='{ROOM}'/></message>")
    invitation = await bob.expect("message", tag="{jabber:x:conference}x")
    assert invitation.find("{jabber:x:conference}x").get("jid") == ROOM
    await join(bob, "Bob")
    await bob.send(f"<message to='{ROOM}' type='groupchat'><body>hi</body></message>")
    for client in (anna, bob):
        await client.expect("message", from_=f"{ROOM}/Bob", type="groupchat")


@row("IM", "Advanced Group Chat")
async def advanced_group_chat(world, live):
    anna = await make(world)
    assert (await anna.iq("get", "<ping xmlns='urn:xmpp:ping'/>", to=f"{ROOM}/Anna")).type == "result"  # XEP-0410
    await anna.send(f"<message to='{ROOM}' type='groupchat'><body>hi</body></message>")
    await anna.expect("message", type="groupchat")
    await world.settle()
    assert (await anna.iq("set", "<query xmlns='urn:xmpp:mam:2'/>", to=ROOM)).type == "result"  # XEP-0313
    await anna.expect("message", from_=ROOM, tag="{urn:xmpp:mam:2}result")
    bookmark = "<conference xmlns='urn:xmpp:bookmarks:1' name='Tea'/>"
    await publish(anna, "urn:xmpp:bookmarks:1", ROOM, bookmark)  # XEP-0402, read as XEP-0048 by older clients
    await world.settle()
    query = "<query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'/></query>"
    (old,) = (await anna.iq("get", query)).payload[0]
    assert old.get("jid") == ROOM
    assert "urn:xmpp:bookmarks:1#compat" in await features_of(anna, anna.bare)


@row("IM", "Persistent Storage of Private Data via PubSub")
async def private_nodes(world, live):
    await world.friends("alice", "bob")
    alice, bob = await world.client("alice"), await world.client("bob", worker=2)
    options = {"persist_items": "true", "access_model": "whitelist"}
    published = await publish(alice, "urn:notes", "1", "<note xmlns='urn:notes'/>", **options)
    assert published.type == "result"
    assert ids(await items(alice, "urn:notes")) == ["1"]
    query = "<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:notes'/></pubsub>"
    assert condition(await bob.iq("get", query, to=alice.bare)) == "not-allowed"


@row("IM", "File Upload")
async def upload(world, live):
    alice = await world.client("alice")
    request = "<request xmlns='urn:xmpp:http:upload:0' filename='a.png' size='10'/>"
    slot = (await alice.iq("get", request, to=f"upload.{DOMAIN}")).payload
    assert [child.get("url").split("/")[2] for child in slot] == [DOMAIN, DOMAIN]


@row("IM", "vcard-temp")
async def vcard(world, live):
    alice, bob = await world.client("alice"), await world.client("bob", worker=2)
    await alice.iq("set", "<vCard xmlns='vcard-temp'><FN>Alice</FN></vCard>")
    card = await bob.iq("get", "<vCard xmlns='vcard-temp'/>", to=alice.bare)
    assert card.payload.find("{vcard-temp}FN").text == "Alice"


@row("IM", "Outbound Message Synchronization")
async def carbons(world, live):
    alice, desk = await world.client("alice"), await world.client("alice", "desk", worker=2)
    await desk.iq("set", "<enable xmlns='urn:xmpp:carbons:2'/>")
    await world.user("bob")
    await alice.send(f"<message type='chat' to='bob@{DOMAIN}'><body>hi</body></message>")
    await desk.expect("message", tag="{urn:xmpp:carbons:2}sent")


@row("IM", "User Blocking")
async def blocking(world, live):
    alice, bob = await world.client("alice"), await world.client("bob", worker=2)
    await alice.iq("set", f"<block xmlns='urn:xmpp:blocking'><item jid='{bob.bare}'/></block>")
    await world.settle()
    await bob.send(f"<message type='chat' to='{alice.bare}'><body>hi</body></message>")
    assert condition(await bob.expect("message", type="error")) == "service-unavailable"
    await alice.nothing("message")


@row("IM", "Private XML Storage")
async def private_storage(world, live):
    alice = await world.client("alice")
    await alice.iq("set", "<query xmlns='jabber:iq:private'><a xmlns='urn:a'>x</a></query>")
    kept = await alice.iq("get", "<query xmlns='jabber:iq:private'><a xmlns='urn:a'/></query>")
    assert kept.payload[0].text == "x"


@row("IM", "Stream Management")
@row("Mobile", "Stream Management")
async def stream_management(world, live):
    from wire_client import WireClient

    world.config.bus.url = "redis://the-hub"
    alice, bob = await WireClient.login(world, "alice"), await world.client("bob", worker=2)
    alice.vanish()
    await bob.send(f"<message type='chat' to='alice@{DOMAIN}' id='m'><body>hi</body></message>")
    await alice.resume(worker=2)
    await alice.until(lambda: any(stanza.get("id") == "m" for stanza in alice.stanzas))


@row("IM", "History Storage / Retrieval")
async def history(world, live):
    alice, bob = await world.client("alice"), await world.client("bob", worker=2)
    await alice.send(f"<message type='chat' to='{bob.bare}'><body>hi</body></message>")
    await bob.expect("message", from_=alice.jid)
    await world.settle()
    answer = await bob.iq("set", "<query xmlns='urn:xmpp:mam:2'/>")
    assert answer.payload.get("complete") == "true"
    await bob.expect("message", tag="{urn:xmpp:mam:2}result")


# A/V Calling


@row("A/V Calling", "STUN/TURN server discovery")
async def calls(world, live):
    alice = await world.client("alice")
    answer = await alice.iq("get", "<services xmlns='urn:xmpp:extdisco:2'/>", to=DOMAIN)
    (service,) = answer.payload
    assert (service.get("type"), service.get("host")) == ("stun", f"turn.{DOMAIN}")


# Mobile


@row("Mobile", "Client State Indication")
async def client_state(world, live):
    assert any(b"urn:xmpp:csi:0" in each for each in world.servers[1].stream_features)
    await world.friends("alice", "bob")
    alice, bob = await world.client("alice"), await world.client("bob", worker=2)
    await alice.drain()
    inactive = world.servers[1].nonzas["{urn:xmpp:csi:0}inactive"]
    inactive(alice.session, fromstring("<inactive xmlns='urn:xmpp:csi:0'/>"))
    await bob.send("<presence><show>away</show></presence>")
    await alice.nothing("presence")
    await bob.send(f"<message type='chat' to='{alice.bare}'><body>hi</body></message>")
    await alice.expect("message")


@row("Mobile", "Third Party Push Notifications")
async def push(world, live):
    heard = []

    def take(sender, to, stanza, session):
        heard.append(parse_stanza(stanza.encode()))
        return world.servers[1].router.route(to, sender, iq_result(heard[-1]))

    for server in world.servers.values():
        server.router.hosts[f"push.{DOMAIN}"] = take
    alice, bob = await world.client("alice"), await world.client("bob", worker=2)
    enable = f"<enable xmlns='urn:xmpp:push:0' jid='push.{DOMAIN}' node='phone'/>"
    assert (await alice.iq("set", enable)).type == "result"
    await alice.leave()
    await world.settle()
    await bob.send(f"<message to='{alice.bare}' type='chat'><body>hi</body></message>")
    await world.settle()
    (notification,) = heard
    assert notification.payload.find("*/*/{urn:xmpp:push:0}notification") is not None


@pytest.mark.parametrize("asked", ROWS, ids=lambda asked: f"{asked.category}: {asked.feature}")
async def test_row(world: World, live: SimpleNamespace, asked: Row) -> None:
    assert is_met(asked, FOUND), f"no module declares one of {', '.join(asked.providers)}"
    await EXCHANGES[asked.category, asked.feature](world, live)

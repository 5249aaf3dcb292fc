"""XEP-0479: every row that asks something of a server is answered by a small exchange with one."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from xml.etree.ElementTree import fromstring

import pytest
from harness import DOMAIN, World, condition
from muc.rooms import ROOM, join, make
from pubsub.avatar import DATA, METADATA, photo_hash, publish_avatar, sha1
from pubsub.pep import event, ids, items, listener, publish
from streams import SASL, Bosh, Direct, Tcp, WebSocket, trusting
from test_external_services import SECRET as TURN_SECRET
from test_external_services import good
from tornado.httpclient import AsyncHTTPClient
from wire_client import WireClient

from nestbox.compliance import ROWS, Row, declared, is_met
from nestbox.config import Config, ExternalService
from nestbox.wire.stanza import iq_result, parse_stanza
from tests.clients.site import Site, make_certificate
from tests.net.components.conftest import Bot

Exchange = Callable[[World, Site], Awaitable[None]]
EXCHANGES: dict[tuple[str, str], Exchange] = {}
FOUND = declared()
INFO = "{http://jabber.org/protocol/disco#info}"
PNG = b"\x89PNG " + bytes(range(200))
JPEG = b"\xff\xd8\xff" + bytes(range(200))


def row(category: str, feature: str) -> Callable[[Exchange], Exchange]:
    """The exchange that answers for a row."""

    def add(exchange: Exchange) -> Exchange:
        assert (category, feature) not in EXCHANGES
        EXCHANGES[category, feature] = exchange
        return exchange

    return add


@pytest.fixture
def config(config: Config) -> Config:
    config.external_services = [
        ExternalService("stun", f"turn.{DOMAIN}"),
        ExternalService("turn", f"turn.{DOMAIN}", secret=TURN_SECRET),
    ]
    return config


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two worker processes behind HAProxy, for what is said on a wire; a ``world`` is enough for the rest."""
    with tempfile.TemporaryDirectory(prefix="nestbox-site-") as folder:  # short: a socket's path has 107 bytes
        keys = make_certificate(tmp_path_factory.mktemp("tls"))
        site = Site(Path(folder), f"sqlite:///{folder}/nestbox.db", *keys, None, workers=2)
        asyncio.run(site.prepare())
        try:
            site.start()
            yield site
        finally:
            site.stop()
        assert "Traceback" not in site.log.read_text(), site.log.read_text()


async def features_of(client, to: str) -> set[str]:
    answer = await client.iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", to=to)
    return {each.get("var") for each in answer.payload.iter(INFO + "feature")}


# Core


@row("Core", "Core features")
async def core(world, live):
    stream = await Tcp.arrive(live)
    await stream.hears_itself()
    error = (await stream.iq("get", "<what xmlns='urn:example'/>", DOMAIN)).find("{jabber:client}error")
    assert error[0].tag == "{urn:ietf:params:xml:ns:xmpp-stanzas}service-unavailable"
    stream.send("</stream:stream>")
    await stream.until("</stream:stream>")
    assert await stream.receive() == ""


@row("Core", "TLS")
async def starttls(world, live):
    """RFC 7590: nobody logs in without TLS."""
    clear = Tcp(live)
    await clear.connect_in_the_clear()
    assert "<starttls" in clear.offer and "<required/>" in clear.offer and "<mechanisms" not in clear.offer
    first = base64.b64encode(f"n,,n={(await live.accounts())[0]},r=x".encode()).decode()
    clear.send(f"<auth xmlns='{SASL}' mechanism='SCRAM-SHA-256'>{first}</auth>")
    assert "<encryption-required" in await clear.until("</challenge>|</failure>|</stream:error>")
    clear.close()

    stream = await Tcp.arrive(live)
    assert stream.tls.version() in ("TLSv1.2", "TLSv1.3") and stream.binding
    await stream.hears_itself()
    stream.close()


@row("Core", "Direct TLS")
async def direct_tls(world, live):
    """HAProxy ends TLS, as on the appliance; the worker has a listener for what comes from there."""
    stream = await Direct.arrive(live)
    assert stream.tls.selected_alpn_protocol() == "xmpp-client" and "<starttls" not in stream.offer
    await stream.hears_itself()
    stream.close()


@row("Core", "Feature discovery")
async def discovery(world, live):
    alice = await world.client("alice")
    assert "http://jabber.org/protocol/disco#info" in await features_of(alice, DOMAIN)
    hosts = await alice.iq("get", "<query xmlns='http://jabber.org/protocol/disco#items'/>", to=DOMAIN)
    named = {item.get("jid") for item in hosts.payload}
    assert {f"{host}.{DOMAIN}" for host in ("pubsub", "rooms", "upload")} <= named
    for host in named:
        assert "http://jabber.org/protocol/disco#info" in await features_of(alice, host)


@row("Core", "Feature broadcasts")
async def capabilities(world, live):
    """The hash in the stream features is that of the answer to the node they name (XEP-0115, section 5.1)."""
    stream = await Tcp.arrive(live)
    caps = fromstring(re.search("<c [^>]*protocol/caps[^>]*/>", stream.offer)[0])
    node = f"{caps.get('node')}#{caps.get('ver')}"
    query = f"<query xmlns='http://jabber.org/protocol/disco#info' node='{node}'/>"
    info = (await stream.iq("get", query, DOMAIN))[0]
    assert info.get("node") == node and info.find("{jabber:x:data}x") is None  # a form would be part of the hash
    keys = ("category", "type", "{http://www.w3.org/XML/1998/namespace}lang", "name")
    identities = ["/".join(each.get(key, "") for key in keys) for each in info.iter(INFO + "identity")]
    said = [*sorted(identities), *sorted(each.get("var") for each in info.iter(INFO + "feature"))]
    digest = hashlib.sha1("".join(f"{each}<" for each in said).encode()).digest()
    assert (caps.get("hash"), caps.get("ver")) == ("sha-1", base64.b64encode(digest).decode())
    stream.close()


@row("Core", "Server Extensibility")
async def component(world, live):
    """A message to a component, and its answer."""
    bot = await Bot(SimpleNamespace(ports={1: live[1].component}), f"bot.{DOMAIN}").come()
    assert not bot.closed, bot.error
    anna = await Tcp.arrive(live)
    await anna.message(f"echo@bot.{DOMAIN}", "hi")
    heard = await bot.expect("message", from_=anna.jid, to=f"echo@bot.{DOMAIN}")
    assert heard[0].text == "hi"
    bot.send(f"<message type='chat' from='echo@bot.{DOMAIN}' to='{anna.jid}'><body>hi yourself</body></message>")
    answer = await anna.next_message()
    assert (answer.get("from"), answer[0].text) == (f"echo@bot.{DOMAIN}", "hi yourself")
    anna.close()
    await bot.leave()


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
    for way in (WebSocket, Bosh):
        stream = await way.arrive(live)
        await stream.hears_itself()
        stream.close()


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
    """What PEP has, vCard and presence have, and the other way round."""
    await world.friends("alice", "bob")
    alice, bob = await world.client("alice"), await listener(world, "bob", METADATA, worker=2)
    assert "urn:xmpp:pep-vcard-conversion:0" in await features_of(alice, alice.bare)
    bob.received.clear()
    await publish_avatar(alice, PNG)
    assert photo_hash(await bob.expect("presence", from_=alice.jid)) == sha1(PNG)
    card = (await bob.iq("get", "<vCard xmlns='vcard-temp'/>", alice.bare)).payload
    assert base64.b64decode(card.findtext("{vcard-temp}PHOTO/{vcard-temp}BINVAL")) == PNG
    assert (await event(bob, METADATA))[0].get("id") == sha1(PNG)

    photo = f"<PHOTO><TYPE>image/jpeg</TYPE><BINVAL>{base64.b64encode(JPEG).decode()}</BINVAL></PHOTO>"
    assert (await alice.iq("set", f"<vCard xmlns='vcard-temp'>{photo}</vCard>")).type == "result"
    assert (await event(bob, METADATA))[0].get("id") == sha1(JPEG)
    kept = (await items(bob, DATA, alice.bare, f"<item id='{sha1(JPEG)}'/>")).payload
    assert base64.b64decode(kept[0][0][0].text) == JPEG
    assert photo_hash(await bob.expect("presence", from_=alice.jid)) == sha1(JPEG)


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
    stream = await Tcp.arrive(live)
    request = f"<request xmlns='urn:xmpp:http:upload:0' filename='a.png' size='{len(PNG)}' content-type='image/png'/>"
    put, get = (each.get("url") for each in (await stream.iq("get", request, f"upload.{DOMAIN}"))[0])
    http, trust = AsyncHTTPClient(), {"ssl_options": trusting(live), "raise_error": False}
    assert (await http.fetch(get, **trust)).code == 404
    kind = {"Content-Type": "image/png"}
    assert (await http.fetch(put, method="PUT", body=PNG, headers=kind, **trust)).code == 201
    answer = await http.fetch(get, **trust)
    assert (answer.code, answer.body, answer.headers["Content-Type"]) == (200, PNG, "image/png")
    stream.close()


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
    stun, turn = answer.payload
    assert (stun.get("type"), stun.get("host"), stun.get("username")) == ("stun", f"turn.{DOMAIN}", None)
    assert (turn.get("type"), turn.get("host")) == ("turn", f"turn.{DOMAIN}")
    assert good(turn, int(time.time())) > 0
    query = f"<credentials xmlns='urn:xmpp:extdisco:2'><service host='turn.{DOMAIN}' type='turn'/></credentials>"
    (service,) = (await alice.iq("get", query, to=DOMAIN)).payload
    assert good(service, int(time.time())) > 0


# Mobile


@row("Mobile", "Client State Indication")
async def client_state(world, live):
    await world.friends("alice", "bob")
    alice, bob = await WireClient.login(world, "alice"), await world.client("bob", worker=2)
    assert any(b"urn:xmpp:csi:0" in each for each in world.servers[1].stream_features)
    alice.pipe.feed(b"<inactive xmlns='urn:xmpp:csi:0'/>")
    await alice.answered()
    await world.settle()
    alice.stanzas.clear()
    await bob.send("<presence><show>away</show></presence>")
    await world.settle()
    assert alice.stanzas == []
    alice.pipe.feed(b"<active xmlns='urn:xmpp:csi:0'/>")
    await alice.until(lambda: alice.stanzas)
    (presence,) = alice.stanzas
    assert (presence.get("from"), presence.findtext("{jabber:client}show")) == (bob.jid, "away")


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
async def test_row(world: World, live: Site, asked: Row) -> None:
    assert is_met(asked, FOUND), f"no module declares one of {', '.join(asked.providers)}"
    await EXCHANGES[asked.category, asked.feature](world, live)

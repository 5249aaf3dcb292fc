"""Components (XEP-0114) over real sockets, on two workers with a real core and store."""

import asyncio
import hashlib
import re
from xml.etree.ElementTree import XMLPullParser

import pytest

from nestbox.config import Component, Config, ConfigError, Database, Limits, Listen, load
from nestbox.core.server import Server
from nestbox.modules import components as module
from nestbox.net.component import listen_for_components
from nestbox.store import open_store
from tests.modules.harness import World, condition

DOMAIN = "nestbox.test"
BOT = "bots.nestbox.test"
SECRET = "correct-horse-battery"
NS = "{jabber:component:accept}"
PATIENCE = 8


class Bot:
    """A component; ``stanzas`` is what came, until it was expected."""

    def __init__(self, site, host=BOT, worker=1):
        self.site, self.host, self.worker = site, host, worker
        self.stanzas = []
        self.error = None
        self.closed = False
        self._news = asyncio.Event()

    async def open(self, *, to=None, ns="jabber:component:accept"):
        """Connect and send the stream header."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.site.ports[self.worker])
        names = f"xmlns='{ns}' xmlns:stream='http://etherx.jabber.org/streams'"
        self.send(f"<?xml version='1.0'?><stream:stream {names} to='{to or self.host}'>")
        self._task = asyncio.create_task(self._read())
        await self.until(lambda: hasattr(self, "header"))
        return self

    async def come(self, secret=SECRET):
        """Connect and prove the name."""
        await self.open()
        self.send(f"<handshake>{hashlib.sha1((self.header['id'] + secret).encode()).hexdigest()}</handshake>")
        await self.until(lambda: self.closed or any(e.tag == f"{NS}handshake" for e in self.stanzas))
        if not self.closed:
            self.stanzas.pop(0)
        return self

    async def _read(self):
        parser = XMLPullParser(("start", "end"))
        depth = 0
        while data := await self.reader.read(65536):
            parser.feed(data)
            for event, element in parser.read_events():
                depth += 1 if event == "start" else -1
                if event == "start" and depth == 1:
                    self.header = dict(element.attrib)
                elif event == "end" and depth == 1:
                    if element.tag == "{http://etherx.jabber.org/streams}error":
                        self.error = element[0].tag.rpartition("}")[2]
                    else:
                        self.stanzas.append(element)
            self._news.set()
        self.closed = True
        self._news.set()

    def send(self, xml):
        self.writer.write(xml.encode())

    async def until(self, condition):
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def expect(self, kind, **attributes):
        """Wait for a stanza and take it out of ``stanzas``."""

        def wanted():
            for stanza in self.stanzas:
                if stanza.tag == NS + kind and all(stanza.get(k.rstrip("_")) == v for k, v in attributes.items()):
                    return stanza
            return None

        await self.until(lambda: wanted() is not None)
        stanza = wanted()
        self.stanzas.remove(stanza)
        return stanza

    async def end(self):
        """Wait for the end of the stream; the condition of its error."""
        await self.until(lambda: self.closed)
        return self.error

    async def leave(self):
        self.writer.close()
        await self._task


class Site:
    def __init__(self, world):
        self.world = world
        self.ports, self.listeners, self.bots = {}, {}, []

    async def listen(self, number):
        self.listeners[number] = await listen_for_components(self.world.servers[number], number)
        self.ports[number] = self.listeners[number].port

    async def bot(self, host=BOT, worker=1):
        bot = await Bot(self, host, worker).come()
        self.bots.append(bot)
        assert not bot.closed, bot.error
        await self.world.settle()
        return bot

    def stranger(self, worker=1, host=BOT):
        self.bots.append(Bot(self, host, worker))
        return self.bots[-1]

    def places(self, worker):
        return self.world.servers[worker].components._places


@pytest.fixture
def config(tmp_path):
    return Config(
        domain=DOMAIN,
        limits=Limits(),
        database=Database(url=f"sqlite:///{tmp_path}/nestbox.db"),
        listen=Listen(component="127.0.0.1:0"),
        components=[Component(BOT, SECRET), Component("irc.nestbox.test", SECRET)],
    )


@pytest.fixture
async def site(config):
    store = await open_store(config.database.url)
    await store.migrate()
    await store.close()
    world = World(config)
    await world.start(2)
    site = Site(world)
    for number in (1, 2):
        await site.listen(number)
    yield site
    await world.stop()
    for bot in site.bots:
        if hasattr(bot, "writer"):
            bot.writer.close()
            await bot._task
    for listener in site.listeners.values():
        listener.close()


# the stream


async def test_the_handshake(site):
    bot = await site.bot()
    assert bot.header["from"] == BOT and len(bot.header["id"]) >= 16 and "version" not in bot.header
    other = await site.stranger().open()
    assert other.header["id"] != bot.header["id"]


@pytest.mark.parametrize("proof", ["", "0" * 40, "é", hashlib.sha1(SECRET.encode()).hexdigest()])
async def test_a_wrong_handshake(site, proof):
    bot = await site.stranger().open()
    bot.send(f"<handshake>{proof}</handshake>")
    assert await bot.end() == "not-authorized"
    assert not site.places(1)


async def test_a_stanza_before_the_handshake(site):
    bot = await site.stranger().open()
    bot.send(f"<message from='{BOT}' to='anna@{DOMAIN}'/>")
    assert await bot.end() == "not-authorized"


async def test_an_upper_case_handshake_is_one(site):
    bot = await site.stranger().open()
    proof = hashlib.sha1((bot.header["id"] + SECRET).encode()).hexdigest().upper()
    bot.send(f"<handshake>{proof}</handshake>")
    await bot.expect("handshake")


@pytest.mark.parametrize(
    ("facts", "error"),
    [
        ({"to": "other.nestbox.test"}, "host-unknown"),
        ({"to": DOMAIN}, "host-unknown"),
        ({"to": "x" * 300}, "host-unknown"),
        ({"ns": "jabber:client"}, "invalid-namespace"),
        ({"ns": "jabber:server"}, "invalid-namespace"),
    ],
)
async def test_a_header_that_is_refused(site, facts, error):
    bot = await site.stranger().open(**facts)
    assert await bot.end() == error


@pytest.mark.parametrize("worker", [1, 2])
async def test_a_second_connection_is_a_conflict(site, worker):
    first = await site.bot(worker=1)
    second = await site.stranger(worker=worker).come()
    assert await second.end() == "conflict"
    anna = await site.world.client("anna")
    await anna.send(f"<message to='{BOT}'><body>still there?</body></message>")
    await first.expect("message")


async def test_it_may_come_back_on_another_worker(site):
    await (await site.bot(worker=1)).leave()
    await site.world.settle()
    bot = await site.bot(worker=2)
    anna = await site.world.client("anna")
    await anna.send(f"<message to='{BOT}'><body>hi</body></message>")
    await bot.expect("message")


@pytest.mark.parametrize(
    ("xml", "error"),
    [
        (f"<message from='anna@{DOMAIN}' to='anna@{DOMAIN}'/>", "invalid-from"),
        (f"<message from='{DOMAIN}' to='anna@{DOMAIN}'/>", "invalid-from"),
        (f"<message from='irc.nestbox.test' to='anna@{DOMAIN}'/>", "invalid-from"),
        (f"<message from='x.{BOT}' to='anna@{DOMAIN}'/>", "invalid-from"),
        ("<message from='@' to='anna@nestbox.test'/>", "invalid-from"),
        (f"<message to='anna@{DOMAIN}'/>", "invalid-from"),
        (f"<message from='{BOT}'/>", "improper-addressing"),
        ("<other/>", "unsupported-stanza-type"),
        ("<message xmlns='jabber:server'/>", "unsupported-stanza-type"),
        ("<message", "not-well-formed"),
        ("<!-- -->", "restricted-xml"),
    ],
)
async def test_what_a_component_may_not_send(site, xml, error):
    bot = await site.bot()
    bot.send(xml + "</stream:stream>" if xml == "<message" else xml)
    assert await bot.end() == error
    await site.world.settle()
    assert not site.places(1) and not site.places(2)


async def test_it_ends_its_stream(site):
    bot = await site.bot()
    bot.send("</stream:stream>")
    assert await bot.end() is None
    await site.world.settle()
    assert not site.places(2)


# messages


@pytest.mark.parametrize("worker", [1, 2])
async def test_an_echo_bot_answers_people_on_every_worker(site, worker):
    bot = await site.bot(worker=1)
    anna = await site.world.client("anna", worker=worker)
    await anna.send(f"<message to='echo@{BOT}/x' type='chat' id='m'><body>a &amp; b</body><x xmlns='urn:x'/></message>")
    heard = await bot.expect("message", from_=anna.jid, to=f"echo@{BOT}/x")
    assert heard.findtext(f"{NS}body") == "a & b" and heard.find("{urn:x}x") is not None
    bot.send(f"<message from='echo@{BOT}/x' to='{anna.jid}' type='chat'><body>echo</body></message>")
    said = await anna.expect("message", from_=f"echo@{BOT}/x")
    assert said.element.findtext("{jabber:client}body") == "echo"


async def test_a_message_to_somebody_who_is_away_waits_and_is_archived(site):
    bot = await site.bot(worker=1)
    await site.world.user("anna")
    bot.send(f"<message from='{BOT}' to='anna@{DOMAIN}' type='chat'><body>news</body></message>")
    bot.send(f"<iq from='{BOT}' to='{DOMAIN}' type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>")
    await bot.expect("iq", type="result")
    anna = await site.world.client("anna", worker=2, presence=None)
    await anna.send("<presence/>")
    assert (await anna.expect("message", from_=BOT)).find("{urn:xmpp:delay}delay") is not None
    await anna.iq("set", "<query xmlns='urn:xmpp:mam:2'/>")
    assert any("news" in str(m.encode()) for m in await anna.drain())


async def test_what_people_write_to_a_bot_is_in_their_history_and_on_their_other_devices(site):
    bot = await site.bot(worker=2)
    anna, desk = await site.world.client("anna"), await site.world.client("anna", "desk", worker=2)
    await desk.iq("set", "<enable xmlns='urn:xmpp:carbons:2'/>")
    await site.world.settle()
    await anna.send(f"<message to='{BOT}' type='chat'><body>weather?</body></message>")
    await bot.expect("message")
    await desk.expect("message", tag="{urn:xmpp:carbons:2}sent")
    await anna.iq("set", "<query xmlns='urn:xmpp:mam:2'/>")
    assert any(b"weather?" in m.encode() for m in await anna.drain())


async def test_errors_come_back_to_the_component(site):
    bot = await site.bot()
    bot.send(f"<message from='{BOT}' to='nobody@{DOMAIN}' id='n'><body>x</body></message>")
    error = await bot.expect("message", type="error", id="n")
    assert error.find(f"{NS}error")[0].tag.endswith("}service-unavailable")
    bot.send(f"<message from='{BOT}' to='@{DOMAIN}' id='m'><body>x</body></message>")
    error = await bot.expect("message", type="error", id="m")
    assert error.find(f"{NS}error")[0].tag.endswith("}jid-malformed")
    bot.send(f"<message from='{BOT}' to='x@elsewhere.test' id='e'><body>x</body></message>")
    error = await bot.expect("message", type="error", id="e")
    assert error.find(f"{NS}error")[0].tag.endswith("}remote-server-not-found")


async def test_a_blocked_component_is_not_heard(site):
    bot = await site.bot()
    anna = await site.world.client("anna")
    await anna.iq("set", f"<block xmlns='urn:xmpp:blocking'><item jid='{BOT}'/></block>")
    bot.send(f"<message from='spam@{BOT}' to='{anna.bare}' type='chat' id='s'><body>x</body></message>")
    await bot.expect("message", type="error", id="s")
    await anna.nothing("message")


@pytest.mark.parametrize("worker", [1, 2])
async def test_a_component_that_is_away(site, worker):
    anna = await site.world.client("anna", worker=worker)
    await anna.send(f"<message to='{BOT}' id='m'><body>x</body></message>")
    assert condition(await anna.expect("message", type="error", from_=BOT)) == "remote-server-timeout"
    assert condition(await anna.iq("get", "<ping xmlns='urn:xmpp:ping'/>", BOT)) == "remote-server-timeout"
    await anna.send(f"<presence to='{BOT}'/>")
    assert condition(await anna.expect("presence", type="error", from_=BOT)) == "remote-server-timeout"


async def test_components_talk_to_each_other(site):
    one, other = await site.bot(), await site.bot("irc.nestbox.test", worker=2)
    one.send(f"<message from='a@{BOT}' to='b@irc.nestbox.test'><body>x</body></message>")
    await other.expect("message", from_=f"a@{BOT}", to="b@irc.nestbox.test")
    other.send(f"<presence from='b@irc.nestbox.test' to='a@{BOT}'/>")
    await one.expect("presence", from_="b@irc.nestbox.test")


# iqs


@pytest.mark.parametrize("worker", [1, 2])
async def test_iqs_go_both_ways(site, worker):
    bot = await site.bot(worker=1)
    anna = await site.world.client("anna", worker=worker)
    asking = asyncio.create_task(anna.iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", BOT))
    asked = await bot.expect("iq", from_=anna.jid)
    bot.send(
        f"<iq from='{BOT}' to='{anna.jid}' id='{asked.get('id')}' type='result'>"
        "<query xmlns='http://jabber.org/protocol/disco#info'><identity category='client' type='bot'/></query></iq>"
    )
    assert (await asking).payload[0].get("type") == "bot"
    bot.send(f"<iq from='{BOT}' to='{anna.jid}' type='get' id='v'><query xmlns='jabber:iq:version'/></iq>")
    await anna.expect("iq", id="v", from_=BOT)
    await anna.send(f"<iq to='{BOT}' type='result' id='v'/>")
    await bot.expect("iq", type="result", id="v")


async def test_the_server_lists_its_components_and_answers_them(site):
    anna = await site.world.client("anna")
    items = await anna.iq("get", "<query xmlns='http://jabber.org/protocol/disco#items'/>", DOMAIN)
    assert {BOT, "irc.nestbox.test"} <= {item.get("jid") for item in items.payload}
    bot = await site.bot(worker=2)
    query = "<query xmlns='http://jabber.org/protocol/disco#info'/>"
    bot.send(f"<iq from='{BOT}' to='{DOMAIN}' type='get' id='d'>{query}</iq>")
    info = await bot.expect("iq", type="result", id="d")
    assert info.find(".//{http://jabber.org/protocol/disco#info}identity").get("category") == "server"
    bot.send(f"<iq from='{BOT}' to='nobody@{DOMAIN}' type='get' id='n'>{query}</iq>")
    await bot.expect("iq", type="error", id="n")


# presence


async def test_presence_and_probes(site):
    bot = await site.bot(worker=1)
    anna = await site.world.client("anna", worker=2)
    await anna.send(f"<presence to='gate@{BOT}' type='subscribe'/>")
    await bot.expect("presence", type="subscribe", from_=anna.bare, to=f"gate@{BOT}")
    bot.send(f"<presence from='gate@{BOT}' to='{anna.bare}' type='subscribed'/>")
    bot.send(f"<presence from='gate@{BOT}' to='{anna.bare}' type='subscribe'/>")
    await anna.expect("presence", type="subscribe", from_=f"gate@{BOT}")
    await anna.send(f"<presence to='gate@{BOT}' type='subscribed'/>")
    await bot.expect("presence", type="subscribed")
    await bot.expect("presence", from_=anna.jid)
    bot.send(f"<presence from='gate@{BOT}/1' to='{anna.bare}'><status>ready</status></presence>")
    await anna.expect("presence", from_=f"gate@{BOT}/1", type=None)
    await anna.send("<presence><show>away</show></presence>")
    assert (await bot.expect("presence", from_=anna.jid)).findtext(f"{NS}show") == "away"
    bot.send(f"<presence from='gate@{BOT}' to='{anna.bare}' type='probe'/>")
    assert (await bot.expect("presence", from_=anna.jid)).findtext(f"{NS}show") == "away"
    desk = await site.world.client("anna", "desk", worker=1)
    await bot.expect("presence", type="probe", from_=desk.jid, to=f"gate@{BOT}")
    await bot.expect("presence", from_=desk.jid)
    for client in (anna, desk):
        await client.leave()
        await bot.expect("presence", type="unavailable", from_=client.jid)
    bot.send(f"<presence from='gate@{BOT}' to='{anna.bare}' type='probe'/>")
    await bot.expect("presence", type="unavailable", from_=anna.bare)


async def test_a_probe_of_a_stranger(site):
    bot = await site.bot()
    anna = await site.world.client("anna")
    bot.send(f"<presence from='x@{BOT}' to='{anna.bare}' type='probe'/>")
    await bot.expect("presence", type="unsubscribed", from_=anna.bare, to=f"x@{BOT}")
    assert not bot.stanzas


async def test_presence_while_the_component_is_away_disturbs_nobody(site):
    bot = await site.bot()
    anna = await site.world.client("anna")
    await anna.iq("get", "<query xmlns='jabber:iq:roster'/>")
    await anna.send(f"<presence to='gate@{BOT}' type='subscribe'/>")
    bot.send(f"<presence from='gate@{BOT}' to='{anna.bare}' type='subscribed'/>")
    await anna.expect("presence", type="subscribed")
    await anna.send(f"<presence to='gate@{BOT}'/>")
    await bot.leave()
    await anna.drain()
    await anna.send("<presence><show>dnd</show></presence>")
    assert [p.type for p in await anna.drain() if p.from_ != anna.jid] == []
    await anna.leave()


# rooms

TEA = f"tea@rooms.{DOMAIN}"
MUC = "<x xmlns='http://jabber.org/protocol/muc'/>"


async def tea(site, worker=1):
    """Somebody in a new room."""
    anna = await site.world.client("anna", worker=worker)
    await anna.send(f"<presence to='{TEA}/anna'>{MUC}</presence>")
    form = "<query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'/></query>"
    assert (await anna.iq("set", form, TEA)).type == "result"
    await anna.drain()
    return anna


async def enter(bot, nick="robo"):
    bot.send(f"<presence from='me@{BOT}/x' to='{TEA}/{nick}'>{MUC}</presence>")
    itself = await bot.expect("presence", from_=f"{TEA}/{nick}", to=f"me@{BOT}/x")
    assert "110" in {status.get("code") for status in itself.iter("{http://jabber.org/protocol/muc#user}status")}
    await bot.until(lambda: any(stanza.find(f"{NS}subject") is not None for stanza in bot.stanzas))
    await bot.site.world.settle()
    bot.stanzas.clear()


@pytest.mark.parametrize("worker", [1, 2])
async def test_a_bot_is_in_a_room(site, worker):
    anna = await tea(site, worker=1)
    bot = await site.bot(worker=worker)
    await anna.send(
        f"<message to='{TEA}'><x xmlns='http://jabber.org/protocol/muc#user'><invite to='me@{BOT}'/></x></message>"
    )
    await bot.expect("message", from_=TEA)
    await enter(bot)
    await anna.expect("presence", from_=f"{TEA}/robo")
    for server in site.world.servers.values():
        await server.registry.reload()
    await site.world.settle()
    await anna.send(f"<message to='{TEA}' type='groupchat'><body>hi robo</body></message>")
    heard = await bot.expect("message", from_=f"{TEA}/anna", type="groupchat")
    assert heard.findtext(f"{NS}body") == "hi robo"
    bot.send(f"<message from='me@{BOT}/x' to='{TEA}' type='groupchat'><body>hi anna</body></message>")
    said = await anna.expect("message", from_=f"{TEA}/robo", type="groupchat")
    assert said.element.findtext("{jabber:client}body") == "hi anna"
    await anna.send(f"<message to='{TEA}/robo' type='chat'><body>psst</body></message>")
    await bot.expect("message", from_=f"{TEA}/anna", type="chat")
    bot.send(f"<iq from='me@{BOT}/x' to='{TEA}' type='set' id='mam'><query xmlns='urn:xmpp:mam:2'/></iq>")
    await bot.expect("iq", id="mam", type="result")
    assert any(stanza.find("{urn:xmpp:mam:2}result") is not None for stanza in bot.stanzas)
    bot.send(f"<presence from='me@{BOT}/x' to='{TEA}/robo' type='unavailable'/>")
    await anna.expect("presence", from_=f"{TEA}/robo", type="unavailable")


async def test_a_room_notices_that_a_bot_is_gone(site):
    anna = await tea(site)
    bot = await site.bot(worker=2)
    await enter(bot)
    await bot.leave()
    await site.world.settle()
    await anna.drain()
    await anna.send(f"<message to='{TEA}' type='groupchat'><body>robo?</body></message>")
    gone = await anna.expect("presence", from_=f"{TEA}/robo", type="unavailable")
    assert b'code="333"' in gone.encode()


# workers come and go


async def test_a_killed_worker_takes_its_components_with_it(site):
    await site.bot(worker=1)
    anna = await site.world.client("anna", worker=2)
    lost = site.world.servers[1]
    await lost.bus.close()
    await anna.send(f"<iq type='get' id='p' to='{BOT}'><ping xmlns='urn:xmpp:ping'/></iq>")  # to nobody
    await site.world.servers[2].registry.worker_lost(1)
    await site.world.settle()
    assert condition(await anna.iq("get", "<ping xmlns='urn:xmpp:ping'/>", BOT)) == "remote-server-timeout"
    assert not site.world.hub.hashes[module.KEY]
    bot = await site.bot(worker=2)
    await anna.send(f"<message to='{BOT}'><body>x</body></message>")
    await bot.expect("message")


async def test_what_a_dead_worker_did_not_take_comes_back(site):
    await site.bot(worker=1)
    anna = await site.world.client("anna", worker=2)
    registry = site.world.servers[2].registry
    sent = []
    registry._bus.send = lambda worker, payload: sent.append((worker, payload))
    await anna.send(f"<message to='{BOT}' id='m'><body>x</body></message>")
    [(worker, payload)] = sent
    await site.world.servers[2].router.undelivered(worker, payload)
    assert condition(await anna.expect("message", type="error", id="m")) == "remote-server-timeout"


async def test_what_comes_too_late_at_a_worker_follows_the_component(site):
    first = await site.bot(worker=1)
    anna = await site.world.client("anna", worker=2)
    old = dict(site.places(2))
    await first.leave()
    await site.world.settle()
    site.world.servers[2].components._places = old  # has not heard that it left
    site.world.servers[1].components._places = dict(old)
    await anna.send(f"<message to='{BOT}' id='m'><body>x</body></message>")
    assert condition(await anna.expect("message", type="error", id="m")) == "remote-server-timeout"
    bot = await site.bot(worker=2)
    site.world.servers[1].components._places = dict(old)
    ben = await site.world.client("ben", worker=1)
    await ben.send(f"<message to='{BOT}'><body>x</body></message>")
    await bot.expect("message", from_=ben.jid)


async def test_a_restarted_worker_knows_where_components_are(site):
    bot = await site.bot(worker=1)
    await site.world.servers[2].stop()
    await site.world.servers[2].bus.close()
    await site.world.servers[2].store.close()
    await site.world.start_worker(2)
    await site.world.settle()
    anna = await site.world.client("anna", worker=2)
    await anna.send(f"<message to='{BOT}'><body>x</body></message>")
    await bot.expect("message")


@pytest.mark.parametrize("killed", [False, True])
async def test_its_place_is_taken_back_from_a_worker_that_has_it_no_more(site, monkeypatch, killed):
    site.world.hub.hashes[module.KEY] = {BOT: module._encode(module.Place(BOT, 2, 7))}
    server = site.world.servers[1]
    if killed:  # and nobody has noticed yet
        await site.world.servers[2].bus.close()
        monkeypatch.setattr(server.bus, "workers", lambda: {1, 2})
        send = server.bus.send
        lost = []
        monkeypatch.setattr(server.bus, "send", lambda worker, payload: lost.append((worker, payload)))
        coming = asyncio.create_task(site.bot(worker=1))
        async with asyncio.timeout(PATIENCE):
            while not lost:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        monkeypatch.setattr(server.bus, "send", send)
        await server.router.undelivered(*lost[0])
        await coming
    else:
        await site.bot(worker=1)
    assert site.places(1)[BOT].worker == 1


async def test_a_worker_that_does_not_say_is_believed(site, monkeypatch):
    monkeypatch.setattr(module, "ASK_SECONDS", 0.05)
    await site.bot(worker=2)
    monkeypatch.setattr(site.world.servers[1].bus, "send", lambda worker, payload: None)
    assert await (await site.stranger().come()).end() == "conflict"


async def test_when_the_bus_forgot_all_the_places_are_told_again(site):
    await site.bot(worker=1)
    site.world.hub.hashes.pop(module.KEY)
    site.places(2).clear()
    for server in site.world.servers.values():
        await server.registry.reload()
    await site.world.settle()
    assert set(site.places(2)) == {BOT} and set(site.world.hub.hashes[module.KEY]) == {BOT}


async def test_of_two_that_were_let_in_the_later_stays(site):
    first = await site.bot(worker=1)
    site.world.hub.hashes.pop(module.KEY)
    await site.bot(worker=2)
    assert await first.end() == "conflict"


async def test_a_worker_that_stops_says_so(site):
    bot = await site.bot(worker=1)
    await site.world.servers[1].stop()
    assert await bot.end() == "system-shutdown"
    assert not site.places(2)
    assert await (await site.stranger().come()).end() == "system-shutdown"


# limits


async def test_so_many_connections_only(site):
    site.world.config.limits.component_connections = 1
    await site.bot()
    before = site.world.servers[1].counts.limits_hit
    assert await (await site.stranger().open()).end() == "resource-constraint"
    assert site.world.servers[1].counts.limits_hit == before + 1


async def test_no_handshake(site, monkeypatch):
    monkeypatch.setattr(site.world.config.limits, "login_seconds", 0.05)
    assert await (await site.stranger().open()).end() == "connection-timeout"


async def test_little_is_read_before_the_handshake_and_much_after(site):
    bot = await site.stranger().open()
    bot.send(f"<handshake>{'0' * 20_000}</handshake>")
    assert await bot.end() == "policy-violation"
    bot = await site.bot()
    anna = await site.world.client("anna")
    bot.send(f"<message from='{BOT}' to='{anna.jid}'><body>{'x' * 200_000}</body></message>")
    await anna.expect("message")
    bot.send(f"<message from='{BOT}' to='{anna.jid}'><body>{'x' * 300_000}</body></message>")
    assert await bot.end() == "policy-violation"


async def test_a_component_that_does_not_read_is_cut(site):
    bot = await site.bot()
    bot.reader._transport.pause_reading()
    anna = await site.world.client("anna")
    server = site.world.servers[1]
    async with asyncio.timeout(PATIENCE):
        while server.components.here:
            for _ in range(20):
                await anna.send(f"<message to='{BOT}' type='headline'><body>{'x' * 200_000}</body></message>")
            await asyncio.sleep(0)
    bot.reader._transport.abort()


# who may come


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:5347", ":5347"])
async def test_only_this_machine_may_connect(site, address):
    site.world.config.listen.component = address
    with pytest.raises(ValueError, match="may only come from this machine"):
        await listen_for_components(site.world.servers[1], 1)


async def test_without_components_nobody_listens(config, tmp_path):
    config.components = []
    server = Server.__new__(Server)
    server.config, server.components = config, None
    assert await listen_for_components(server, 1) is None


@pytest.mark.parametrize(
    "components",
    [
        "[{host: nestbox.test, secret: 0123456789abcdef}]",
        "[{host: rooms.nestbox.test, secret: 0123456789abcdef}]",
        "[{host: a.b, secret: 0123456789abcdef}, {host: A.B, secret: 0123456789abcdef}]",
        "[{host: a.b, secret: short}]",
        "[{host: a.b, secret: '0123456789abcdef&'}]",
        "[{host: 'a b', secret: 0123456789abcdef}]",
        "[{host: a.b}]",
    ],
)
def test_a_configuration_that_cannot_be(tmp_path, components):
    path = tmp_path / "nestbox.yml"
    path.write_text(f"domain: nestbox.test\ncomponents: {components}\n")
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        load(path)

"""Two workers that take components over real sockets, with a real core and store, and a bot."""

import asyncio
import hashlib
from xml.etree.ElementTree import XMLPullParser

import pytest

from nestbox.config import Component, Config, Database, Limits, Listen
from nestbox.net.component import listen_for_components
from nestbox.store import open_store
from tests.modules.harness import World

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

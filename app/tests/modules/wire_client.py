"""A client that speaks XMPP in bytes to a real `Connection` without a socket, with XEP-0198 as a good client does it.

alice = await WireClient.login(world, "alice", worker=1)     # session, stream management, presence
alice.send("<message .../>"); await alice.answered()         # queued until acknowledged; waits until all was
alice.vanish(); await alice.resume(worker=2)                 # sends again what the server has not handled
"""

from __future__ import annotations

import asyncio
import base64
from collections import deque
from collections.abc import Callable
from xml.etree.ElementTree import Element, XMLPullParser

from harness import DOMAIN, PATIENCE, World

from nestbox.net.connection import Connection
from nestbox.net.connections import Connections
from nestbox.protocol.features import StreamOptions

SM = "{urn:xmpp:sm:3}"
STANZAS = ("{jabber:client}message", "{jabber:client}presence", "{jabber:client}iq")
HEADER = (
    f"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='{DOMAIN}' version='1.0'>"
).encode()


class Pipe:
    """The transport of one connection: what the server writes is parsed for the client."""

    kind = "tcp"
    secure = True
    peer = "198.51.100.7"
    unsent = ()

    def __init__(self, client: WireClient) -> None:
        self._client = client
        self._parser: XMLPullParser | None = None
        self.connection: Connection = None  # type: ignore[assignment]
        self.closed = False
        self.reading = True
        self._held: list[bytes] = []

    def write(self, data: bytes) -> None:
        if self.closed:
            return
        if b"<stream:stream" in data:
            self._parser = XMLPullParser(("start", "end"))
            self._depth = 0
        self._parser.feed(data)
        for event, element in self._parser.read_events():
            self._depth += 1 if event == "start" else -1
            if event == "end" and self._depth == 1:
                self._client.received_element(self, element)

    def lose_writes(self) -> None:
        """What the server writes from now on gets lost on the way."""
        self.write = lambda data: None

    def close(self) -> None:
        """The server ends the connection; the client notices."""
        self.lose()

    def abort(self, exc: Exception | None = None) -> None:
        self.lose()

    def lose(self) -> None:
        if not self.closed:
            self.closed = True
            # The connection may be ended while it is being made.
            asyncio.get_running_loop().call_soon(lambda: self.connection.connection_lost(None))
            self._client.news.set()

    def feed(self, data: bytes) -> None:
        if not self.closed:
            if self.reading and not self._held:
                self.connection.data_received(data)
            else:
                self._held.append(data)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True
        asyncio.get_running_loop().call_soon(self._feed_held)

    def _feed_held(self) -> None:
        while self._held and self.reading and not self.closed:
            self.connection.data_received(self._held.pop(0))


class WireClient:
    """``stanzas`` are all it was given, ``resumed`` the last ``h`` of a resumption, ``acks`` those of ``<a/>``."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.pipe: Pipe = None  # type: ignore[assignment]
        self.stanzas: list[Element] = []
        self.others: deque[Element] = deque()
        self.acks: list[int] = []
        self.handled = 0
        self.unacked: deque[bytes] = deque()
        self.acked = 0
        self.sm_id = ""
        self.counting = False
        self.silent = False  # does not answer <r/>
        self.questions = 0  # how often it was asked
        self.news = asyncio.Event()

    @classmethod
    async def login(cls, world: World, name: str, *, worker: int = 1, resource: str = "wire") -> WireClient:
        """A client with a session, stream management and presence; the account is made if need be."""
        client = cls(world, name)
        accounts = next(iter(world.servers.values())).store.accounts
        await world.user(name)
        await accounts.set_password(name, "password")
        await client.connect(worker)
        await client.bind(resource)
        return client

    @property
    def jid(self) -> str:
        return f"{self.name}@{DOMAIN}/wire"

    @property
    def bodies(self) -> list[str]:
        """The bodies of all messages received, in order; not of errors."""
        return [
            body.text
            for stanza in self.stanzas
            if stanza.tag == STANZAS[0] and stanza.get("type") != "error"
            for body in stanza.iterfind("{jabber:client}body")
        ]

    async def connect(self, worker: int) -> None:
        """Open a stream and authenticate. Raises ConnectionError when the worker takes nobody any more."""
        server = self.world.servers[worker]
        options = StreamOptions(domain=DOMAIN, plain_allowed=True, features_after_auth=list(server.stream_features))
        self.pipe = Pipe(self)
        self.others.clear()
        self.pipe.connection = Connections(server, options, None).accept(self.pipe)
        if self.pipe.closed:
            raise ConnectionError
        self.pipe.feed(HEADER)
        await self.expect("features")
        await self.authenticate()

    async def authenticate(self) -> None:
        """Log in, and open the stream after that."""
        secret = base64.b64encode(f"\0{self.name}\0password".encode()).decode()
        self.pipe.feed(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>".encode())
        await self.expect("success")
        self.pipe.feed(HEADER)
        await self.expect("features")

    async def bind(self, resource: str) -> None:
        """Bind, enable stream management, send presence."""
        bind = f"<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource></bind>"
        self.pipe.feed(f"<iq type='set' id='bind'>{bind}</iq>".encode())
        await self.expect("iq")
        self.pipe.feed(b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
        self.sm_id = (await self.expect("enabled")).get("id")
        self.counting = True
        self.handled = self.acked = 0
        self.unacked.clear()
        self.send("<presence/>")
        await self.answered()

    # what comes

    def received_element(self, pipe: Pipe, element: Element) -> None:
        if pipe is not self.pipe:
            return  # of a connection it has given up
        if element.tag in STANZAS and self.counting:
            self.handled += 1
            self.stanzas.append(element)
        elif element.tag == SM + "r":
            self.questions += 1
            if not self.silent:
                self.pipe.feed(b"<a xmlns='urn:xmpp:sm:3' h='%d'/>" % self.handled)
        elif element.tag == SM + "a":
            self.acks.append(int(element.get("h")))
            self._acknowledged(int(element.get("h")))
        else:
            self.others.append(element)
        self.news.set()

    def _acknowledged(self, h: int) -> None:
        assert self.acked <= h <= self.acked + len(self.unacked), "the server acknowledges what it was not sent"
        for _ in range(h - self.acked):
            self.unacked.popleft()
        self.acked = h

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for something to be so; the server tells by sending or closing."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.news.clear()
                await self.news.wait()

    async def expect(self, name: str) -> Element:
        """Wait for an element that is no counted stanza, by its local name."""
        await self.until(lambda: any(e.tag.endswith("}" + name) for e in self.others))
        found = next(e for e in self.others if e.tag.endswith("}" + name))
        self.others.remove(found)
        return found

    # what goes

    def send(self, xml: str) -> None:
        """Send a stanza; it is remembered until it is acknowledged."""
        self.unacked.append(xml.encode())
        self.pipe.feed(xml.encode())

    def say(self, to: str, body: str) -> None:
        self.send(f"<message to='{to}' type='chat'><body>{body}</body></message>")

    def ask(self) -> None:
        self.pipe.feed(b"<r xmlns='urn:xmpp:sm:3'/>")

    async def answered(self) -> None:
        """Ask what was handled and wait until that is all."""
        self.ask()
        await self.until(lambda: not self.unacked)

    def acknowledge(self) -> None:
        self.pipe.feed(b"<a xmlns='urn:xmpp:sm:3' h='%d'/>" % self.handled)

    # coming and going

    def vanish(self) -> None:
        """Lose the connection without a word."""
        self.pipe.lose()

    async def leave(self) -> None:
        """Close the stream."""
        self.pipe.feed(b"</stream:stream>")
        await self.until(lambda: self.pipe.closed)
        self.counting = False

    async def resume(self, worker: int) -> bool:
        """Connect anew and resume; False when the server has no such session any more."""
        self.counting = False
        await self.connect(worker)
        self.counting = True  # what comes right after <resumed/> counts
        self.pipe.feed(f"<resume xmlns='urn:xmpp:sm:3' previd='{self.sm_id}' h='{self.handled}'/>".encode())
        await self.until(lambda: self.others or self.pipe.closed)
        if not self.others or self.others[0].tag != SM + "resumed":
            self.counting = False
            return False
        self._acknowledged(int((await self.expect("resumed")).get("h")))
        for data in self.unacked:
            self.pipe.feed(data)
        return True

    def error(self) -> str | None:
        """The condition of the stream error it was sent, None when there was none."""
        for element in self.others:
            if element.tag == "{http://etherx.jabber.org/streams}error":
                return element[0].tag.rpartition("}")[2]
        return None


async def archived(world: World, name: str) -> list[str]:
    """The bodies in an account's archive."""
    await world.settle()
    store = world.servers[1].store
    owner = (await store.accounts.get(name)).id
    page = await store.archive.query(owner, limit=10_000)
    return [row.stanza.partition(b"<body>")[2].partition(b"</body>")[0].decode() for row in page.rows]

"""The clients of the chaos test: each chats with its peer, and comes back as a good client does when it is cut off."""

from __future__ import annotations

import asyncio
import re
from collections import Counter, deque
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, XMLPullParser

from load import Client
from peers import DOMAIN, PASSWORD

__all__ = ["BODY", "SM", "Link", "Person"]

SM = "urn:xmpp:sm:3"
BODY = re.compile(rb"<body>(\w+) (\d+)</body>")
STANZAS = ("{jabber:client}message", "{jabber:client}presence", "{jabber:client}iq")
STANZA_ID = "{urn:xmpp:sid:0}stanza-id"
ROOT = b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
AWAY = (ConnectionError, OSError, TimeoutError, ParseError)


class Link(Client):
    """One connection of a `Person`: once it is online, elements go there."""

    def __init__(self, person: Person, websocket: bool) -> None:
        super().__init__(person.user, DOMAIN, websocket=websocket, proxy=False)
        self.person = person
        self.lost = asyncio.Event()
        self._parser: XMLPullParser | None = None
        self._depth = 0
        self._frames = b""

    def begin(self) -> None:
        """From now on what comes is parsed."""
        self._parser = XMLPullParser(("start", "end"))
        self._parser.feed(ROOT)
        list(self._parser.read_events())
        rest, self._buffer = self._buffer, b""
        self.data_received(rest)

    def data_received(self, data: bytes) -> None:
        """Bytes of the log-in, or of the session."""
        if self._parser is None:
            super().data_received(data)
            return
        self._parser.feed(self._unframed(data) if self.websocket else data)
        for event, element in self._parser.read_events():
            self._depth += 1 if event == "start" else -1
            if event == "end" and self._depth == 0:
                self.person.got(self, element)

    def _unframed(self, data: bytes) -> bytes:
        self._frames += data
        out = b""
        while len(self._frames) > 1:
            length, start = self._frames[1], 2
            if length == 126:
                length, start = int.from_bytes(self._frames[2:4], "big"), 4
            elif length == 127:
                length, start = int.from_bytes(self._frames[2:10], "big"), 10
            if len(self._frames) < start + length:
                break
            if self._frames[0] == 0x81:
                out += self._frames[start : start + length]
            self._frames = self._frames[start + length :]
        return out

    def connection_lost(self, exc: Exception | None) -> None:
        """Somebody was killed."""
        self.lost.set()
        super().connection_lost(exc or ConnectionError("closed"))

    def hang_up(self) -> None:
        """Leave without a word."""
        if self._transport is not None:
            self._transport.abort()


class Person:
    """A user and what it knows: what it sent (``acknowledged`` numbers), and what it was given.

    ``socket`` is HAProxy's, for XMPP or for WebSocket.
    """

    def __init__(self, user: str, peer: str, websocket: bool, socket: Path) -> None:
        self.user, self.peer, self.websocket, self.socket = user, peer, websocket, socket
        self.link: Link | None = None
        self.number = 0
        self.unacked: deque[tuple[int | None, str]] = deque()
        self.acknowledged: set[int] = set()
        self.refused: set[int] = set()  # came back with an error
        self.given: Counter[str] = Counter()  # stanza id -> how often
        self.heard: Counter[int] = (
            Counter()
        )  # number of the peer's message -> how often; in the order of the first time
        self.taken_back = 0  # acknowledgements that were withdrawn
        self.seen = 0  # the server's h
        self.handled = 0  # ours
        self.stream_id = ""
        self.resumed = self.renewed = 0

    async def live(self) -> None:
        """Be online until cancelled."""
        while True:
            link = None
            try:
                async with asyncio.timeout(30):
                    link = await self._connect()
                await link.lost.wait()
            except AWAY:
                await asyncio.sleep(0.2)
            finally:
                self.link = None
                if link is not None:
                    link.hang_up()

    async def _connect(self) -> Link:
        link = Link(self, self.websocket)
        await asyncio.get_running_loop().create_unix_connection(lambda: link, str(self.socket))
        if self.websocket:
            await link.upgrade()
        await link.authenticate(PASSWORD)
        link.open_stream()
        await link.expect(rb"</stream:features>|</features>")
        if self.stream_id and await self._resume(link):
            self.resumed += 1
        else:
            await self._renew(link)
        self.link = link
        link.begin()
        for _, stanza in self.unacked:
            link.send_stanza(stanza)
        link.send(f"<r xmlns='{SM}'/>")
        return link

    async def _resume(self, link: Link) -> bool:
        link.send(f"<resume xmlns='{SM}' previd='{self.stream_id}' h='{self.handled}'/>")
        answer = (await link.expect(rb"<resumed [^>]*>|<failed .*?</failed>"))[0]
        found = re.search(rb"<resumed [^>]*h=['\"](\d+)", answer)
        if found is not None:
            self._acknowledge(int(found[1]))
        return found is not None

    async def _renew(self, link: Link) -> None:
        link.send_stanza(
            "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>c</resource></bind></iq>"
        )
        await link.expect(rb"<jid>.*?</iq>")
        link.send(f"<enable xmlns='{SM}' resume='true'/>")
        self.stream_id = (await link.expect(rb"<enabled [^>]*?id=['\"]([^'\"]*)['\"][^>]*>"))[1].decode()
        self.renewed += 1
        self.seen = self.handled = 0
        self.unacked.appendleft((None, "<presence id='p'/>"))

    def got(self, link: Link, element: Element) -> None:
        """An element of the session."""
        if link is not self.link:
            return
        if element.tag in STANZAS:
            self.handled += 1
            for child in element.iterfind(STANZA_ID):
                self.given[child.get("id", "")] += 1
            sender, _, number = element.findtext("{jabber:client}body", "").partition(" ")
            if element.get("type") == "error" and element.tag == STANZAS[0]:
                self.refused.add(int(element.get("id", "0")))
            elif sender == self.peer:
                self.heard[int(number)] += 1
        elif element.tag == f"{{{SM}}}r":
            link.send(f"<a xmlns='{SM}' h='{self.handled}'/>")
        elif element.tag == f"{{{SM}}}a":
            self._acknowledge(int(element.get("h", "0")))

    def _acknowledge(self, h: int) -> None:
        if h - self.seen > len(self.unacked):
            raise SystemExit(f"chaos: {self.user} sent {self.seen + len(self.unacked)} stanzas, {h} are acknowledged")
        for _ in range(h - self.seen):
            number, _ = self.unacked.popleft()
            if number is not None:
                self.acknowledged.add(number)
        self.taken_back += max(0, self.seen - h)
        self.seen = h

    def say(self) -> None:
        """One message more; it is sent now or when the connection is back."""
        self.number += 1
        body = f"<body>{self.user} {self.number}</body>"
        stanza = f"<message to='{self.peer}@{DOMAIN}' type='chat' id='{self.number}'>{body}</message>"
        self.unacked.append((self.number, stanza))
        if self.link is not None:
            self.link.send_stanza(stanza)
            self.link.send(f"<r xmlns='{SM}'/>")

"""A client's stream in bytes by each of the ways into a server that runs: STARTTLS, TLS at once, WebSocket, BOSH.

stream = await Direct.open(site)       # through HAProxy; the features are in stream.offer
jid = await stream.log_in("anna1")     # SCRAM with channel binding where there is one, then resource binding
stream = await Direct.arrive(site)     # both, with a new account
answer = await stream.iq("get", "<ping xmlns='urn:xmpp:ping'/>", DOMAIN)
await stream.hears_itself()
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import re
import ssl
from typing import Self
from xml.etree.ElementTree import Element, fromstring

from scramp import ScramClient
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.clients.site import DOMAIN, PASSWORD, Site

SECONDS = 15  # that anything may take
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
HEADER = (
    f"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='{DOMAIN}' version='1.0'>"
)


def trusting(site: Site, *protocols: str) -> ssl.SSLContext:
    """A client's TLS context that knows the server's certificate."""
    context = ssl.create_default_context(cafile=site.certificate)
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


class Stream:
    """``offer``: the features, as they were last offered; ``jid``: the full JID, once it is logged in."""

    binding: bytes | None = None  # the data of tls-server-end-point
    offer = ""
    jid = ""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._numbers = itertools.count(1)
        self._text = ""

    @classmethod
    async def open(cls, site: Site) -> Self:
        """Connect and open the stream."""
        stream = cls(site)
        await stream.connect()
        return stream

    @classmethod
    async def arrive(cls, site: Site) -> Self:
        """Somebody new, logged in."""
        stream = await cls.open(site)
        await stream.log_in((await site.accounts())[0])
        return stream

    async def connect(self) -> None:
        """All that is done once; `begin` is the end of it."""
        await self.begin()

    async def begin(self) -> None:
        """Open the stream, at first and after authentication."""
        raise NotImplementedError

    def send(self, xml: str) -> None:
        raise NotImplementedError

    async def receive(self) -> str:
        """Some more of what the server says; '' at the end."""
        raise NotImplementedError

    async def until(self, pattern: str) -> str:
        """What comes up to the end of a match; the rest waits."""
        async with asyncio.timeout(SECONDS):
            while not (found := re.search(pattern, self._text)):
                data = await self.receive()
                assert data, f"closed after {self._text}"
                self._text += data
        text, self._text = self._text[: found.end()], self._text[found.end() :]
        return text

    async def log_in(self, name: str, password: str = PASSWORD) -> str:
        """Authenticate and bind (RFC 6120, sections 6 and 7); the full JID. Checks the server's signature."""
        mechanism = "SCRAM-SHA-256-PLUS" if self.binding else "SCRAM-SHA-256"
        assert f">{mechanism}<" in self.offer, self.offer
        bound = ("tls-server-end-point", self.binding) if self.binding else None
        client = ScramClient([mechanism], name, password, channel_binding=bound)
        self.send(f"<auth xmlns='{SASL}' mechanism='{mechanism}'>{_b64(client.get_client_first())}</auth>")
        client.set_server_first(_data(await self.until("</challenge>")))
        self.send(f"<response xmlns='{SASL}'>{_b64(client.get_client_final())}</response>")
        client.set_server_final(_data(await self.until("</success>")))
        await self.begin()
        answer = await self.iq("set", "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>")
        self.jid = answer.findtext(".//{urn:ietf:params:xml:ns:xmpp-bind}jid")
        assert self.jid.startswith(f"{name}@{DOMAIN}/")
        return self.jid

    async def iq(self, kind: str, payload: str, to: str = "") -> Element:
        """Ask and wait for the answer."""
        number, address = f"q{next(self._numbers)}", f" to='{to}'" if to else ""
        self.send(f"<iq xmlns='jabber:client' type='{kind}' id='{number}'{address}>{payload}</iq>")
        text = await self.until(rf"<iq [^>]*id=.{number}[^>]*(/>|>.*?</iq>)")
        return self._element(text[text.rindex("<iq ") :])

    async def message(self, to: str, body: str) -> None:
        self.send(f"<message xmlns='jabber:client' type='chat' to='{to}'><body>{body}</body></message>")

    async def next_message(self) -> Element:
        text = await self.until("</message>")
        return self._element(text[text.rindex("<message ") :])

    async def hears_itself(self) -> None:
        """A message to its own full JID comes back, from there."""
        await self.message(self.jid, "myself &amp; I")
        message = await self.next_message()
        assert (message.get("from"), message.get("to")) == (self.jid, self.jid)
        assert message.findtext("{jabber:client}body") == "myself & I"

    @staticmethod
    def _element(text: str) -> Element:
        return fromstring(f"<stream xmlns='jabber:client'>{text}</stream>")[0]

    def close(self) -> None:
        """Leave without a word."""


class Tcp(Stream):
    """STARTTLS at worker 1."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def connect(self) -> None:
        await self.connect_in_the_clear()
        self.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
        await self.until("<proceed[^>]*>")
        await self.writer.start_tls(trusting(self.site), server_hostname=DOMAIN)
        await self._encrypted()

    async def connect_in_the_clear(self) -> None:
        """The stream before TLS."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.site[1].port)
        await self.begin()

    async def _encrypted(self) -> None:
        certificate = self.tls.getpeercert(binary_form=True)
        self.binding = hashlib.sha256(certificate).digest()
        await self.begin()

    @property
    def tls(self) -> ssl.SSLObject:
        return self.writer.get_extra_info("ssl_object")

    async def begin(self) -> None:
        self._text = ""
        self.send(HEADER)
        self.offer = await self.until("</stream:features>")

    def send(self, xml: str) -> None:
        self.writer.write(xml.encode())

    async def receive(self) -> str:
        return (await self.reader.read(65536)).decode()

    def close(self) -> None:
        self.writer.transport.abort()


class Direct(Tcp):
    """TLS from the first byte, which HAProxy ends (XEP-0368)."""

    async def connect(self) -> None:
        self.reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", self.site.c2s_tls, ssl=trusting(self.site, "xmpp-client"), server_hostname=DOMAIN
        )
        await self._encrypted()


class WebSocket(Stream):
    """RFC 7395."""

    socket: WebSocketClientConnection

    async def connect(self) -> None:
        request = HTTPRequest(self.site.websocket, ssl_options=trusting(self.site))
        self.socket = await websocket_connect(request, subprotocols=["xmpp"])
        assert self.socket.selected_subprotocol == "xmpp"
        await self.begin()

    async def begin(self) -> None:
        self.send(f"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='{DOMAIN}' version='1.0'/>")
        await self.until("<open [^>]*>")
        self.offer = await self.until("</stream:features>")

    def send(self, xml: str) -> None:
        self.socket.write_message(xml)

    async def receive(self) -> str:
        return await self.socket.read_message() or ""

    def close(self) -> None:
        self.socket.close()


class Bosh(Stream):
    """XEP-0124 and XEP-0206, one request at a time, which says what is to be said and waits for an answer."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._http = AsyncHTTPClient()
        self._rids = itertools.count(1_573_741_820)
        self._facts = f"content='text/xml; charset=utf-8' hold='1' ver='1.6' wait='{SECONDS}' xmpp:version='1.0'"
        self._payload = ""
        self._sid = ""

    async def begin(self) -> None:
        self._facts += f" to='{DOMAIN}' xml:lang='en'" + (" xmpp:restart='true'" if self._sid else "")
        self.offer = await self.until("</stream:features>")

    async def receive(self) -> str:
        names = "xmlns='http://jabber.org/protocol/httpbind' xmlns:xmpp='urn:xmpp:xbosh'"
        body = f"<body {names} rid='{next(self._rids)}' {self._facts}>{self._payload}</body>"
        self._payload = ""
        request = HTTPRequest(
            self.site.bosh, method="POST", body=body, ssl_options=trusting(self.site), request_timeout=2 * SECONDS
        )
        answer = (await self._http.fetch(request)).body.decode()
        start, inner = re.fullmatch("(<body[^>]*?)(?:/>|>(.*)</body>)", answer, re.DOTALL).groups()
        assert "terminate" not in start, answer
        if sid := re.search(" sid=['\"]([^'\"]+)", start):
            self._sid = sid[1]
        self._facts = f"sid='{self._sid}'"
        return inner or " "

    def send(self, xml: str) -> None:
        self._payload += xml


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _data(element: str) -> str:
    return base64.b64decode(re.search(">([^<]+)</", element)[1]).decode()

"""Chat clients for the tests: slixmpp over TCP, and a small one of our own over WebSocket."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Self

import slixmpp
from scramp import ScramClient
from tornado.httpclient import HTTPRequest
from tornado.netutil import DefaultExecutorResolver, OverrideResolver
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from tornado.websocket import websocket_connect

DOMAIN = "nestbox.test"
SECONDS = 20
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
FRAMING = "urn:ietf:params:xml:ns:xmpp-framing"
HTTPBIND = "http://jabber.org/protocol/httpbind"
BIND = "urn:ietf:params:xml:ns:xmpp-bind"


class Tcp(slixmpp.ClientXMPP):
    """slixmpp on port 5222 (STARTTLS) or 5223 (TLS at once), with the appliance's CA as the only one it trusts."""

    def __init__(
        self, user: str, password: str, address: str, ca: Path, port: int = 5222, resource: str = "test"
    ) -> None:
        super().__init__(f"{user}@{DOMAIN}/{resource}", password)
        self.address, self.port = address, port
        self.enable_direct_tls, self.enable_starttls = port == 5223, port == 5222
        self.ca_certs = ca
        for plugin in ("xep_0030", "xep_0045", "xep_0115", "xep_0163", "xep_0199", "xep_0280", "xep_0313"):
            self.register_plugin(plugin)
        self.messages: asyncio.Queue = asyncio.Queue()
        self.presences: asyncio.Queue = asyncio.Queue()
        self.add_event_handler("message", self.messages.put_nowait)
        for event in ("presence_available", "presence_dnd", "presence_unavailable"):
            self.add_event_handler(event, self.presences.put_nowait)

    async def __aenter__(self) -> Self:
        started = self.wait_until("session_start", SECONDS)
        self.connect(self.address, self.port)
        await started
        return self

    async def __aexit__(self, *_) -> None:
        await self.disconnect(wait=1)

    async def text(self, seconds: float = SECONDS) -> tuple[str, str]:
        """The next chat message with a body: who sent it (bare) and what."""
        while True:
            message = await asyncio.wait_for(self.messages.get(), seconds)
            if message["body"]:
                return message["from"].bare, message["body"]

    async def presence_of(self, user: str, kind: str, seconds: float = SECONDS) -> None:
        """Wait for a presence of that kind ('available', 'unavailable', 'dnd' ...) from the user."""
        while True:
            presence = await asyncio.wait_for(self.presences.get(), seconds)
            if presence["from"].bare == f"{user}@{DOMAIN}" and presence["type"] == kind:
                return


class Framed:
    """A client whose transport carries whole stanzas: enough to log in with SCRAM-SHA-256, send and receive."""

    def __init__(self, user: str, password: str, address: str, ca: Path, resource: str) -> None:
        self.user, self.password, self.address, self.resource = user, password, address, resource
        self.context = ssl.create_default_context(cafile=ca)

    async def __aenter__(self) -> Self:
        await self.connect()
        scram = ScramClient(["SCRAM-SHA-256"], self.user, self.password)
        first = base64.b64encode(scram.get_client_first().encode()).decode()
        challenge = await self.ask(f'<auth xmlns="{SASL}" mechanism="SCRAM-SHA-256">{first}</auth>')
        scram.set_server_first(base64.b64decode(challenge.text).decode())
        final = base64.b64encode(scram.get_client_final().encode()).decode()
        success = await self.ask(f'<response xmlns="{SASL}">{final}</response>')
        assert success.tag == f"{{{SASL}}}success", ET.tostring(success)
        scram.set_server_final(base64.b64decode(success.text).decode())
        await self.restart()
        bound = await self.ask(
            f'<iq xmlns="jabber:client" type="set" id="b"><bind xmlns="{BIND}"><resource>{self.resource}</resource></bind></iq>'
        )
        assert bound.get("type") == "result", ET.tostring(bound)
        await self.send('<presence xmlns="jabber:client"/>')
        return self

    async def ask(self, stanza: str) -> ET.Element:
        await self.send(stanza)
        return await self.receive()

    async def say(self, to: str, body: str) -> None:
        await self.send(
            f'<message xmlns="jabber:client" to="{to}" type="chat" id="{body}"><body>{body}</body></message>'
        )

    async def text(self, seconds: float = SECONDS) -> tuple[str, str]:
        """The next chat message with a body: who sent it (bare) and what."""
        while True:
            stanza = await self.receive(seconds)
            body = stanza.findtext("{jabber:client}body")
            if stanza.tag == "{jabber:client}message" and body:
                return stanza.get("from").split("/")[0], body


class WebSocket(Framed):
    """RFC 7395."""

    async def connect(self) -> None:
        request = HTTPRequest(f"wss://{DOMAIN}/xmpp-websocket", ssl_options=self.context)
        resolver = OverrideResolver(DefaultExecutorResolver(), {DOMAIN: self.address})
        self.socket = await websocket_connect(request, subprotocols=["xmpp"], resolver=resolver)
        assert self.socket.selected_subprotocol == "xmpp"
        await self.restart()

    async def __aexit__(self, *_) -> None:
        self.socket.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):  # Tornado looks at the server's close frame when all before it was taken
                while await self.socket.read_message() is not None:
                    pass

    async def restart(self) -> None:
        opened = await self.ask(f'<open xmlns="{FRAMING}" to="{DOMAIN}" version="1.0"/>')
        assert opened.tag == f"{{{FRAMING}}}open", ET.tostring(opened)
        assert (await self.receive()).tag.endswith("}features")

    async def send(self, stanza: str) -> None:
        await self.socket.write_message(stanza)

    async def receive(self, seconds: float = SECONDS) -> ET.Element:
        frame = await asyncio.wait_for(self.socket.read_message(), seconds)
        assert frame is not None, "the server closed the WebSocket"
        return ET.fromstring(frame)


class Bosh(Framed):
    """XEP-0124 and XEP-0206, a request at a time: one that sends, or one that waits for what comes."""

    async def connect(self) -> None:
        self.http = SimpleAsyncHTTPClient(force_instance=True, hostname_mapping={DOMAIN: self.address})
        self.rid, self.sid, self.received = 1_000_000, "", []
        created = await self.request(f'to="{DOMAIN}" ver="1.11" wait="6" hold="1" xmpp:version="1.0"')
        self.sid = created.get("sid")
        assert (await self.receive()).tag.endswith("}features")

    async def __aexit__(self, *_) -> None:
        await self.request('type="terminate"')
        self.http.close()

    async def request(self, attributes: str = "", payload: str = "", seconds: float = SECONDS) -> ET.Element:
        self.rid += 1
        sid = f' sid="{self.sid}"' if self.sid else ""
        body = (
            f'<body xmlns="{HTTPBIND}" xmlns:xmpp="urn:xmpp:xbosh" rid="{self.rid}"{sid} {attributes}>{payload}</body>'
        )
        post = HTTPRequest(
            f"https://{DOMAIN}/http-bind",
            "POST",
            {"Content-Type": "text/xml; charset=utf-8"},
            body,
            ssl_options=self.context,
            request_timeout=seconds,
        )
        answer = ET.fromstring((await self.http.fetch(post)).body)
        assert answer.get("condition") is None, ET.tostring(answer)
        self.received += list(answer)
        return answer

    async def restart(self) -> None:
        await self.request(f'to="{DOMAIN}" xmpp:restart="true"')
        assert (await self.receive()).tag.endswith("}features")

    async def send(self, stanza: str) -> None:
        await self.request(payload=stanza)

    async def receive(self, seconds: float = SECONDS) -> ET.Element:
        while not self.received:
            await self.request(seconds=seconds)
        return self.received.pop(0)

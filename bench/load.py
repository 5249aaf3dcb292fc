"""A small XMPP client for many sessions in one process: just enough to log in, be present and chat.

It speaks to any server: TCP, TLS or WebSocket, or a Unix socket with the PROXY header that HAProxy would send.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import random
import re
import secrets
import ssl
import time
from collections.abc import Callable, Sequence
from functools import lru_cache

from peers import cpu_seconds

__all__ = ["SM", "Client", "cpu_seconds", "log_in"]

# PROXY protocol v2, command PROXY, TCP over IPv4, 127.0.0.1:1 -> 127.0.0.1:5223.
PROXY = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01\x00\x01\x14\x67"
_SENT = re.compile(rb"<body>(\d+) ")
SM = "urn:xmpp:sm:3"
_HANDLED = re.compile(rb"</message>|<r xmlns='urn:xmpp:sm:3'/>")


class Client(asyncio.Protocol):
    """One session.

    ``on_message(sent)`` is called per message with the time, in nanoseconds, that its body carries; ``on_data`` is
    called instead with all that comes.
    """

    def __init__(self, user: str, domain: str, *, websocket: bool, proxy: bool) -> None:
        self.user = user
        self.domain = domain
        self.websocket = websocket
        self.proxy = proxy
        self.on_message: Callable[[int], None] | None = None
        self.on_data: Callable[[bytes], None] | None = None
        self._handled: int | None = None  # messages, with stream management
        self._transport: asyncio.Transport | None = None
        self._buffer = self._rest = b""
        self.gone = False
        self._waiting: tuple[re.Pattern[bytes], asyncio.Future[re.Match[bytes]]] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Send the PROXY header where one is expected."""
        self._transport = transport
        if self.proxy:
            transport.write(PROXY)

    def data_received(self, data: bytes) -> None:
        """Count messages, or look for what the log-in waits for."""
        if self.on_data is not None:
            self.on_data(data)
            return
        if self._handled is not None:
            self._answer(data)
        if self.on_message is not None:
            data = self._rest + data
            for sent in _SENT.findall(data):
                self.on_message(int(sent))
            cut = data.rfind(b"<", -40)  # a body's beginning, whose rest has not come
            self._rest = data[cut:] if cut >= 0 and _SENT.match(data, cut) is None else b""
            return
        self._buffer += data
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """A lost session spoils a measurement: say so at once."""
        self.gone = True
        if self._waiting is not None and not self._waiting[1].done():
            self._waiting[1].set_exception(
                ConnectionError(f"{self.user}: the server closed the connection: {self._buffer!r}")
            )

    async def manage(self) -> None:
        """From now on answer how many messages have come, when the server asks (XEP-0198)."""
        self.send(f"<enable xmlns='{SM}' resume='true'/>")
        await self.expect(rb"<enabled [^>]*>")
        self._handled, self._unread = 0, b""

    def _answer(self, data: bytes) -> None:
        data, end = self._unread + data, 0
        for found in _HANDLED.finditer(data):
            end = found.end()
            if found[0] == b"</message>":
                self._handled += 1
            else:
                self.send(f"<a xmlns='{SM}' h='{self._handled}'/>")
        self._unread = data[max(end, len(data) - 30) :]

    def _look(self) -> None:
        if self._waiting is None:
            return
        pattern, future = self._waiting
        match = pattern.search(self._buffer)
        if match is not None and not future.done():
            self._buffer = self._buffer[match.end() :]
            self._waiting = None
            future.set_result(match)

    async def expect(self, pattern: bytes) -> re.Match[bytes]:
        """Wait for bytes that match. Raises TimeoutError after 60 s, ConnectionError when the server hangs up."""
        future: asyncio.Future[re.Match[bytes]] = asyncio.get_running_loop().create_future()
        self._waiting = (re.compile(pattern, re.DOTALL), future)
        self._look()
        return await asyncio.wait_for(future, 60)

    def send(self, text: str) -> None:
        """Send text; over WebSocket in one masked frame (RFC 6455, section 5.2), with a mask of zeros."""
        self.write(self.framed(text))

    def write(self, data: bytes) -> None:
        """Send bytes that are `framed`."""
        self._transport.write(data)

    def framed(self, text: str) -> bytes:
        """Text as it is sent."""
        data = text.encode()
        if self.websocket:
            length = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
            data = b"\x81" + length + b"\0\0\0\0" + data
        return data

    def send_stanza(self, stanza: str) -> None:
        """Send a stanza written for TCP; over WebSocket it gets its namespace."""
        self.send(self.stanza(stanza))

    def stanza(self, stanza: str) -> str:
        """A stanza written for TCP as this transport has it."""
        if self.websocket:
            end = stanza.index(" ")
            stanza = f'{stanza[:end]} xmlns="jabber:client"{stanza[end:]}'
        return stanza

    async def upgrade(self) -> None:
        """Turn the HTTP connection into a WebSocket."""
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        self._transport.write(
            f"GET /xmpp-websocket HTTP/1.1\r\nHost: {self.domain}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n".encode()
        )
        await self.expect(rb"HTTP/1.1 101.*?\r\n\r\n")

    def open_stream(self) -> None:
        """Open, or open again, the XMPP stream."""
        if self.websocket:
            self.send(f'<open xmlns="urn:ietf:params:xml:ns:xmpp-framing" to="{self.domain}" version="1.0"/>')
        else:
            self.send(
                f"<?xml version='1.0'?><stream:stream to='{self.domain}' version='1.0' xmlns='jabber:client' "
                "xmlns:stream='http://etherx.jabber.org/streams'>"
            )

    async def authenticate(self, password: str) -> None:
        """SCRAM-SHA-1 (RFC 5802)."""
        self.open_stream()
        await self.expect(rb"</stream:features>|</features>")
        nonce = secrets.token_hex(8)
        first = f"n={self.user},r={nonce}"
        sasl = "urn:ietf:params:xml:ns:xmpp-sasl"
        self.send(f"<auth xmlns='{sasl}' mechanism='SCRAM-SHA-1'>{_base64('n,,' + first)}</auth>")
        challenge = base64.b64decode((await self.expect(rb"<challenge[^>]*>([^<]*)<"))[1]).decode()
        fields = dict(part.split("=", 1) for part in challenge.split(","))
        final = f"c=biws,r={fields['r']}"
        salted = _salted(password, fields["s"], int(fields["i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha1")
        signature = hmac.digest(hashlib.sha1(client_key).digest(), f"{first},{challenge},{final}".encode(), "sha1")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature, strict=True))).decode()
        self.send(f"<response xmlns='{sasl}'>{_base64(f'{final},p={proof}')}</response>")
        await self.expect(rb"<success")

    async def start(self) -> None:
        """Bind, ask for the roster, send presence: an ordinary log-in."""
        self.open_stream()
        await self.expect(rb"</stream:features>|</features>")
        self.send_stanza(
            "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>bench</resource></bind></iq>"
        )
        await self.expect(rb"<jid>")
        self.send_stanza("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>")
        await self.expect(rb"jabber:iq:roster")
        self.send_stanza("<presence ><show>chat</show></presence>")
        await self.expect(rb"<show>")  # our own presence comes back (RFC 6121, section 4.2.2)

    def close(self) -> None:
        """Hang up."""
        self._transport.abort()

    def message(self, to: str, text: str) -> str:
        """A chat message that carries the time of sending, now."""
        return self.stanza(
            f"<message to='{to}@{self.domain}' type='chat' id='m'><body>{time.monotonic_ns()} {text}</body></message>"
        )


@lru_cache
def _salted(password: str, salt: str, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha1", password.encode(), base64.b64decode(salt), iterations)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def log_in(
    users: list[str],
    password: str,
    domain: str,
    address: str | Sequence[str],
    *,
    websocket: bool,
    proxy: bool,
    tls: bool = False,
) -> list[Client]:
    """Log in one session per user, 50 at a time. ``address`` is ``unix:/path`` or ``host:port``, of several any one."""
    loop = asyncio.get_running_loop()
    addresses = [address] if isinstance(address, str) else address
    chance = random.Random(1)
    gate = asyncio.Semaphore(50)
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE

    async def one(user: str) -> Client:
        async with gate:
            address = chance.choice(addresses)
            make = lambda: Client(user, domain, websocket=websocket, proxy=proxy)
            if address.startswith("unix:"):
                _, client = await loop.create_unix_connection(make, address[5:])
            else:
                host, _, port = address.rpartition(":")
                _, client = await loop.create_connection(make, host, int(port), ssl=context)
            if websocket:
                await client.upgrade()
            await client.authenticate(password)
            await client.start()
            return client

    return await asyncio.gather(*map(one, users))

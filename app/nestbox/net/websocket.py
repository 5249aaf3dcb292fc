"""XMPP over WebSocket (RFC 7395).

Tornado answers the HTTP request; then the connection leaves it: our own asyncio protocol takes the socket over. That
costs a seventh of the CPU and of the memory of Tornado's WebSocketHandler.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from tornado.httputil import HTTPServerRequest
from tornado.iostream import StreamClosedError
from tornado.web import RequestHandler

from nestbox.net.transport import MakeReceiver, SocketTransport, TransportOptions
from nestbox.net.ws_frames import CLOSE, PING, PONG, TEXT, FrameDecoder, FrameError, close_payload, encode, header

__all__ = ["WebSocketTransport", "XmppWebSocketHandler", "client_address", "is_https", "origin_allowed"]

RFCS = ("RFC 7395",)

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


class WebSocketTransport(SocketTransport):
    """One WebSocket connection (Transport)."""

    kind = "websocket"
    __slots__ = ("_decoder", "_early", "_make")

    def __init__(
        self,
        options: TransportOptions,
        make_receiver: MakeReceiver,
        *,
        max_message: int,
        peer: str = "",
        secure: bool = False,
        early: bytes = b"",
    ) -> None:
        super().__init__(options, peer=peer, secure=secure)
        self._make: MakeReceiver | None = make_receiver
        self._early = early  # bytes that Tornado had read past the request
        self._decoder: FrameDecoder | None = FrameDecoder(max_message)  # None: what comes is discarded

    @property
    def max_message(self) -> int:
        """The longest message taken from the client, in bytes; the driver raises it after the login."""
        return self._decoder.limit if self._decoder is not None else 0

    @max_message.setter
    def max_message(self, size: int) -> None:
        if self._decoder is not None:
            self._decoder.limit = size

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the driver, and give it what has come already."""
        super().connection_made(transport)
        make, self._make = self._make, None
        self._receiver = make(self)
        early, self._early = self._early, b""
        if early:
            self.data_received(early)

    def write(self, data: bytes) -> None:
        """See Transport.write: one text message."""
        super().write(header(len(data)) + data)

    def close(self, code: int = 1000) -> None:
        """See Transport.close: the close frame goes first, and the client's is waited for (RFC 6455, section 7.1)."""
        if not self._closing:
            super().write(encode(close_payload(code), CLOSE))
            self._closing = True
            self.resume_reading()
            self._start_timer(self.options.close_timeout, self.abort)

    def data_received(self, data: bytes) -> None:
        """Bytes from the socket."""
        self.options.bytes_in += len(data)
        if self._decoder is None:
            return
        try:
            frames = self._decoder.feed(data)
        except FrameError as error:
            self._reason = error
            self._end(close_payload(error.code, str(error)))
            return
        for opcode, payload in frames:
            if opcode == CLOSE:
                self._end(payload[:2] if _may_close_with(payload) else close_payload(1002))
            elif self._closing:  # our close frame is on its way: only the client's counts now
                continue
            elif opcode == TEXT:
                self._receiver.data_received(payload)
            elif opcode == PING:
                super().write(encode(payload, PONG))
            if self._decoder is None:
                return

    def _end(self, payload: bytes) -> None:
        """The last frame, unless it is sent already, then the socket."""
        if not self._closing:
            super().write(encode(payload, CLOSE))
            self._closing = True
        self._decoder = None
        self._close_io()
        self._tell_lost()


def _may_close_with(payload: bytes) -> bool:
    """RFC 6455, section 7.4: some codes must not be on the wire."""
    code = int.from_bytes(payload[:2], "big")
    known = 1000 <= code < 1004 or 1007 <= code < 1015 or 3000 <= code < 5000
    return not payload or (len(payload) > 1 and known)


def client_address(request: HTTPServerRequest, trusted: bool) -> str:
    """The client's IP address: from our proxy when it is before us, else the socket's; '' when unknown.

    A client may send X-Forwarded-For, too: only the last element is our proxy's.
    """
    if not trusted:
        return "" if request.remote_ip in (None, "0.0.0.0") else request.remote_ip
    last = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
    try:
        return str(ipaddress.ip_address(last))
    except ValueError:
        return ""


def is_https(request: HTTPServerRequest, trusted: bool) -> bool:
    """Whether the client's way to us is encrypted."""
    return request.protocol == "https" or (trusted and request.headers.get("X-Forwarded-Proto") == "https")


def origin_allowed(request: HTTPServerRequest, origins: Collection[str]) -> bool:
    """Whether the page that asks may: ours, or one of ``origins``. Browsers send an Origin, apps need not."""
    origin = request.headers.get("Origin")
    if origin is None or origin in origins:
        return True
    return urlsplit(origin).netloc.lower() == request.headers.get("Host", "").lower() != ""


class XmppWebSocketHandler(RequestHandler):
    """GET /xmpp-websocket. ``origins`` are the pages of other hosts whose scripts may connect."""

    def initialize(
        self,
        make_receiver: MakeReceiver,
        options: TransportOptions,
        max_message: int,
        trusted: bool,
        origins: Collection[str],
    ) -> None:
        """Tornado's constructor."""
        self._make_receiver = make_receiver
        self._options = options
        self._max_message = max_message
        self._trusted = trusted
        self._origins = origins

    async def get(self) -> None:
        """Shake hands (RFC 6455, section 4.2) and hand the socket over."""
        refusal = self._refusal()
        if refusal is not None:
            status, text = refusal
            if status == 426:
                self.set_header("Upgrade", "websocket")
                self.set_header("Sec-WebSocket-Version", "13")
            self.set_status(status)
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish(f"{text}\n")
            return
        key = self.request.headers["Sec-WebSocket-Key"].encode()
        self.set_status(101)
        self.set_header("Upgrade", "websocket")
        self.set_header("Connection", "Upgrade")
        accept = hashlib.sha1(key + _MAGIC, usedforsecurity=False).digest()
        self.set_header("Sec-WebSocket-Accept", base64.b64encode(accept).decode())
        self.set_header("Sec-WebSocket-Protocol", "xmpp")
        self.clear_header("Content-Type")
        sent = self.finish()
        stream = self.detach()  # before Tornado waits for the next request
        try:
            await sent
            sock = stream.socket.dup()
        except (StreamClosedError, OSError):
            stream.close()
            return
        # Tornado has no public way to get at what it has read too far; test_websocket_takes_over_early_frames watches.
        early = bytes(stream._read_buffer)
        stream.close()
        transport = WebSocketTransport(
            self._options,
            self._make_receiver,
            max_message=self._max_message,
            peer=client_address(self.request, self._trusted),
            secure=is_https(self.request, self._trusted),
            early=early,
        )
        await asyncio.get_running_loop().connect_accepted_socket(lambda: transport, sock)

    def _refusal(self) -> tuple[int, str] | None:
        """Status and reason when this request may not become a WebSocket."""
        headers = self.request.headers
        if headers.get("Upgrade", "").lower() != "websocket" or self.request.version != "HTTP/1.1":
            return 426, "This address speaks XMPP over WebSocket (RFC 7395)."
        if "upgrade" not in [word.strip().lower() for word in headers.get("Connection", "").split(",")]:
            return 400, "The Connection header must say Upgrade."
        if headers.get("Sec-WebSocket-Version") != "13":
            return 426, "Only version 13 of the WebSocket protocol is spoken."
        try:
            key = base64.b64decode(headers.get("Sec-WebSocket-Key", ""), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != 16:
            return 400, "The Sec-WebSocket-Key is malformed."
        if "xmpp" not in [word.strip() for word in headers.get("Sec-WebSocket-Protocol", "").split(",")]:
            return 400, "The WebSocket subprotocol must be xmpp (RFC 7395, section 3.1)."
        if not origin_allowed(self.request, self._origins):
            return 403, "This page may not connect to this server."
        return None

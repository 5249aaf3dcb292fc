"""XMPP's TCP connections: plain, behind HAProxy with a PROXY header, with STARTTLS here."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl

from nestbox import Xep
from nestbox.net.listen import bind
from nestbox.net.proxy import ProxyError, parse
from nestbox.net.tls import TlsCodec
from nestbox.net.transport import MakeReceiver, SocketTransport, TransportOptions

__all__ = ["Listener", "TcpTransport", "listen"]

XEPS = (Xep(368, "1.1.0"),)

_log = logging.getLogger("nestbox.net")


class TcpTransport(SocketTransport):
    """One TCP connection (Transport, TlsCapable)."""

    kind = "tcp"
    __slots__ = ("_codec", "_head", "_make", "_records", "binding")

    def __init__(
        self, options: TransportOptions, make_receiver: MakeReceiver, *, proxy: bool = False, secure: bool = False
    ) -> None:
        super().__init__(options, secure=secure)
        self._make: MakeReceiver | None = make_receiver
        self._head: bytes | None = b"" if proxy else None  # of the PROXY header, as far as it has come
        self._codec = None
        self.binding: tuple[str, bytes] | None = None
        self._records: bytes | None = None  # of a TLS handshake that waits for its turn

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the driver, or wait for the PROXY header."""
        super().connection_made(transport)
        if self._head is None:
            address = transport.get_extra_info("peername")
            if isinstance(address, tuple):
                self.peer = address[0]
            self._start()
        else:
            self._start_timer(self.options.proxy_timeout, self._no_header)

    def _start(self) -> None:
        make, self._make = self._make, None
        self._receiver = make(self)

    def _no_header(self) -> None:
        _log.warning("no PROXY header came in time from %s", self.peer or "a local socket")
        self.close()

    def data_received(self, data: bytes) -> None:
        """Bytes from the socket: PROXY header first where one is due, then TLS or the driver."""
        self.options.bytes_in += len(data)
        if self._closing:
            return
        if self._head is not None:
            data = self._read_header(data)
            if not data:
                return
        if self._codec is None:
            self._receiver.data_received(data)
        elif self._codec.established:
            self._decode(data)
        else:
            self._shake_hands(data)

    def _read_header(self, data: bytes) -> bytes:
        self._head += data
        try:
            result = parse(self._head)
        except ProxyError as error:
            _log.warning("refused a connection from %s: %s", self.peer or "a local socket", error)
            self.close()
            return b""
        if result is None:
            return b""
        header, length = result
        rest, self._head = self._head[length:], None
        self._stop_timer()
        if header.source:
            self.peer = header.source
        self.tls = header.tls
        self.binding = header.binding
        self._start()
        return rest

    # TLS

    def start_tls(self, context: ssl.SSLContext) -> None:
        """See TlsCapable.start_tls. A client that does not finish the handshake in time is cut."""
        self.flush()
        self._codec = TlsCodec(context)
        self._start_timer(self.options.handshake_timeout, self._no_handshake)

    def _shake_hands(self, data: bytes) -> None:
        """A handshake costs as much as a hundred messages: those of many clients take turns."""
        if self._records is None:
            self._records = data
            self.options.pace.take(self._go_on)
        else:
            self._records += data
            self.pause_reading()

    def _go_on(self) -> None:
        records, self._records = self._records, None
        self.resume_reading()
        if not self._closing:
            self._decode(records)

    def _no_handshake(self) -> None:
        if self._records is not None:  # it is our turn
            self._start_timer(self.options.handshake_timeout, self._no_handshake)
            return
        self.abort(TimeoutError("the TLS handshake took too long"))

    def _decode(self, data: bytes) -> None:
        codec = self._codec
        try:
            plain, answer = codec.feed(data)
        except ssl.SSLError as error:
            self._io.write(codec.pending_output())
            self._reason = error
            self._closing = True
            self._out = None
            self._close_io()
            return
        if answer:
            self._io.write(answer)
        if codec.established and not self.secure:
            self._stop_timer()
            self.secure = True
            self.tls = codec.facts()
            self.binding = codec.binding()
            self.flush()
            self._receiver.tls_established()
        if plain:
            self._receiver.data_received(plain)
        if codec.closed:
            self.close()
            self._tell_lost()

    def _close_io(self) -> None:
        self.flush()
        if self._codec is not None and self._io is not None and not self._io.is_closing():
            self._io.write(self._codec.goodbye())
        super()._close_io()


class Listener:
    """A listening socket. ``options`` holds the counts of its connections."""

    def __init__(self, server: asyncio.Server, options: TransportOptions) -> None:
        self._server = server
        self.options = options

    @property
    def port(self) -> int:
        """The TCP port, which is of use when the address said 0; 0 for a Unix socket."""
        address = self._server.sockets[0].getsockname()
        return address[1] if isinstance(address, tuple) else 0

    def close(self) -> None:
        """Accept no more; connections that are there stay."""
        self._server.close()


async def listen(
    address: str,
    make_receiver: MakeReceiver,
    *,
    proxy: bool,
    secure: bool,
    mode: int = 0o660,
    backlog: int = 4096,
    options: TransportOptions | None = None,
) -> Listener:
    """Listen on ``unix:/path`` or ``host:port``.

    With ``proxy`` a PROXY header must come first, and over TCP only from this machine; without it none is accepted.
    ``secure`` says that TLS ends before us. ``mode`` is the Unix socket's. Raises OSError (see ``nestbox.net.listen``)
    and ValueError for an address that is malformed or may not take PROXY headers.
    """
    options = options or TransportOptions()
    sock = bind(address, mode=mode, backlog=backlog)
    if proxy and not address.startswith("unix:") and not ipaddress.ip_address(sock.getsockname()[0]).is_loopback:
        sock.close()
        raise ValueError(f"{address}: a listener that trusts PROXY headers must be a Unix socket or on loopback")

    def factory() -> TcpTransport:
        return TcpTransport(options, make_receiver, proxy=proxy, secure=secure)

    loop = asyncio.get_running_loop()
    if address.startswith("unix:"):
        server = await loop.create_unix_server(factory, sock=sock, backlog=backlog)
    else:
        server = await loop.create_server(factory, sock=sock, backlog=backlog)
    return Listener(server, options)

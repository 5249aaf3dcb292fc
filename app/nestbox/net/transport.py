"""What a connection offers to the code that drives it, and the part that TCP and WebSocket share.

Writes are gathered: one write to the socket per connection and turn of the event loop. What waits is bounded.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from nestbox.net.pace import Pace
from nestbox.net.tls import TlsCodec

__all__ = ["MakeReceiver", "Receiver", "SlowConsumer", "SocketTransport", "Transport", "TransportOptions"]

_log = logging.getLogger("nestbox.net")


class SlowConsumer(ConnectionError):
    """The peer reads so slowly that more than ``max_buffer`` bytes waited for it; the connection was cut."""


class Receiver(Protocol):
    """What a transport calls. It may also have ``buffer_drained()``, called when ``congested`` ends.

    Where TLS can be started it has ``tls_established()``, called before what comes out of TLS.
    """

    def data_received(self, data: bytes) -> None:
        """Bytes came; over WebSocket: the payload of one text message per call."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone or its peer has closed it, for the reason given if there is one. The last call."""


class Transport(Protocol):
    """A connection as its driver sees it.

    ``peer`` is the client's IP address ('' when unknown), ``kind`` 'tcp' or 'websocket'. ``secure`` says whether the
    client's way to us is encrypted, here or at HAProxy; ``tls`` holds what is known of that ('version', 'cipher').
    ``congested`` is True while the socket's buffer is over its high mark: a sender of much should wait for
    ``Receiver.buffer_drained``. ``unsent`` are documents that were written and never left, where that is known.
    """

    kind: str
    peer: str
    secure: bool
    tls: dict[str, str] | None
    congested: bool
    unsent: Sequence[bytes]

    def write(self, data: bytes) -> None:
        """Send bytes (over WebSocket: one text message). Does nothing on a connection that is closing."""

    def close(self) -> None:
        """Send what waits, then close; cut when the peer has not closed after ``close_timeout``."""

    def abort(self, exc: Exception | None = None) -> None:
        """Cut the connection now; ``exc`` reaches ``connection_lost``."""

    def pause_reading(self) -> None:
        """Read no more from the socket; what was read before may still be delivered."""

    def resume_reading(self) -> None:
        """Read again."""


MakeReceiver = Callable[["SocketTransport"], Receiver]


@dataclass(slots=True)
class TransportOptions:
    """Limits and counts that all connections of one kind share. Sizes in bytes, times in seconds.

    TLS handshakes wait for their turn at ``pace``.
    """

    max_buffer: int = 4 * 1024 * 1024
    close_timeout: float = 5.0
    handshake_timeout: float = 15.0
    proxy_timeout: float = 5.0
    open: int = 0
    opened: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    slow_consumers: int = 0
    pace: Pace = field(default_factory=Pace)
    # Connections with something to send in this turn of the loop.
    dirty: list[SocketTransport] = field(default_factory=list)


def _flush_soon(dirty: list[SocketTransport]) -> None:
    """A turn later, so that what follows from this one, such as the question for an acknowledgement, goes along."""
    asyncio.get_running_loop().call_soon(_flush_all, dirty)


def _flush_all(dirty: list[SocketTransport]) -> None:
    batch = dirty.copy()
    dirty.clear()
    for connection in batch:
        try:
            connection.flush()
        except Exception as error:  # must not keep the others waiting
            _log.exception("a connection could not be written to")
            connection.abort(error)


class SocketTransport(asyncio.Protocol):
    """The common part: gathering writes, bounds, closing. Small, as there are thousands of it."""

    kind = ""
    unsent: Sequence[bytes] = ()
    _codec: TlsCodec | None = None  # where TLS ends here
    __slots__ = (
        "_closing", "_io", "_out", "_paused", "_pending", "_reason", "_receiver", "_timer",
        "congested", "options", "peer", "secure", "tls",
    )  # fmt: skip

    def __init__(self, options: TransportOptions, *, peer: str = "", secure: bool = False) -> None:
        self.options = options
        self.peer = peer
        self.secure = secure
        self.tls: dict[str, str] | None = None
        self.congested = False
        self._io: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._out: list[bytes] | None = None
        self._pending = 0
        self._closing = False
        self._paused = False
        self._reason: Exception | None = None
        self._timer: asyncio.TimerHandle | None = None

    # what the driver calls

    def write(self, data: bytes) -> None:
        """See Transport.write."""
        if self._closing:
            return
        if self._out is None:
            self._out = [data]
            dirty = self.options.dirty
            if not dirty:
                asyncio.get_running_loop().call_soon(_flush_soon, dirty)
            dirty.append(self)
        else:
            self._out.append(data)
        self._pending += len(data)
        if self._pending > self.options.max_buffer:
            self._too_slow()

    def close(self) -> None:
        """See Transport.close."""
        if not self._closing:
            self._closing = True
            self._close_io()

    def abort(self, exc: Exception | None = None) -> None:
        """See Transport.abort."""
        self._closing = True
        self._out = None
        self._pending = 0
        if self._reason is None:
            self._reason = exc
        if self._io is not None:
            self._io.abort()

    def pause_reading(self) -> None:
        """See Transport.pause_reading."""
        if not self._paused and self._io is not None and not self._io.is_closing():
            self._paused = True
            self._io.pause_reading()

    def resume_reading(self) -> None:
        """See Transport.resume_reading."""
        if self._paused:
            self._paused = False
            if self._io is not None and not self._io.is_closing():
                self._io.resume_reading()

    def flush(self) -> None:
        """Hand what was gathered to the socket; during a TLS handshake it waits."""
        out, codec = self._out, self._codec
        if out is None or self._io is None or (codec is not None and not codec.established):
            return
        self._out = None
        self._pending = 0
        data = out[0] if len(out) == 1 else b"".join(out)
        if codec is not None:
            data = codec.encode(data)
        self.options.bytes_out += len(data)
        self._io.write(data)
        if self.congested and self._io.get_write_buffer_size() > self.options.max_buffer:
            self._too_slow()

    def _too_slow(self) -> None:
        self.options.slow_consumers += 1
        self.abort(SlowConsumer(f"more than {self.options.max_buffer} bytes wait to be sent"))

    def _close_io(self) -> None:
        """Send what waits and say that no more comes, then discard input until the peer closes, too.

        Closing at once, with input unread, would make the kernel reset the connection and lose our last words.
        """
        self.flush()
        if self._io is None or self._io.is_closing():
            return
        self.resume_reading()
        self._io.write_eof()
        self._start_timer(self.options.close_timeout, self._io.abort)

    def _start_timer(self, seconds: float, callback: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, callback)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ours."""
        self._io = transport
        self.options.open += 1
        self.options.opened += 1

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone: tell the driver, and break the reference cycle."""
        self.options.open -= 1
        self._closing = True
        self._out = None
        self._stop_timer()
        self._io = None
        self._tell_lost(exc)

    def _tell_lost(self, exc: Exception | None = None) -> None:
        """Tell the driver, also before the socket is gone: a client that has closed its side may be slow to go."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.connection_lost(self._reason or exc)

    def pause_writing(self) -> None:
        """The socket's buffer is over its high mark."""
        self.congested = True

    def resume_writing(self) -> None:
        """The socket's buffer is under its low mark again."""
        self.congested = False
        drained = getattr(self._receiver, "buffer_drained", None)
        if drained is not None:
            drained()

    def eof_received(self) -> bool:
        """The peer sends no more: asyncio closes for us, after what is on its way."""
        self.flush()
        return False


class TlsCapable(Protocol):
    """A transport on which TLS can be started in the middle of a stream (TCP only).

    ``binding`` is the connection's own channel binding, type and data, None where there is none.
    """

    binding: tuple[str, bytes] | None

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Send what waits in plain, then speak TLS as the server; ``secure`` turns True after the handshake."""

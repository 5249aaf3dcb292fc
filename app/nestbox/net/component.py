"""The connection of one component (XEP-0114): joins a transport, a stream and the routing of `modules.components`."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from nestbox.core.errors import StreamError
from nestbox.net.tcp import Listener, listen
from nestbox.net.transport import SocketTransport, TransportOptions
from nestbox.protocol.component import ComponentStream, Handshake
from nestbox.protocol.events import StanzaReceived

if TYPE_CHECKING:
    from nestbox.core.server import Server

__all__ = ["ComponentConnection", "listen_for_components"]

_log = logging.getLogger("nestbox.components")


async def listen_for_components(server: Server, worker: int) -> Listener | None:
    """Listen for the components that the operator expects; None when there are none, or no address.

    Raises OSError and ValueError, as `listen` does, and ValueError for an address that others than this machine reach.
    """
    config = server.config
    address = config.address("component", worker)
    if server.components is None or not address:
        return None
    host = address.rpartition(":")[0].strip("[]")
    if not address.startswith("unix:") and not _is_loopback(host):
        raise ValueError(f"{address}: components have no encryption; they may only come from this machine")
    limits = config.limits
    open_now: set[ComponentConnection] = set()

    def accept(transport: SocketTransport) -> ComponentConnection:
        secrets = {component.host: component.secret for component in config.components}
        stream = ComponentStream(secrets, limits.stanza_bytes_before_login, limits.stanza_bytes)
        connection = ComponentConnection(server, transport, stream, open_now.discard)
        open_now.add(connection)
        if len(open_now) > limits.component_connections:
            text = "The server has no room for more components."
            connection.end(StreamError("resource-constraint", text, limit="component_connections"))
        return connection

    options = TransportOptions(max_buffer=limits.write_buffer_bytes)
    # Where a component comes from is this machine, and all that a PROXY header could say.
    return await listen(address, accept, proxy=False, secure=True, options=options)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class ComponentConnection:
    """The driver of one component's stream; what it sends is handled in order, as with a client."""

    def __init__(
        self,
        server: Server,
        transport: SocketTransport,
        stream: ComponentStream,
        forget: Callable[[ComponentConnection], None],
    ) -> None:
        self._server = server
        self._transport = transport
        self._stream = stream
        self._forget = forget
        self._host = ""  # once it is authenticated
        self._busy = self._paused = self._lost = False
        seconds = server.config.limits.login_seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self._too_late)

    def _too_late(self) -> None:
        self.end(StreamError("connection-timeout", "No handshake came.", limit="login_seconds"))

    # the transport's receiver

    def data_received(self, data: bytes) -> None:
        """Handle bytes of the component."""
        self._stream.feed(data)
        if not self._busy:
            self._pump()
        elif not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone."""
        self._lost = True
        self._forget(self)
        self._leave()

    def _leave(self) -> None:
        """Nothing comes or goes any more."""
        self._timer.cancel()
        host, self._host = self._host, ""
        if host:
            self._server.spawn(self._server.components.detach(host, self))

    # the link of `Components`

    def send(self, data: bytes) -> None:
        """See Link.send."""
        self._server.counts.stanzas_out += 1
        self._transport.write(data)

    def end(self, error: StreamError | None) -> None:
        """See Link.end."""
        self._server.counts.refused(error)
        self._stream.close(error)
        self._flush()
        self._transport.close()
        self._leave()

    # what the stream says

    def _flush(self) -> None:
        data = self._stream.data_to_send()
        if data:
            self._transport.write(data)

    def _pump(self) -> None:
        while (event := self._stream.next_event()) is not None:
            waiting = self._handle(event)
            if waiting is not None:
                self._busy = True
                self._server.spawn(self._wait(waiting))
                break
        self._flush()

    def _handle(self, event: object) -> Awaitable[object] | None:
        if isinstance(event, StanzaReceived):
            try:
                outcome = self._server.components.from_component(self._host, event.stanza)
            except StreamError as error:
                self.end(error)
                return None
            except Exception:
                _log.exception("what a component sent could not be handled")
                self.end(StreamError("internal-server-error"))
                return None
            return None if isinstance(outcome, int) else outcome
        if isinstance(event, Handshake):
            return self._attach(event.host)
        self.end(event.error)
        return None

    async def _attach(self, host: str) -> None:
        await self._server.components.attach(host, self)
        self._host = host
        self._timer.cancel()
        if self._lost:
            await self._server.components.detach(host, self)
            return
        self._stream.accept()
        self._flush()

    async def _wait(self, waiting: Awaitable[object]) -> None:
        try:
            await waiting
        except StreamError as error:
            self.end(error)
        except Exception:
            _log.exception("what a component sent could not be handled")
            self.end(StreamError("internal-server-error"))
        self._busy = False
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        self._pump()

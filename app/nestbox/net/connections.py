"""All client connections of a worker: who may open one, and which have been silent for too long."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nestbox.core.errors import StreamError
from nestbox.net.connection import Connection
from nestbox.net.pace import Pace
from nestbox.protocol.features import StreamOptions

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.net.tcp import Listener
    from nestbox.net.tls import TlsContext
    from nestbox.net.transport import SocketTransport

__all__ = ["Connections"]

PING_ANSWER_SECONDS = 60.0
SILENT_TICKS = 6  # looks in a row at which an acknowledgement is due and nothing has come, after which it is missed


@dataclass(slots=True)
class Connections:
    """What the connections of a worker share, and all of them; ``visitors`` are those without a login, by source."""

    server: Server
    options: StreamOptions
    tls: TlsContext | None
    open: set[Connection] = field(default_factory=set)
    pace: Pace = field(default_factory=Pace)
    visitors: Counter[str] = field(default_factory=Counter)
    listeners: list[Listener] = field(default_factory=list)

    def accept(self, transport: SocketTransport) -> Connection:
        """Start a connection on a transport (a `MakeReceiver`)."""
        connection = Connection(self, transport)
        limits = self.server.config.limits
        if self.server.draining:
            transport.abort()
        elif len(self.open) > limits.connections:
            text = "The server has no room for more connections."
            connection.end(StreamError("resource-constraint", text, limit="connections"))
        elif source := self.server.sources.key(transport.peer):
            connection.source = source
            self.visitors[source] += 1
            if self.visitors[source] > limits.visitors_per_address:
                text = "Too many clients at your address do not log in."
                connection.end(StreamError("policy-violation", text, limit="visitors_per_address"))
        return connection

    def visited(self, connection: Connection) -> None:
        """A visitor has logged in, or has gone."""
        source, connection.source = connection.source, ""
        if source:
            self.visitors[source] -= 1
            if not self.visitors[source]:
                del self.visitors[source]

    def turn_away(self) -> None:
        """The worker stops: who has not logged in yet tries again at another one, as after a lost connection."""
        for listener in self.listeners:
            listener.close()
        for connection in list(self.open):
            if connection.session is None:
                connection.transport.abort()

    def tick(self) -> None:
        """Close those that did not log in in time, ping the quiet ones, cut those that did not answer."""
        limits = self.server.config.limits
        now = asyncio.get_running_loop().time()
        for connection in list(self.open):
            quiet = now - connection.heard
            if connection.session is None:
                if now - connection.opened > limits.login_seconds and not connection.waits_for_us:
                    connection.end(StreamError("connection-timeout", "Nobody logged in.", limit="login_seconds"))
            elif quiet > limits.idle_seconds + PING_ANSWER_SECONDS:
                self.server.counts.limits_hit["idle_seconds"] += 1
                connection.transport.abort()
            elif quiet > limits.idle_seconds and not connection.pinged:
                connection.ping()
            if connection.session is not None and connection.session.asked:
                connection.silent += 1
                if connection.silent == SILENT_TICKS:
                    self.server.hooks.session_away.run(connection.session)
            else:
                connection.silent = 0

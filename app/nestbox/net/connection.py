"""One client's connection: joins a transport, a stream and, after bind, a session.

What arrives is handled at once as long as nobody must be asked; when the store or another worker must, the
connection is busy, reading pauses if more comes, and the next stanza waits (RFC 6120, section 10.1).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from typing import TYPE_CHECKING

from nestbox.core.errors import StreamError
from nestbox.net import entrance
from nestbox.net.ws_frames import FrameError
from nestbox.protocol.stream import (
    Ack,
    AckRequest,
    Closed,
    EnableSm,
    Nonza,
    StanzaReceived,
    StartTls,
    Stream,
)
from nestbox.wire.framing import frame

if TYPE_CHECKING:
    from nestbox.config import Limits
    from nestbox.core.session import Session
    from nestbox.core.visitor import Visitor
    from nestbox.net.connections import Connections
    from nestbox.net.transport import SocketTransport
    from nestbox.wire.stanza import Stanza

__all__ = ["Connection"]

_log = logging.getLogger("nestbox.c2s")
BURST_SECONDS = 10.0  # for which a session may send at once what it may send in the long run
STANZAS_AT_ONCE = 50  # of one session in a turn of the loop


class Connection:
    """The driver of one stream; it is the transport's receiver and the session's link.

    ``heard`` and ``opened`` are loop times in seconds; ``source`` is what its address counts as until somebody logs in;
    ``name`` is the account of which a login is under way; ``gone`` is set when the client hears no more; ``early`` is
    what comes for a session before its client knows of it, or after that. The way to the session is in
    `nestbox.net.entrance`.
    """

    __slots__ = (
        "_begun",
        "_busy",
        "_clean",
        "_due",
        "_free",
        "_paced",
        "_paused",
        "early",
        "gone",
        "heard",
        "name",
        "opened",
        "pinged",
        "session",
        "shared",
        "silent",
        "source",
        "stream",
        "transport",
        "username",
        "visitor",
    )

    def __init__(self, shared: Connections, transport: SocketTransport) -> None:
        self.shared = shared
        self.transport = transport
        tcp = transport.kind == "tcp"
        bindings = self._bindings() if tcp and transport.secure and shared.tls is not None else {}
        self.stream = Stream(shared.options, framing=transport.kind, secure=transport.secure, bindings=bindings)
        self.session: Session | None = None
        self.username = ""
        self.source = ""
        self.visitor: Visitor | None = None
        self.opened = self.heard = asyncio.get_running_loop().time()
        self.pinged = False
        self.silent = 0
        self._busy = False
        self._begun = False
        self._paced = True  # until its login is through, with its first presence
        self._paused = False
        self._clean = False
        self._due = 0.0  # the loop time at which what it has sent would have been sent at the rate that is allowed
        self._free = not shared.server.sources.key(transport.peer)
        self.name = ""
        self.early: list[bytes] | None = None
        self.gone = False
        shared.open.add(self)

    # the transport's receiver

    def data_received(self, data: bytes) -> None:
        """Handle bytes, or one text frame, of the client."""
        self.heard = asyncio.get_running_loop().time()
        self.pinged = False
        self.silent = 0
        self.stream.feed(data)
        if self.session is not None and not self._free:
            self._due = max(self._due, self.heard - BURST_SECONDS) + len(data) / self._limits.session_bytes
        if self._busy:
            if not self._paused:
                self._paused = True
                self.transport.pause_reading()
        elif self._paced:
            self._busy = True
            self.shared.pace.take(self._in_turn, fresh=not self._begun)
        else:
            self._pump()

    def _in_turn(self) -> None:
        """Go on with the login."""
        self._begun = True
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has closed its side, or the transport is gone; what came before that is handled first."""
        if isinstance(exc, FrameError) and exc.code == 1009:  # too big: no stream error says so
            name = "stanza_bytes" if self.username else "stanza_bytes_before_login"
            self.shared.server.counts.limits_hit[name] += 1
        self._count_out()
        if not self._busy:
            self._leave()
        elif self.early is None:
            self.early = []

    def _count_out(self) -> None:
        self.gone = True
        self.shared.open.discard(self)
        self.shared.visited(self)

    def _leave(self) -> None:
        """Nothing goes to the client any more, nor comes from it: its session ends, or waits for it."""
        self._count_out()
        session, self.session = self.session, None
        if session is not None and session.link is self:
            ending = self._left(session, self.shared.server.connection_lost(session, self._clean))
            pace = self.shared.pace
            pace.take(lambda: self.shared.server.spawn(pace.answer(ending)))

    async def _left(self, session: Session, ending: Awaitable[None]) -> None:
        """What the client was not sent, such as what waited for its next request (BOSH), finds another way."""
        await ending
        if session.sm is None:  # else it is in the session's queue
            for data in (*self.transport.unsent, *(self.early or ())):
                await self.shared.server.router.reroute(session.entry.bare, data)

    def buffer_drained(self) -> None:
        """The client reads again."""
        if not self._busy:
            self._pump()

    def tls_established(self) -> None:
        """The handshake is through."""
        self.stream.tls_established(self._bindings())

    def _bindings(self) -> dict[str, bytes]:
        known, own = self.shared.tls.bindings, self.transport.binding
        return {**known, own[0]: own[1]} if own is not None else known

    # the session's link

    def send_stanza(self, data: bytes) -> None:
        """See Link.send_stanza."""
        if self.early is not None:
            self.early.append(data)
            return
        self.shared.server.counts.stanzas_out += 1
        self.transport.write(data if self.transport.kind == "tcp" else frame(data))

    def request_ack(self) -> None:
        """See Link.request_ack."""
        if self.early is not None:
            return  # `_establish` asks
        self.transport.write(b"<r xmlns='urn:xmpp:sm:3'/>")

    def send_ack(self, h: int) -> None:
        """See Link.send_ack."""
        self.transport.write(b"<a xmlns='urn:xmpp:sm:3' h='%d'/>" % h)

    def end(self, error: StreamError | None) -> None:
        """See Link.end."""
        self.shared.server.counts.refused(error)
        self._clean = True
        self.stream.close(error)
        self.flush()
        self.transport.close()
        self._leave()

    def drop(self) -> None:
        """See Link.drop."""
        self.flush()
        self.transport.close()

    def ping(self) -> None:
        """Ask a quiet client for a sign of life (XEP-0199, section 4.1)."""
        self.pinged = True
        domain = self.shared.server.config.domain
        ping = f"<iq type='get' id='ping' from='{domain}' to='%s'><ping xmlns='urn:xmpp:ping'/></iq>"
        self.session.send(
            (ping % self.session.full.replace("&", "&amp;").replace("'", "&apos;").replace("<", "&lt;")).encode()
        )

    @property
    def _limits(self) -> Limits:
        return self.shared.server.config.limits

    @property
    def waits_for_us(self) -> bool:
        """Whether it is our turn."""
        return self._busy

    # what the stream says

    def _pump(self) -> None:
        if self.gone and self.session is None:
            self._leave()
            return
        stream = self.stream
        left = STANZAS_AT_ONCE
        while (event := stream.next_event()) is not None:
            paced = self._paced
            if paced and type(event) is StanzaReceived:
                paced = event.stanza.kind == "presence"
                self._paced = event.stanza.kind == "iq"
            waiting = self._handle(event)
            if waiting is not None:
                self._busy = True
                self.shared.server.spawn(self._wait(self.shared.pace.answer(waiting) if paced else waiting))
                break
            left -= 1
            if self._busy or not left:
                self._rest()
                break
        else:
            if not self.gone and self._due > self.heard and self._due > asyncio.get_running_loop().time():
                self._rest()
        self.flush()
        if self.gone and not self._busy:
            self._leave()

    def _rest(self) -> None:
        """Read no more for now: others have their turn, and who has sent more than is allowed waits until it was due.

        Where the last stanza waits for a commit (`_handled`), that comes first.
        """
        if not self._paused:  # else the end of the connection would be noticed before what came before it is handled
            self._paused = True
            self.transport.pause_reading()
        if self._busy:
            return
        self._busy = True
        loop = asyncio.get_running_loop()
        if self._due > loop.time():
            self.shared.server.counts.slowed += 1
            loop.call_at(self._due, self._go_on)
        else:
            loop.call_soon(self._go_on)

    def flush(self) -> None:
        """Write what the negotiation has to say."""
        while data := self.stream.data_to_send():  # over WebSocket one frame a call
            self.transport.write(data)

    async def _wait(self, waiting: Coroutine[object, object, object]) -> None:
        try:
            await waiting
        except StreamError as error:
            self.end(error)
        except Exception:
            _log.exception("a client's request failed")
            self.end(StreamError("internal-server-error"))
        self._go_on()

    def _go_on(self) -> None:
        self._busy = False
        if self.session is None:
            self.opened += asyncio.get_running_loop().time() - self.heard  # so long the client has waited for us
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        self._pump()

    def _handle(self, event: object) -> Coroutine[object, object, object] | None:
        try:
            if type(event) is StanzaReceived:
                return self._stanza(event.stanza)
            return _HANDLERS[type(event)](self, event)
        except StreamError as error:
            self.end(error)
        except Exception:
            _log.exception("a client's %s failed", type(event).__name__)
            self.end(StreamError("internal-server-error"))
        return None

    def _stanza(self, stanza: Stanza) -> Coroutine[object, object, object] | None:
        session = self.session
        if session is None or session.link is not self:
            return None  # the session has ended or moved under us; the stream is closing
        server = self.shared.server
        counts = server.counts
        if stanza.kind == "message":
            counts.messages_in += 1
        elif stanza.kind == "presence":
            counts.presences_in += 1
        else:
            counts.iqs_in += 1
        if not self._free:
            self._due = max(self._due, self.heard - BURST_SECONDS) + 1 / self._limits.session_stanzas
        committer = server.store.committer
        if committer.full and stanza.kind == "message":
            outcome = self._with_room(session, stanza)
        else:
            outcome = server.router.from_client(session, stanza)
        if not isinstance(outcome, int):
            return session.count_later(outcome, committer)
        if session.sm is not None:
            session.count(outcome, committer)
        if outcome and committer.behind:
            self._busy = True
            server.counts.slowed += 1
            committer.when(outcome, self._committed)
        return None

    async def _with_room(self, session: Session, stanza: Stanza) -> int:
        """Handle a message when the database has made some room."""
        server = self.shared.server
        server.counts.slowed += 1
        while server.store.committer.full:
            await server.store.committer.flush()
        outcome = server.router.from_client(session, stanza)
        return outcome if isinstance(outcome, int) else await outcome

    def _committed(self, durable: bool) -> None:
        """The database has caught up with this client."""
        asyncio.get_running_loop().call_soon(self._go_on)

    def _start_tls(self, event: StartTls) -> None:
        self.flush()
        self.transport.start_tls(self.shared.tls.context)

    def _enable_sm(self, event: EnableSm) -> None:
        server = self.shared.server
        sm_id = server.enable_sm(self.session, event.resume)
        self.stream.sm_enabled(sm_id, server.config.limits.resume_seconds)

    def _ack_request(self, event: AckRequest) -> None:
        session = self.session
        if session is None:
            return
        if session.pending:
            self.shared.server.store.committer.when(session.pending[-1][1], self._ack_durable)
        else:
            self._ack_durable(True)

    def _ack_durable(self, durable: bool) -> None:
        """What the client asked about is committed; a batch that could not be is never acknowledged as such."""
        session = self.session
        if session is None:
            return
        h = session.durable(self.shared.server.store.committer.committed)
        if session.journal is None or session.kept == h:
            self.send_ack(h)
        else:
            session.journal.keep(session, self._ack_kept)

    def _ack_kept(self) -> None:
        """What caused no row, such as presence, is in the journal."""
        if self.session is not None:
            self.send_ack(self.session.kept)

    def _ack(self, event: Ack) -> None:
        if self.session is not None:
            self.session.acknowledge(event.h)

    def _nonza(self, event: Nonza) -> None:
        handler = self.shared.server.nonzas.get(event.element.tag)
        if handler is None:
            raise StreamError("unsupported-stanza-type")
        if self.session is not None:
            handler(self.session, event.element)

    def _closed(self, event: Closed) -> None:
        self._clean = event.error is None or self._clean
        self.shared.server.counts.refused(event.error)
        self.flush()
        self.transport.close()
        self._leave()


_HANDLERS = {
    **entrance.HANDLERS,
    StartTls: Connection._start_tls,
    EnableSm: Connection._enable_sm,
    AckRequest: Connection._ack_request,
    Ack: Connection._ack,
    Nonza: Connection._nonza,
    Closed: Connection._closed,
}

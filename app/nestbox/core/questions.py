"""Iqs that the server itself sends, and their answers (RFC 6120, section 8.2.3).

An answer comes to whichever worker its sender is connected to; the id says which worker asked, and it is carried there.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.core.jid import JID, parse_jid
from nestbox.core.registry import Part
from nestbox.wire import ns
from nestbox.wire.element import Element, el
from nestbox.wire.stanza import Stanza, parse_stanza

if TYPE_CHECKING:
    from nestbox.core.server import Server

__all__ = ["Questions"]

_PART = "questions"
_PREFIX = "ask"


class Questions:
    """What this worker has asked and not yet been told."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._open: dict[str, tuple[JID, asyncio.Future[Stanza]]] = {}
        server.registry.part(_PART, lambda worker, data: self.answered(parse_stanza(data)))

    async def ask(self, sender: JID, to: JID, kind: str, payload: Element, seconds: float = 30.0) -> Stanza:
        """Send an iq of type ``kind`` (get or set) from an address of ours; its answer, a result or an error.

        Raises StanzaError (remote-server-timeout) when none comes in time.
        """
        iq_id = f"{_PREFIX}-{self._server.bus.worker}-{secrets.token_urlsafe(12)}"
        future = asyncio.get_running_loop().create_future()
        self._open[iq_id] = (to, future)
        attributes = {"type": kind, "id": iq_id, "from": str(sender), "to": str(to)}
        try:
            outcome = self._server.router.route(sender, to, Stanza(el(f"{{{ns.CLIENT}}}iq", attributes, payload)))
            if not isinstance(outcome, int):
                await outcome
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            raise StanzaError("remote-server-timeout", f"{to} did not answer.") from None
        finally:
            del self._open[iq_id]

    def give_up(self) -> None:
        """Nobody is waited for any more, since this worker stops."""
        for to, future in self._open.values():
            if not future.done():
                future.set_exception(StanzaError("remote-server-timeout", f"{to} did not answer."))

    def answered(self, stanza: Stanza) -> None:
        """An iq of type result or error for the server or an account; one that nobody waits for is dropped."""
        prefix, _, rest = (stanza.id or "").partition("-")
        worker = rest.partition("-")[0]
        if prefix != _PREFIX or not worker.isdecimal():
            return
        if int(worker) != self._server.bus.worker:
            if int(worker) in self._server.bus.workers():
                self._server.registry.tell(int(worker), Part(_PART, self._server.bus.worker, stanza.encode()))
            return
        to, future = self._open.get(stanza.id, (None, None))
        if future is not None and not future.done() and parse_jid(stanza.from_ or "") == to:
            future.set_result(stanza)

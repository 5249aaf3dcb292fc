"""One stanza for many sessions: serialised once, one bus message for each other worker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from nestbox.core.jid import parse_jid
from nestbox.core.registry import Part
from nestbox.wire.element import escape_attribute
from nestbox.wire.stanza import parse_stanza

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.modules.muc.occupants import Seat

__all__ = ["Fanout", "to_attribute"]

PART = "muc-fanout"


class _Batch(msgspec.Struct, array_like=True):
    addresses: list[str]
    sender: str
    data: bytes
    urgent: bool


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Batch).decode


def to_attribute(full: str) -> bytes:
    """The attribute that makes a stanza one for ``full``."""
    return f' to="{escape_attribute(full)}"'.encode()


class Fanout:
    """The way from a room to its occupants' sessions."""

    def __init__(self, server: Server) -> None:
        self._registry = server.registry
        self._router = server.router
        server.registry.part(PART, self._received)

    def send(self, sender: str, seats: Iterable[Seat], data: bytes, urgent: bool = True) -> None:
        """Send canonical bytes without ``to``, from an address of the room, to seats on whichever workers they are."""
        at = data.index(b" ")
        head, tail = data[:at], data[at:]
        sessions = self._registry.sessions
        elsewhere: dict[int, list[str]] = {}
        for seat in seats:
            session = sessions.get(seat.full)
            if not seat.uid:  # later, since it may come back as an error and change the room
                stanza = parse_stanza(head + seat.to + tail)
                asyncio.get_running_loop().call_soon(self._router.send, stanza)
            elif session is None:
                entry = self._registry.of(seat.bare).get(seat.resource)
                if entry is not None and entry.worker != self._registry.worker:
                    elsewhere.setdefault(entry.worker, []).append(seat.full)
            elif not session.user.blocked or not session.user.blocks(parse_jid(sender)):
                session.send(head + seat.to + tail, urgent)
        for worker, addresses in elsewhere.items():
            batch = _encode(_Batch(addresses, sender, data, urgent))
            self._registry.tell(worker, Part(PART, self._registry.worker, batch))

    def _received(self, worker: int, data: bytes) -> None:
        batch = _decode(data)
        at = batch.data.index(b" ")
        head, tail = batch.data[:at], batch.data[at:]
        for full in batch.addresses:
            session = self._registry.sessions.get(full)
            if session is None:
                self._follow(full, head + to_attribute(full) + tail, batch.urgent)
            elif not session.user.blocked or not session.user.blocks(parse_jid(batch.sender)):
                session.send(head + to_attribute(full) + tail, batch.urgent)

    def _follow(self, full: str, data: bytes, urgent: bool) -> None:
        """The session has moved on to another worker; whether it has ended, the room hears by itself."""
        bare, _, resource = full.partition("/")
        entry = self._registry.of(bare).get(resource)
        if entry is not None and entry.worker != self._registry.worker:
            self._registry.deliver(entry, data, urgent, followed=True)

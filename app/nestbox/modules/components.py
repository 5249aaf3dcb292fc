"""XEP-0114, Jabber Component Protocol: bots and gateways that bring a host of their own.

A component is connected to one worker. Which one is in a hash on the bus, and every worker remembers it; a stanza for
the component goes there. What it sends takes the way of a client's stanza: archive, offline messages, errors.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Protocol

import msgspec

from nestbox.core.errors import StanzaError, StreamError
from nestbox.core.hooks import MessageContext
from nestbox.core.jid import parse_jid
from nestbox.core.registry import Part
from nestbox.modules import Xep
from nestbox.wire.stanza import iq_error, parse_stanza

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from nestbox.core.jid import JID
    from nestbox.core.server import Server
    from nestbox.core.session import Session
    from nestbox.wire.stanza import Stanza

__all__ = ["XEPS", "Components", "setup"]

XEPS = (Xep(114, "1.6", "the server does not connect to components"),)
KEY = "components"
ASK_SECONDS = 3.0  # how long another worker may take to say whether it has a component
_log = logging.getLogger("nestbox.components")


class Place(msgspec.Struct, tag="place", array_like=True):
    """Where a component is: its worker, and what tells this connection from others of the same host."""

    host: str
    worker: int
    uid: int


class Left(msgspec.Struct, tag="left", array_like=True):
    """A component's connection is no more."""

    host: str
    uid: int


class Ask(msgspec.Struct, tag="ask", array_like=True):
    """Do you still have this connection?"""

    host: str
    uid: int


class Has(msgspec.Struct, tag="has", array_like=True):
    """The answer."""

    uid: int
    here: bool


class Carry(msgspec.Struct, tag="carry", array_like=True):
    """A stanza in canonical bytes for a component of the receiving worker."""

    host: str
    data: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Place | Left | Ask | Has | Carry).decode


class Link(Protocol):
    """The connection of a component."""

    def send(self, data: bytes) -> None:
        """Write a stanza in canonical bytes."""

    def end(self, error: StreamError | None) -> None:
        """Close the stream."""


class Components:
    """The components of this worker, and the way to those of the others."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._links: dict[str, tuple[int, Link]] = {}
        self._places: dict[str, Place] = {}
        self._asked: dict[int, asyncio.Future[bool]] = {}  # by the uid that was asked about
        registry = server.registry
        registry.part(KEY, self._heard, self._undelivered)
        registry.worker_gone.add(self._worker_gone)
        registry.reloaded.add(self._reloaded)
        server.stopping.append(self._stop)
        for component in server.config.components:
            if component.host in server.router.hosts:
                raise ValueError(f"components: {component.host} is one of the server's own hosts")
            server.router.hosts[component.host] = self.to_component

    @property
    def here(self) -> set[str]:
        """The hosts of the components that are connected to this worker."""
        return set(self._links)

    # connections

    async def attach(self, host: str, link: Link) -> None:
        """A component has proved its name. Raises StreamError conflict when it is connected already."""
        bus = self._server.bus
        if self._server.draining:
            raise StreamError("system-shutdown", "This worker restarts; please reconnect.")
        place = Place(host, bus.worker, self._server.ids.next())
        data = _encode(place)
        while True:
            old = await bus.hget(KEY, host)
            if old is not None and await self._is_held(_decode(old)):
                raise StreamError("conflict", f"{host} is connected already.")
            if await bus.swap(KEY, host, old, data) == data:
                break  # else another was quicker, or took back the place of a worker that died
        self._links[host] = (place.uid, link)
        self._tell_all(place)
        _log.info("component %s is connected", host)

    async def _is_held(self, place: Place) -> bool:
        """Whether that worker has that connection: it may have died a moment ago, and is asked."""
        if place.worker == self._server.bus.worker or not self._alive(place):
            return self._alive(place)
        future = self._asked.get(place.uid)
        if future is None:
            future = self._asked[place.uid] = asyncio.get_running_loop().create_future()
            self._server.registry.tell(place.worker, self._part(Ask(place.host, place.uid)))
        try:
            async with asyncio.timeout(ASK_SECONDS):
                return await asyncio.shield(future)
        except TimeoutError:
            return True
        finally:
            self._asked.pop(place.uid, None)

    def _answered(self, uid: int, here: bool) -> None:
        future = self._asked.get(uid)
        if future is not None and not future.done():
            future.set_result(here)

    def _alive(self, place: Place) -> bool:
        if place.worker == self._server.bus.worker:
            return place.host in self._links
        return place.worker in self._server.bus.workers()

    async def detach(self, host: str, link: Link) -> None:
        """A component's connection is gone."""
        uid, held = self._links.get(host, (0, None))
        if held is not link:
            return
        del self._links[host]
        self._tell_all(Left(host, uid))
        await self._server.bus.swap(KEY, host, _encode(Place(host, self._server.bus.worker, uid)), None)
        _log.info("component %s is gone", host)

    async def _stop(self) -> None:
        for host, (_, link) in list(self._links.items()):
            link.end(StreamError("system-shutdown", "This worker restarts; please reconnect."))
            await self.detach(host, link)

    # stanzas

    def to_component(self, sender: JID, to: JID, stanza: Stanza, session: Session | None) -> int | Awaitable[int]:
        """A stanza for a component's host (`HostHandler`). Raises StanzaError (remote-server-timeout) while it is away.

        The presence of accounts is not sent back: nobody asked for the component in particular.
        """
        if to.domain not in self._places:
            if stanza.kind == "presence" and session is None:
                return 0
            raise StanzaError("remote-server-timeout", f"{to.domain} is not connected now.")
        if stanza.kind != "message" or session is None:
            self._carry(to.domain, stanza.encode())
            return 0
        hooks = self._server.hooks
        context = MessageContext(stanza, sender, to, session, session.user, None)
        if hooks.message.run(context):
            return 0
        hooks.message_archive.run(context)
        self._server.router.deliveries.when_stored(session, context.batch, stanza, partial(self._deliver, context))
        return context.batch

    def _deliver(self, context: MessageContext) -> None:
        self._carry(context.to.domain, context.stanza.encode())
        self._server.hooks.message_delivered.run(context)

    def _carry(self, host: str, data: bytes) -> None:
        place = self._places.get(host)
        if place is None:
            self._bounce(data)
        elif place.worker != self._server.bus.worker:
            self._server.registry.tell(place.worker, self._part(Carry(host, data)))
        elif host in self._links:
            self._links[host][1].send(data)
        else:
            self._server.spawn(self._carry_on(host, data, place.worker))

    async def _carry_on(self, host: str, data: bytes, missing: int) -> None:
        """A stanza came too late at a worker: the component may be on another by now."""
        raw = await self._server.bus.hget(KEY, host)
        place = _decode(raw) if raw is not None else None
        if place is None or place.worker == missing:
            self._bounce(data)
        else:
            self._places[host] = place
            self._carry(host, data)

    def _bounce(self, data: bytes) -> None:
        stanza = parse_stanza(data)
        if stanza.kind != "presence":
            self._server.router.bounce(stanza, StanzaError("remote-server-timeout", "It is not connected now."))

    def from_component(self, host: str, stanza: Stanza) -> int | Awaitable[int]:
        """A component sends a stanza. Raises StreamError for one that is not from its host, or to nobody."""
        try:
            sender = parse_jid(stanza.from_ or "")
        except ValueError:
            raise StreamError("invalid-from", f"You are {host}.") from None
        if sender.domain != host:
            raise StreamError("invalid-from", f"You are {host}.")
        if not stanza.to:
            raise StreamError("improper-addressing", "Each stanza says to whom it goes.")
        router = self._server.router
        try:
            to = parse_jid(stanza.to)
        except ValueError as error:
            if stanza.type != "error":
                self._carry(host, iq_error(stanza, StanzaError("jid-malformed", str(error)).element()).encode())
            return 0
        return router.route(sender, to, stanza)

    # between workers

    def _part(self, what: Place | Left | Ask | Has | Carry) -> Part:
        return Part(KEY, self._server.bus.worker, _encode(what))

    def _tell_all(self, what: Place | Left) -> None:
        self._server.registry.tell_all(self._part(what))

    def _heard(self, worker: int, data: bytes) -> None:
        what = _decode(data)
        if isinstance(what, Carry):
            self._carry(what.host, what.data)
        elif isinstance(what, Ask):
            here = self._links.get(what.host, (0, None))[0] == what.uid
            self._server.registry.tell(worker, self._part(Has(what.uid, here)))
        elif isinstance(what, Has):
            self._answered(what.uid, what.here)
        elif isinstance(what, Place):
            self._places[what.host] = what
            uid, link = self._links.get(what.host, (what.uid, None))
            if uid != what.uid:  # two were let in while the bus was torn; the later one stays
                del self._links[what.host]
                link.end(StreamError("conflict", f"{what.host} has connected to another worker."))
        else:
            self._forget(what.host, what.uid)

    def _forget(self, host: str, uid: int) -> None:
        place = self._places.get(host)
        if place is not None and place.uid == uid:
            del self._places[host]

    def _undelivered(self, worker: int, data: bytes) -> None:
        what = _decode(data)
        if isinstance(what, Carry):
            self._server.spawn(self._carry_on(what.host, what.data, worker))
        elif isinstance(what, Ask):
            self._answered(what.uid, False)

    def _worker_gone(self, worker: int) -> None:
        for place in [place for place in self._places.values() if place.worker == worker]:
            self._forget(place.host, place.uid)
            self._server.spawn(self._server.bus.swap(KEY, place.host, _encode(place), None))

    def _reloaded(self) -> None:
        self._server.spawn(self._read())

    async def _read(self) -> None:
        """Read anew where components are, after a time in which messages of other workers may have been missed."""
        bus = self._server.bus
        for host, (uid, _) in list(self._links.items()):
            place = Place(host, bus.worker, uid)
            await bus.hset(KEY, host, _encode(place))
            self._tell_all(place)
        places = [_decode(data) for data in (await bus.hgetall(KEY)).values()]
        self._places = {place.host: place for place in places if self._alive(place)}


def setup(server: Server) -> None:
    """Route stanzas for the hosts of components, if the operator expects any."""
    if server.config.components:
        server.components = Components(server)

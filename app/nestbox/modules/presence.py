"""Presence (RFC 6121, section 4): who is available, told to those who may know.

A presence is serialised once. For each worker that has sessions of contacts one bus message carries it with the bare
JIDs that are to have it; that worker hands it to its own available sessions, whose block lists it knows. Probes go to
every worker, so that two who become available at the same moment on different workers see each other, whichever was
first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.core.jid import JID, parse_jid
from nestbox.core.registry import Broadcast, Entry, Probe
from nestbox.modules.subscriptions import TYPES, Subscriptions
from nestbox.wire import ns
from nestbox.wire.element import el
from nestbox.wire.stanza import PRESENCE, Stanza, parse_stanza, readdress

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from nestbox.core.server import Server
    from nestbox.core.session import Session
    from nestbox.core.users import User

__all__ = ["RFCS", "setup"]

RFCS = ("RFC 6121, sections 3 and 4",)
PRIORITY = f"{{{ns.CLIENT}}}priority"
PRESENCE_BYTES = 16 * 1024  # it is kept for each session and sent to every contact
_SEES_US = ("from", "both")
_SEEN_BY_US = ("to", "both")


class _Presence:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._registry = server.registry
        self._users = server.users
        self._subscriptions = Subscriptions(server)

    # from our clients

    def from_client(self, session: Session, stanza: Stanza, to: JID | None) -> int | Awaitable[int]:
        """Every presence of a client (`Router.presence`)."""
        kind = stanza.type
        if kind in TYPES:
            if to is None:
                raise StanzaError("bad-request", "Whose subscription?")
            return _done(self._subscriptions.outbound(session.user, to, stanza))
        if kind not in (None, "unavailable", "probe", "error"):
            raise StanzaError("bad-request", "There is no such type of presence.")
        if to is not None:
            return self._directed(session, stanza, to)
        if kind is None:
            return self._available(session, stanza)
        if kind == "unavailable":
            return self._unavailable(session, stanza)
        return 0  # a probe or an error for nobody

    async def _available(self, session: Session, stanza: Stanza) -> int:
        priority = _priority(stanza)
        self._server.hooks.presence_out.run(session, stanza)
        data = _without_to(stanza)
        if len(data) > PRESENCE_BYTES:
            text = f"A presence has at most {PRESENCE_BYTES} bytes."
            raise StanzaError("policy-violation", text, limit="presence_bytes")
        user, entry = session.user, session.entry
        contacts = await self._users.contacts(user)
        if session.ended:
            return 0
        before = entry.priority
        session.presence = data
        entry.priority = priority
        if before is None or before < 0 <= priority:
            self._server.hooks.session_available.run(session)  # at once: messages may come from now on
        if priority != before:
            await self._registry.update(session)  # the others must know it before our probes come
        if session.ended:
            return 0
        self._broadcast(user, contacts, session.full, data)
        if before is None:
            await self._arrive(session, contacts)
        if not session.ended:
            self._server.hooks.presence_sent.run(session, stanza)
        return 0

    async def _arrive(self, session: Session, contacts: dict[str, str]) -> None:
        """After initial presence (sections 4.2 and 3.1.3): what the contacts' presence is, and who asks for ours."""
        user = session.user
        seen = [jid for jid, state in contacts.items() if state in _SEEN_BY_US and not _blocks(user, jid)]
        self._registry.tell_all(Probe([user.jid, *seen], session.full))
        domain = self._server.router.domain
        elsewhere = [jid for jid in seen if jid.rpartition("@")[2] != domain]
        self._to_hosts(session.full, elsewhere, Stanza(el(PRESENCE, {"type": "probe", "from": session.full})).encode())
        if not user.requests:
            return
        user.requests = False  # unless we hear otherwise while we look
        requests = await self._server.store.roster.requests(user.id)
        user.requests = user.requests or bool(requests)
        for jid, request in requests:
            if not _blocks(user, jid):
                session.send(request)

    async def _unavailable(self, session: Session, stanza: Stanza) -> int:
        data = _without_to(stanza)
        if session.entry.priority is None:
            self._undirect(session, {}, data)  # section 4.6.3: it may have gone to rooms and others all the same
            return 0
        contacts = await self._users.contacts(session.user)
        if session.ended:
            return 0
        self._broadcast(session.user, contacts, session.full, data)  # while this session still is to have it, too
        session.presence = None
        session.entry.priority = None
        self._undirect(session, contacts, data)
        self._server.hooks.presence_sent.run(session, stanza)
        await self._registry.update(session)
        return 0

    def _directed(self, session: Session, stanza: Stanza, to: JID) -> int | Awaitable[int]:
        """Presence for one entity (section 4.6); it is remembered, so that it learns when the session goes."""
        address = str(to)
        if stanza.type is None:
            directed = session.directed or set()
            if address not in directed and len(directed) >= self._server.config.limits.directed_presences:
                text = "You have sent your presence to too many."
                raise StanzaError("policy-violation", text, limit="directed_presences")
            directed.add(address)
            session.directed = directed
            self._server.hooks.presence_out.run(session, stanza)
        elif stanza.type == "unavailable" and session.directed:
            session.directed.discard(address)
        if to.domain != self._server.router.domain:
            return self._server.router.elsewhere(session.jid, to, stanza, session)
        return self.arriving(session.jid, to, stanza)

    # towards contacts

    def _broadcast(self, user: User, contacts: dict[str, str], full: str, data: bytes) -> None:
        """Send a presence to the contacts that may see it and to the account's own sessions (sections 4.2.2, 4.4.2)."""
        domain = self._server.router.domain
        by_worker: dict[int, list[str]] = {}
        elsewhere: list[str] = []
        for jid, state in ((user.jid, "both"), *contacts.items()):
            if state not in _SEES_US or _blocks(user, jid):
                continue
            for worker in {entry.worker for entry in self._registry.available(jid)}:
                by_worker.setdefault(worker, []).append(jid)
            if jid.rpartition("@")[2] != domain:
                elsewhere.append(jid)
        for worker, bares in by_worker.items():
            self._registry.tell(worker, Broadcast(bares, full, data))
        self._to_hosts(full, elsewhere, data)

    def _to_hosts(self, full: str, addresses: Iterable[str], data: bytes) -> None:
        """A presence for addresses on our services' hosts, such as rooms; other domains have no way yet."""
        hosts = self._server.router.hosts
        for address in addresses:
            to = parse_jid(address)
            host = hosts.get(to.domain)
            if host is not None:
                outcome = host(parse_jid(full), to, parse_stanza(readdress(data, address)), None)
                if not isinstance(outcome, int):
                    self._server.spawn(_done(outcome))

    def broadcast_in(self, op: Broadcast) -> None:
        """Hand a presence to our sessions of these accounts, unless they block the sender."""
        sender = parse_jid(op.sender)
        for bare in op.bares:
            data = readdress(op.data, bare)
            for session in self._sessions_here(bare):
                if not session.user.blocks(sender):
                    session.send(data, False, op.sender)

    def probed(self, op: Probe) -> None:
        """Send the asker what our sessions of these accounts last said (section 4.3.2)."""
        asker = parse_jid(op.asker)
        here = asker.domain == self._server.router.domain
        if asker.resource:
            entry = self._registry.of(asker.bare).get(asker.resource)
            entries = [entry] if entry is not None else []
        else:
            entries = self._registry.available(asker.bare)
        if here and not entries:
            return
        for bare in op.bares:
            for session in self._sessions_here(bare):
                if session.presence is None or session.full == op.asker:
                    continue
                if op.forced or not session.user.blocks(asker):
                    if not here:
                        self._to_hosts(session.full, [op.asker], session.presence)
                    data = readdress(session.presence, op.asker)
                    for entry in entries:
                        self._registry.deliver(entry, data, False)

    def _sessions_here(self, bare: str) -> list[Session]:
        worker, sessions = self._registry.worker, self._registry.sessions
        found = (
            sessions.get(entry.jid)
            for entry in self._registry.of(bare).values()
            if entry.worker == worker and entry.priority is not None
        )
        return [session for session in found if session is not None]

    # the end of a session

    def ended(self, session: Session) -> None:
        """A session is gone: it is unavailable from now on (section 4.5), unless its address has a new holder."""
        if session.presence is None and not session.directed:
            return
        was_available, session.presence = session.presence is not None, None
        holder = self._registry.of(session.entry.bare).get(session.entry.resource)
        if holder is not None and holder.priority is not None:
            return
        data = _gone(session.full)
        if session.user.contacts is not None:
            self._say_gone(session, session.user.contacts, data, was_available)
        else:
            self._server.spawn(self._say_gone_later(session, data, was_available))

    async def _say_gone_later(self, session: Session, data: bytes, was_available: bool) -> None:
        self._say_gone(session, await self._users.contacts(session.user), data, was_available)

    def _say_gone(self, session: Session, contacts: dict[str, str], data: bytes, was_available: bool) -> None:
        if was_available:
            self._broadcast(session.user, contacts, session.full, data)
        self._undirect(session, contacts if was_available else {}, data)

    def _undirect(self, session: Session, contacts: dict[str, str], data: bytes) -> None:
        """Tell those who got directed presence that it is over (section 4.6.3), unless ``contacts`` were told."""
        directed, session.directed = session.directed, None
        others = []
        for address in directed or ():
            to = parse_jid(address)
            if to.domain != self._server.router.domain:
                others.append(address)
            elif contacts.get(to.bare) not in _SEES_US and to.bare != session.entry.bare:
                self._server.router.send(parse_stanza(readdress(data, address)))
        self._to_hosts(session.full, others, data)

    def lost(self, entry: Entry) -> None:
        """A worker has died with this session; nobody has resumed it."""
        if entry.priority is not None:
            self._server.spawn(self._lost(entry))

    async def _lost(self, entry: Entry) -> None:
        user = await self._users.load(entry.bare.partition("@")[0])
        if user is not None:
            contacts = await self._users.contacts(user)
            if self._registry.of(entry.bare).get(entry.resource) is None:
                self._broadcast(user, contacts, entry.jid, _gone(entry.jid))

    # what arrives for an account

    def arriving(self, sender: JID, to: JID, stanza: Stanza) -> int | Awaitable[int]:
        """A presence for an address of ours, from a client, a service or another server (`Router.presence_in`)."""
        if not to.local:
            return 0  # the server itself is always there and asks nobody
        if stanza.type in TYPES:
            return _done(self._subscriptions.inbound(sender.bare_jid, to.bare_jid, stanza))
        return self._arriving(sender, to, stanza)

    async def _arriving(self, sender: JID, to: JID, stanza: Stanza) -> int:
        user = await self._users.load(to.local)
        if user is None or self._server.hooks.inbound.run(user, sender, stanza):
            return 0  # silence tells nobody who has an account here (RFC 6121, section 8.5.1)
        if stanza.type == "probe":
            state = (await self._users.contacts(user)).get(sender.bare)
            if state in _SEES_US or sender.bare == user.jid:
                self._registry.tell_all(Probe([user.jid], str(sender)))
                kind = "" if self._registry.available(user.jid) else "unavailable"
            else:
                kind = "unsubscribed"
            # Section 4.3.2. Who is of this server knows by its roster what it may see.
            if kind == "unavailable" or (kind and sender.domain != self._server.router.domain):
                answer = el(PRESENCE, {"type": kind, "from": user.jid, "to": str(sender)})
                self._server.router.send(Stanza(answer))
            return 0
        if to.resource:
            entry = self._registry.of(to.bare).get(to.resource)
            entries = [entry] if entry is not None else []
        else:
            entries = self._registry.available(to.bare)
        data = stanza.encode()
        for entry in entries:
            self._registry.deliver(entry, data, stanza.type == "error")
        return 0


def _priority(stanza: Stanza) -> int:
    """The priority, 0 by default (section 4.7.2.3). Raises StanzaError."""
    element = stanza.find(PRIORITY)
    if element is None:
        return 0
    try:
        priority = int((element.text or "").strip())
    except ValueError:
        raise StanzaError("bad-request", "A priority is a number.") from None
    if not -128 <= priority <= 127:
        raise StanzaError("bad-request", "A priority is between -128 and 127.")
    return priority


def _without_to(stanza: Stanza) -> bytes:
    """The stanza of a client in canonical bytes, as it is kept; it came without ``to``."""
    stanza.element.attrib.pop("to", None)
    return stanza.encode()


def _gone(full: str) -> bytes:
    return Stanza(el(PRESENCE, {"type": "unavailable", "from": full})).encode()


def _blocks(user: User, bare: str) -> bool:
    return bool(user.blocked) and user.blocks(parse_jid(bare))


async def _done(outcome: Awaitable[object]) -> int:
    """A step that no commit has to wait for."""
    await outcome
    return 0


def setup(server: Server) -> None:
    """Take over all presence."""
    presence = _Presence(server)
    server.router.presence = presence.from_client
    server.router.presence_in = presence.arriving
    server.registry.on(Broadcast, presence.broadcast_in)
    server.registry.on(Probe, presence.probed)
    server.registry.lost = presence.lost
    server.hooks.session_ended.add(presence.ended)

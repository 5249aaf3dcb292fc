"""Where a stanza goes: by the class of its address, its kind and its namespace (RFC 6120, 10; RFC 6121, 8).

The usual way is synchronous: all it needs is in memory. Only what must ask the store becomes a coroutine, and the
client's next stanza waits for it, since stanzas are handled in order (RFC 6120, section 10.1).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING

import msgspec

from nestbox.bus import BusError
from nestbox.core.delay import add_delay
from nestbox.core.deliveries import Deliveries
from nestbox.core.errors import StanzaError, StreamError
from nestbox.core.hooks import IqContext, IqHandler, MessageContext
from nestbox.core.ids import id_to_ms
from nestbox.core.jid import JID, parse_jid
from nestbox.core.registry import Claim, Deliver, Entry, Part
from nestbox.core.users import ABSENT
from nestbox.wire.stanza import Stanza, id_by, iq_error, iq_result, parse_stanza

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.core.session import Session

__all__ = ["HostHandler", "Outcome", "PresenceHandler", "Router"]

# What handling a stanza gives: the commit batch that its acknowledgement waits for, 0 for none; now or later.
Outcome = "int | Awaitable[int]"
HostHandler = Callable[[JID, JID, Stanza, "Session | None"], "int | Awaitable[int]"]
PresenceHandler = Callable[["Session", Stanza, "JID | None"], "int | Awaitable[int]"]

_log = logging.getLogger("nestbox.router")
_IQ_TYPES = frozenset(("get", "set", "result", "error"))
_MESSAGE_TYPES = frozenset((None, "normal", "chat", "groupchat", "headline", "error"))
_ONE_TO_ONE = frozenset((None, "normal", "chat"))


class Router:
    """Routes stanzas of clients (`from_client`) and of our own services (`send`)."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.domain = server.config.domain
        self.deliveries = Deliveries(server.store.committer, self.bounce)
        self._iq: dict[tuple[str, str, str], IqHandler] = {}
        # Hosts under our domain that are not the account host, such as the rooms' one.
        self.hosts: dict[str, HostHandler] = {}
        # Set by the module for RFC 6121: every presence of a client; and presence arriving for an account.
        self.presence: PresenceHandler = lambda session, stanza, to: 0
        self.presence_in: Callable[[JID, JID, Stanza], int | Awaitable[int]] = lambda sender, to, stanza: 0
        # Set by XEP-0352: whether a stanza may not wait for an inactive client.
        self.urgent: Callable[[Stanza], bool] = lambda stanza: True

    def iq(self, where: str, kind: str, tag: str, handler: IqHandler) -> None:
        """Say who answers iqs: ``kind`` is 'get' or 'set', ``tag`` the payload's.

        ``where`` is 'account', 'host', or 'nobody' for the bare JID of an account that there is not.

        The handler returns the payload of the result (an Element, its canonical bytes, or None), or a coroutine of it,
        or raises StanzaError.
        """
        assert (where, kind, tag) not in self._iq, f"two handlers for {where} {kind} {tag}"
        self._iq[where, kind, tag] = handler

    # from a client

    def from_client(self, session: Session, stanza: Stanza) -> int | Awaitable[int]:
        """Handle one stanza of a client; see `Outcome`. Raises StreamError for a forged ``from``."""
        attributes = stanza.element.attrib
        claimed = attributes.get("from")
        if claimed is not None and claimed != session.full and claimed != session.entry.bare:
            self._check_from(session, claimed)
        attributes["from"] = session.full
        try:
            to_text = attributes.get("to")
            try:
                to = parse_jid(to_text) if to_text else None
            except ValueError as error:
                raise StanzaError("jid-malformed", str(error)) from None
            if to is not None and str(to) != to_text:
                attributes["to"] = str(to)  # archives find it by one spelling
            if to is not None and self._server.hooks.outbound.run(session, to, stanza):
                return 0
            if stanza.kind == "message":
                outcome = self._message(session.jid, to or session.jid.bare_jid, stanza, session)
            elif stanza.kind == "presence":
                outcome = self.presence(session, stanza, to)
            else:
                outcome = self._iq_stanza(session.jid, to or session.jid.bare_jid, stanza, session)
        except StanzaError as error:
            self.bounce(stanza, error)
            return 0
        return outcome if isinstance(outcome, int) else self.guarded(stanza, outcome)

    @staticmethod
    def _check_from(session: Session, claimed: str) -> None:
        """RFC 6120, section 8.1.2.1: another spelling of the same address is fine, another address is not."""
        try:
            if str(parse_jid(claimed)) in (session.full, session.entry.bare):
                return
        except ValueError:
            pass
        raise StreamError("invalid-from", f"You are {session.full}.")

    async def guarded(self, stanza: Stanza, outcome: Awaitable[int]) -> int:
        """Wait for an outcome; what goes wrong is told to the stanza's sender. Raises StreamError."""
        try:
            return await outcome
        except StanzaError as error:
            self.bounce(stanza, error)
        except StreamError:
            raise
        except Exception:
            _log.exception("a %s could not be handled", stanza.kind)
            self.bounce(stanza, StanzaError("internal-server-error", "The server could not do this now."))
        return 0

    def bounce(self, stanza: Stanza, error: StanzaError) -> None:
        """Send a stanza back with an error, unless it is one itself (RFC 6120, section 8.3.1)."""
        self._server.counts.refused(error)
        if stanza.type == "error" or (stanza.kind == "iq" and stanza.type == "result"):
            return
        answer = iq_error(stanza, error.element())
        if stanza.from_:
            self.send(answer)

    # from our own services

    def send(self, stanza: Stanza) -> None:
        """Route a stanza of the server or a service; ``from`` and ``to`` are set. It asks nobody's leave."""
        to = parse_jid(stanza.to or "")
        if to.domain != self.domain:
            host = self.hosts.get(to.domain)
            if host is None:
                _log.debug("no way to %s", to.domain)
                return
            try:
                outcome = host(parse_jid(stanza.from_ or self.domain), to, stanza, None)
            except StanzaError as error:
                self.bounce(stanza, error)
                return
            if not isinstance(outcome, int):
                self._server.spawn(self.guarded(stanza, outcome))
            return
        if to.is_full:
            entry = self._server.registry.of(to.bare).get(to.resource)
            if entry is not None:
                self._server.registry.deliver(entry, stanza.encode(), self.urgent(stanza))
            return
        if stanza.kind == "iq":
            self._server.questions.answered(stanza)
            return
        data = stanza.encode()
        for entry in self._server.registry.available(to.bare):
            if stanza.kind != "message" or entry.priority >= 0:  # RFC 6121, section 8.5.2.1.1
                self._server.registry.deliver(entry, data, self.urgent(stanza))

    def route(self, sender: JID, to: JID, stanza: Stanza) -> int | Awaitable[int]:
        """Route a stanza of a service as if a client had sent it: with archive, offline messages and errors."""
        try:
            if stanza.kind == "message":
                outcome = self._message(sender, to, stanza, None)
            elif stanza.kind == "presence" and to.domain != self.domain:
                outcome = self.elsewhere(sender, to, stanza, None)
            elif stanza.kind == "presence":
                outcome = self.presence_in(sender, to, stanza)
            else:
                outcome = self._iq_stanza(sender, to, stanza, None)
        except StanzaError as error:
            self.bounce(stanza, error)
            return 0
        return outcome if isinstance(outcome, int) else self.guarded(stanza, outcome)

    # messages (RFC 6121, section 8)

    def _message(self, sender: JID, to: JID, stanza: Stanza, session: Session | None) -> int | Awaitable[int]:
        if stanza.type not in _MESSAGE_TYPES:
            stanza.element.set("type", "normal")  # RFC 6121, section 5.2.2
        if to.domain != self.domain:
            return self.elsewhere(sender, to, stanza, session)
        if not to.local:
            raise StanzaError("service-unavailable", "The server itself takes no messages.")
        recipient = self._server.users.peek(to.local)
        owner = session.user if session is not None else None
        context = MessageContext(stanza, sender, to, session, owner, recipient)
        if recipient is None or recipient.undecided or (owner is not None and owner.undecided):
            return self._message_cold(context)
        return self._message_warm(context)

    async def _message_cold(self, context: MessageContext) -> int:
        context.recipient = await self._server.users.await_account(context.to.local) or ABSENT
        people = [user for user in (context.owner, context.recipient) if user is not None]
        while undecided := [user for user in people if user.undecided]:
            await self._server.users.contacts(undecided[0])
        outcome = self._message_warm(context)
        return outcome if isinstance(outcome, int) else await outcome

    def _message_warm(self, context: MessageContext) -> int | Awaitable[int]:
        stanza, to, recipient = context.stanza, context.to, context.recipient
        hooks = self._server.hooks
        if recipient is ABSENT or not recipient.enabled:
            raise StanzaError("service-unavailable")
        if hooks.inbound.run(recipient, context.sender, stanza):
            return 0
        if hooks.message.run(context):
            return context.work or 0
        context.targets = targets = self._targets(to, stanza.type)
        kind = stanza.type
        if not targets and (kind == "groupchat" or (to.resource and self._is_for_another(to, kind))):
            raise StanzaError("service-unavailable")
        hooks.message_archive.run(context)
        if not targets and not hooks.message_undelivered.run(context) and kind in _ONE_TO_ONE and not context.stored:
            raise StanzaError("service-unavailable")
        self.deliveries.when_stored(context.session, context.batch, stanza, partial(self._deliver, context))
        return context.batch

    def _deliver(self, context: MessageContext) -> None:
        """Hand a message out that is stored; sessions may have come and gone since it was."""
        stanza, to = context.stanza, context.to
        if context.targets:
            context.targets = self._targets(to, stanza.type)
            if context.targets:
                self.hand_out(context.targets, stanza, context.archive_id or 0)
            else:
                self._server.spawn(self.reroute(to.bare, stanza.encode()))
        self._server.hooks.message_delivered.run(context)

    def _is_for_another(self, to: JID, kind: str | None) -> bool:
        """Whether only other resources than one that is gone could get a message (RFC 6121, section 8.5.3.2.1).

        Where there is none, it is kept: the session may be one that can be resumed.
        """
        return kind in (None, "normal") and bool(self._targets(to.bare_jid, kind))

    def _targets(self, to: JID, kind: str | None) -> list[Entry]:
        """The sessions that get the message itself (RFC 6121, sections 8.5.2 and 8.5.3)."""
        entries = self._server.registry.of(to.bare)
        if to.resource:
            entry = entries.get(to.resource)
            if entry is not None:
                return [entry]
            if kind != "chat":
                return []
        elif kind in ("groupchat", "error"):
            return []
        return [entry for entry in entries.values() if entry.priority is not None and entry.priority >= 0]

    def hand_out(self, targets: list[Entry], stanza: Stanza, stored_id: int = 0) -> None:
        """Give one stanza to sessions, serialised once; see `Session.send`."""
        data = stanza.encode()
        registry = self._server.registry
        urgent: bool | None = None
        for entry in targets:
            if entry.worker == registry.worker:
                session = registry.sessions.get(f"{entry.bare}/{entry.resource}")
                if session is None:  # cannot be, but then it must not be lost either
                    self._server.spawn(self.reroute(entry.bare, data))
                    continue
                if session.held is None:
                    session.send(data, stored_id=stored_id)
                    continue
            if urgent is None:
                urgent = self.urgent(stanza)
            registry.deliver(entry, data, urgent, stored_id)

    # iqs (RFC 6120, section 8.2.3)

    def _iq_stanza(self, sender: JID, to: JID, stanza: Stanza, session: Session | None) -> int | Awaitable[int]:
        kind = stanza.type
        if kind not in _IQ_TYPES or not stanza.id:
            raise StanzaError("bad-request", "An iq needs an id and a type of get, set, result or error.")
        asking = kind in ("get", "set")
        if asking and len(stanza.element) != 1:
            raise StanzaError("bad-request", "An iq of type get or set has exactly one child.")
        if to.domain != self.domain:
            return self.elsewhere(sender, to, stanza, session)
        if to.is_full and to.local:
            return self._iq_to_session(sender, to, stanza, session)
        if not asking:
            self._server.questions.answered(stanza)
            return 0
        return self._iq_answer(sender, to, stanza, session)

    def _iq_to_session(self, sender: JID, to: JID, stanza: Stanza, session: Session | None) -> int | Awaitable[int]:
        user = self._server.users.peek(to.local)
        entry = self._server.registry.of(to.bare).get(to.resource)
        if entry is None:
            raise StanzaError("service-unavailable")
        if user is None:
            return self._iq_to_session_cold(sender, to, stanza, session)
        if not self._server.hooks.inbound.run(user, sender, stanza):
            deliver = partial(self._server.registry.deliver, entry, stanza.encode(), True)
            self.deliveries.when_stored(session, 0, stanza, deliver)
        return 0

    async def _iq_to_session_cold(self, sender: JID, to: JID, stanza: Stanza, session: Session | None) -> int:
        if await self._server.users.load(to.local) is None:
            raise StanzaError("service-unavailable")
        outcome = self._iq_to_session(sender, to, stanza, session)
        return outcome if isinstance(outcome, int) else await outcome

    async def _iq_answer(self, sender: JID, to: JID, stanza: Stanza, session: Session | None) -> int:
        payload = stanza.payload
        account = to.local or None
        own = account is not None and sender.bare == to.bare
        where = "account" if account else "host"
        if account is not None and not own:
            user = await self._server.users.load(account)
            try:
                if user is None or not user.enabled:
                    where = "nobody"
                elif self._server.hooks.inbound.run(user, sender, stanza):
                    return 0
            except StanzaError:  # who is blocked does not learn that there is somebody
                where = "nobody"
        handler = self._iq.get((where, stanza.type, payload.tag))
        if handler is None:
            raise StanzaError("service-unavailable")
        context = IqContext(stanza, payload, sender, to, session, account, own)
        result = handler(context)
        if isawaitable(result):
            result = await result
        answer = iq_result(stanza, None if isinstance(result, bytes) else result)
        if isinstance(result, bytes):
            answer.inner = result
        self._reply(session, answer)
        return 0

    def _reply(self, session: Session | None, answer: Stanza) -> None:
        if session is not None:
            session.send(answer.encode())
        else:
            self.send(answer)

    def elsewhere(self, sender: JID, to: JID, stanza: Stanza, session: Session | None) -> int | Awaitable[int]:
        """Hand a stanza to the host it is for, when that is not the account host. Raises StanzaError."""
        host = self.hosts.get(to.domain)
        if host is None:
            raise StanzaError("remote-server-not-found", f"This server does not talk to {to.domain}.")
        return host(sender, to, stanza, session)

    # deliveries that missed their session

    def delivered(self, op: Deliver) -> None:
        """Another worker hands us a stanza for a session; where it has moved or ended, nothing may get lost."""
        registry = self._server.registry
        session = registry.sessions.get(f"{op.bare}/{op.resource}")
        if session is not None:
            if op.followed:
                session.give_older(op.data, op.stored_id)
            else:
                session.send(op.data, op.urgent, stored_id=op.stored_id)
            return
        entry = registry.of(op.bare).get(op.resource)
        if entry is not None and entry.worker != registry.worker:
            registry.tell(entry.worker, msgspec.structs.replace(op, followed=True))
            return
        self._server.spawn(self.reroute(op.bare, op.data))

    async def undelivered(self, worker: int, payload: bytes) -> None:
        """Nobody took what we sent to another worker: forget its sessions, then find another way for the stanza."""
        registry = self._server.registry
        try:
            await registry.worker_lost(worker)
        except BusError as error:
            _log.warning("worker %d could not be reached, and the bus is away: %s", worker, error)
        op = registry.decode(payload)
        if isinstance(op, Deliver):
            await self.reroute(op.bare, op.data)
        elif isinstance(op, Part):
            registry.part_undelivered(worker, op)
        elif isinstance(op, Claim):
            self._server.resumption.owner_gone(op)

    async def reroute(self, bare: str, data: bytes) -> None:
        """Find another way for a stanza whose session is gone: other sessions, the offline store, or back."""
        stanza = parse_stanza(data)
        if stanza.kind == "iq" and stanza.type in ("get", "set"):
            self.bounce(stanza, StanzaError("service-unavailable"))
        if stanza.kind != "message" or stanza.type not in _ONE_TO_ONE or stanza.to is None:
            return
        to = parse_jid(stanza.to)
        if to.bare != bare or stanza.from_ == bare:
            return  # what the server made for this session alone: a carbon, a result of the archive
        recipient = await self._server.users.await_account(to.local)
        if recipient is None:
            return
        context = MessageContext(stanza, parse_jid(stanza.from_ or self.domain), to.bare_jid, None, None, recipient)
        context.stored = True  # it has been through the archive
        registry = self._server.registry
        others = [
            entry
            for entry in self._targets(to.bare_jid, "chat")
            if entry.worker != registry.worker or entry.jid in registry.sessions
        ]
        if not others:
            try:
                self._server.hooks.message_undelivered.run(context)
            except StanzaError as error:
                self.bounce(stanza, error)
            return
        # Those that were there when it came have it, directly or as a carbon; so has the archive.
        archive_id = id_by(stanza, bare)
        came = 0 if archive_id is None else id_to_ms(archive_id)
        if came:  # the ones that get it must not take it for news (XEP-0198, section 5)
            add_delay(stanza, self.domain, came)
        context.targets = [entry for entry in others if entry.since >= came // 1000]
        self.hand_out(context.targets, stanza, archive_id or 0)

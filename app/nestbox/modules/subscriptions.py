"""Presence subscriptions (RFC 6121, section 3 and appendix A): who may see whose presence, and how they agree on it.

A contact is in one of the nine states of appendix A.1. The tables below are those of appendices A.2 and A.3, reduced to
the changes: in every state that is not named a stanza changes nothing. The ``in`` part of a state is a request that
waits for the user's answer; it is kept beside the roster and handed out at each initial presence until it is answered.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.core.jid import JID, parse_jid
from nestbox.core.registry import Probe, Push, Waiting
from nestbox.modules.roster_items import push_item
from nestbox.store.errors import StoreFull
from nestbox.store.roster import Contact, Decide, RosterItem
from nestbox.wire import ns
from nestbox.wire.element import el
from nestbox.wire.stanza import PRESENCE, Stanza

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.core.users import User

__all__ = ["INBOUND", "OUTBOUND", "TYPES", "Subscriptions", "endings", "inbound", "state_of", "with_state"]

TYPES = frozenset(("subscribe", "subscribed", "unsubscribe", "unsubscribed"))
PREAUTH = f"{{{ns.PARS}}}preauth"
REQUEST_BYTES = 4096  # a longer request is kept without its children

OUTBOUND: dict[str, dict[str, str]] = {
    "subscribe": {"none": "none+out", "none+in": "none+out+in", "from": "from+out"},
    "unsubscribe": {
        "none+out": "none",
        "none+out+in": "none+in",
        "to": "none",
        "to+in": "none+in",
        "from+out": "from",
        "both": "from",
    },
    "subscribed": {"none+in": "from", "none+out+in": "from+out", "to+in": "both"},
    "unsubscribed": {
        "none+in": "none",
        "none+out+in": "none+out",
        "to+in": "to",
        "from": "none",
        "from+out": "none+out",
        "both": "to",
    },
}
INBOUND: dict[str, dict[str, str]] = {
    "subscribe": {"none": "none+in", "none+out": "none+out+in", "to": "to+in"},
    "unsubscribe": {
        "none+in": "none",
        "none+out+in": "none+out",
        "to+in": "to",
        "from": "none",
        "from+out": "none+out",
        "both": "to",
    },
    "subscribed": {"none+out": "to", "none+out+in": "to+in", "from+out": "both"},
    "unsubscribed": {
        "none+out": "none",
        "none+out+in": "none+in",
        "to": "none",
        "to+in": "none+in",
        "from+out": "from",
        "both": "from",
    },
}
_SEEN = ("from", "both")  # the states in which the contact sees the user's presence begin so
_UNSEEN = {"none": "from", "none+out": "from+out", "to": "both"}  # what approval in advance makes of a request


def state_of(contact: Contact) -> str:
    """The state of appendix A.1, as ``none``, ``to``, ``from`` or ``both`` with ``+out`` and ``+in``."""
    item = contact.item
    state = "none" if item is None else item.subscription
    if item is not None and item.ask:
        state += "+out"
    return state if contact.request is None else state + "+in"


def with_state(contact: Contact, jid: str, state: str, request: bytes | None = None) -> Contact:
    """The contact in another state; ``request`` is what it asks with when it has not asked before."""
    subscription, *parts = state.split("+")
    item = contact.item
    if item is not None or subscription != "none" or "out" in parts:
        item = replace(item or RosterItem(jid), subscription=subscription, ask="out" in parts)
    return Contact(item, (contact.request or request) if "in" in parts else None)


class Subscriptions:
    """Handles the four types of presence that ask for, grant and end subscriptions."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._limit = server.config.limits.roster_items

    # what an account's own client sends (appendix A.2)

    async def outbound(self, user: User, to: JID, stanza: Stanza) -> None:
        """A client of ``user`` has sent a subscription stanza. Raises StanzaError, StoreError."""
        to = to.bare_jid
        if to.bare == user.jid:
            raise StanzaError("not-allowed", "You always see your own presence.")
        router = self._server.router
        if to.domain != router.domain and to.domain not in router.hosts:
            raise StanzaError("remote-server-not-found", f"This server does not talk to {to.domain}.")
        kind = stanza.type
        before, after = await self._change(user, to.bare, lambda contact: _outbound(contact, to.bare, kind))
        changed = state_of(before) != state_of(after)
        element = stanza.element
        element.set("from", user.jid)
        element.set("to", to.bare)
        if kind == "unsubscribed" and state_of(before).startswith(_SEEN) and changed:
            self.hide(user.jid, to.bare)  # section 3.2.2: before the stanza itself
        self._push_changes(user, before, after)  # first, since the answer may come at once and bring the next change
        if changed or kind in ("subscribe", "unsubscribe"):
            await self._forward(JID(user.username, router.domain), to, stanza)
        if kind == "subscribed" and changed:
            self._approved(user, to.bare)  # section 3.1.5: now it may see us

    async def _forward(self, sender: JID, to: JID, stanza: Stanza) -> None:
        router = self._server.router
        if to.domain != router.domain:
            outcome = router.elsewhere(sender, to, stanza, None)
            if not isinstance(outcome, int):
                await outcome
        elif to.local:
            await self.inbound(sender, to, stanza)

    # what arrives for an account (appendix A.3)

    async def inbound(self, sender: JID, to: JID, stanza: Stanza) -> None:
        """A subscription stanza of ``sender`` has come for the account ``to``, which need not exist."""
        user = await self._server.users.load(to.local)
        if user is None or self._server.hooks.inbound.run(user, sender, stanza):
            return  # RFC 6121, section 8.5.1: silence, which tells nobody who has an account here
        kind = stanza.type
        request = _request_of(stanza)
        jid = sender.bare
        invited = kind == "subscribe" and await self._invited(user, sender, stanza)

        def decide(contact: Contact) -> Contact:
            return inbound(_in_advance(contact, jid) if invited else contact, jid, kind, request)

        try:
            before, after = await self._change(user, jid, decide)
        except StanzaError as error:
            self._server.counts.refused(error)
            return  # too many requests wait already; the sender may ask again later
        old, new = state_of(before), state_of(after)
        if kind == "subscribe":
            await self._asked(user, sender, stanza, old, new)
        elif old != new:
            self._server.registry.tell_all(Push(user.jid, _without_to(stanza), "interested"))
        self._push_changes(user, before, after)
        if old.startswith(_SEEN) and not new.startswith(_SEEN):
            self.hide(user.jid, jid)
        elif kind == "subscribe" and new.startswith(_SEEN):
            self._approved(user, jid)
        if invited:
            await self.outbound(user, sender, Stanza(el(PRESENCE, {"type": "subscribe"})))

    async def _invited(self, user: User, sender: JID, stanza: Stanza) -> bool:
        """XEP-0379, section 3.5: the asker has a token of the account, which is used up where it is needed."""
        preauth = stanza.find(PREAUTH)
        if preauth is None or self._server.preauthorised is None:
            return False
        item = await self._server.store.roster.get(user.id, sender.bare)
        seen = item is not None and item.subscription.startswith(_SEEN)
        return not seen and await self._server.preauthorised(user, sender, preauth.get("token", ""))

    def _approved(self, user: User, contact: str) -> None:
        self._server.registry.tell_all(Probe([user.jid], contact))
        self._server.hooks.contact_approved.run(user.jid, contact)

    async def _asked(self, user: User, sender: JID, stanza: Stanza, old: str, new: str) -> None:
        if new.startswith(_SEEN):  # it may already, or was approved before it asked (section 3.4)
            answer = el(PRESENCE, {"type": "subscribed", "from": user.jid, "to": sender.bare})
            await self._forward(JID(user.username, self._server.router.domain), sender.bare_jid, Stanza(answer))
        elif old != new:
            data = stanza.encode()
            for entry in self._server.registry.available(user.jid):
                self._server.registry.deliver(entry, data)

    # both

    async def _change(self, user: User, jid: str, decide: Decide) -> tuple[Contact, Contact]:
        try:
            before, after, _ = await self._server.store.roster.change(user.id, jid, decide, self._limit)
        except StoreFull as error:
            raise StanzaError("resource-constraint", str(error), limit=error.limit) from None
        if after.request is not None and before.request is None:
            self._server.registry.tell_all(Waiting(user.jid, "requests"))
        return before, after

    def _push_changes(self, user: User, before: Contact, after: Contact) -> None:
        if after.item is not None and after.item != before.item:
            push_item(self._server, user.jid, after.item)

    def hide(self, bare: str, contact: str) -> None:
        """Send ``contact`` unavailable presence of every available session of ``bare``."""
        for entry in self._server.registry.available(bare):
            gone = el(PRESENCE, {"type": "unavailable", "from": entry.jid, "to": contact})
            self._server.router.send(Stanza(gone))

    async def after_removal(self, user: User, item: RosterItem) -> None:
        """A contact was removed from the roster: end what subscriptions there were (RFC 6121, section 2.5.2)."""
        to = parse_jid(item.jid)
        sender = JID(user.username, self._server.router.domain)
        if item.subscription in _SEEN:
            self.hide(user.jid, item.jid)
        for kind in endings(item):
            with suppress(StanzaError):  # its server may be out of reach; ours has forgotten it all the same
                await self._forward(sender, to, Stanza(el(PRESENCE, {"type": kind, "from": user.jid, "to": item.jid})))


def endings(item: RosterItem) -> list[str]:
    """The types of presence that end what subscriptions there are with a contact that goes."""
    kinds = ["unsubscribe"] if item.ask or item.subscription in ("to", "both") else []
    return [*kinds, "unsubscribed"] if item.subscription in _SEEN else kinds


def _outbound(contact: Contact, jid: str, kind: str) -> Contact:
    state = state_of(contact)
    after = with_state(contact, jid, OUTBOUND[kind].get(state, state))
    if kind == "subscribed" and state in _UNSEEN:  # section 3.4.2: approved before it asks
        return Contact(replace(after.item or RosterItem(jid), approved=True), after.request)
    if kind == "unsubscribed" and after.item is not None:
        return Contact(replace(after.item, approved=False), after.request)
    return after


def inbound(contact: Contact, jid: str, kind: str, request: bytes = b"") -> Contact:
    """The contact after a stanza from it has come; ``request`` is what it asks with."""
    state = state_of(contact)
    if kind == "subscribe" and state in _UNSEEN and contact.item is not None and contact.item.approved:
        after = with_state(contact, jid, _UNSEEN[state])
        return Contact(replace(after.item, approved=False), None)
    return with_state(contact, jid, INBOUND[kind].get(state, state), request)


def _in_advance(contact: Contact, jid: str) -> Contact:
    """The contact as if it had been approved before it asked."""
    return Contact(replace(contact.item or RosterItem(jid), approved=True), None)


def _request_of(stanza: Stanza) -> bytes:
    data = stanza.encode()
    return data if len(data) <= REQUEST_BYTES else Stanza(el(PRESENCE, dict(stanza.element.attrib))).encode()


def _without_to(stanza: Stanza) -> bytes:
    copy = stanza.copy()
    copy.element.attrib.pop("to", None)
    return copy.encode()

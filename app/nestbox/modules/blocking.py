"""Blocking (XEP-0191): a list of addresses that an account wants to hear nothing from and tell nothing to.

An address may be a full or bare JID, a domain, or a domain with a resource (section 2). Nobody can block himself or the
server that he is on, since that would cut off his own devices.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.core.hooks import IqContext
from nestbox.core.jid import JID, parse_jid
from nestbox.core.registry import Account, Probe, Push
from nestbox.modules import Xep
from nestbox.modules.subscriptions import Subscriptions
from nestbox.wire import ns
from nestbox.wire.element import Element, el
from nestbox.wire.stanza import IQ, Stanza

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.core.session import Session
    from nestbox.core.users import User

__all__ = ["XEPS", "setup"]

XEPS = (Xep(191, "1.3"),)
LIST = f"{{{ns.BLOCKING}}}blocklist"
BLOCK = f"{{{ns.BLOCKING}}}block"
UNBLOCK = f"{{{ns.BLOCKING}}}unblock"
ITEM = f"{{{ns.BLOCKING}}}item"
BLOCKED = f"{{{ns.BLOCKING_ERRORS}}}blocked"
_SEES_US = ("from", "both")


class _Blocking:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._store = server.store.blocking
        self._subscriptions = Subscriptions(server)

    # what it does to stanzas (section 3.4)

    def inbound(self, user: User, sender: JID, stanza: Stanza) -> bool:
        if not user.blocked or not user.blocks(sender):
            return False
        if stanza.kind == "presence" or stanza.type in ("error", "result", "groupchat"):
            return True
        raise StanzaError("service-unavailable")

    def outbound(self, session: Session, to: JID, stanza: Stanza) -> bool:
        if not session.user.blocked or not session.user.blocks(to):
            return False
        if stanza.type in ("error", "result"):
            return True
        raise StanzaError("not-acceptable", "You have blocked this address.", type="cancel", extra=el(BLOCKED))

    # the list (sections 3.1 to 3.3)

    async def list(self, context: IqContext) -> Element:
        session = _own(context)
        session.blocking_pushes = True
        jids = await self._store.list(session.user.id)
        return el(LIST, None, *(el(ITEM, {"jid": jid}) for jid in jids))

    async def block(self, context: IqContext) -> None:
        user = _own(context).user
        jids = _items(context.payload)
        if not jids:
            raise StanzaError("bad-request", "Block whom?")
        for jid in jids:
            if jid.bare in (user.jid, self._server.config.domain):
                raise StanzaError("not-allowed", "You cannot block yourself or your server.")
        new = [jid for jid in jids if str(jid) not in user.blocked]
        if len(user.blocked) + len(new) > self._server.config.limits.blocked_items:
            raise StanzaError("resource-constraint", "The block list is full.", limit="blocked_items")
        contacts = await self._server.users.contacts(user)
        affected = [jid for jid in self._affected(contacts, new) if not user.blocks(jid)]
        await self._store.add(user.id, [str(jid) for jid in new])
        await self._changed(user, BLOCK, jids)
        for jid in affected:
            self._subscriptions.hide(user.jid, str(jid))

    async def unblock(self, context: IqContext) -> None:
        user = _own(context).user
        jids = _items(context.payload)
        contacts = await self._server.users.contacts(user)
        old = jids or [parse_jid(jid) for jid in user.blocked]
        if jids:
            await self._store.remove(user.id, [str(jid) for jid in jids])
        else:
            await self._store.clear(user.id)
        await self._changed(user, UNBLOCK, jids)
        for jid in self._affected(contacts, old):
            if not user.blocks(jid):
                self._server.registry.tell_all(Probe([user.jid], str(jid), True))

    async def _changed(self, user: User, tag: str, jids: list[JID]) -> None:
        user.blocked = frozenset(await self._store.list(user.id))
        registry = self._server.registry
        registry.tell_all(Account(user.username))  # the other workers read the list again
        payload = el(tag, None, *(el(ITEM, {"jid": str(jid)}) for jid in jids))
        push = Stanza(el(IQ, {"type": "set", "id": f"push-{secrets.token_urlsafe(6)}"}, payload))
        registry.tell_all(Push(user.jid, push.encode(), "blocking_pushes"))

    @staticmethod
    def _affected(contacts: dict[str, str], jids: list[JID]) -> list[JID]:
        """Of these addresses, and of the contacts they take in, those that see the account's presence."""
        found: dict[JID, None] = {}
        for jid in jids:
            if jid.local:
                if contacts.get(jid.bare) in _SEES_US:
                    found[jid] = None
                continue
            for bare, state in contacts.items():
                contact = parse_jid(bare)
                if state in _SEES_US and contact.domain == jid.domain:
                    found[JID(contact.local, contact.domain, jid.resource)] = None
        return list(found)


def _own(context: IqContext) -> Session:
    if not context.own or context.session is None:
        raise StanzaError("forbidden", "This is somebody else's block list.")
    return context.session


def _items(payload: Element) -> list[JID]:
    try:
        return list(dict.fromkeys(parse_jid(item.get("jid", "")) for item in payload if item.tag == ITEM))
    except ValueError as error:
        raise StanzaError("jid-malformed", str(error)) from None


def setup(server: Server) -> None:
    """Answer for the block list, and stand in every stanza's way."""
    blocking = _Blocking(server)
    server.router.iq("account", "get", LIST, blocking.list)
    server.router.iq("account", "set", BLOCK, blocking.block)
    server.router.iq("account", "set", UNBLOCK, blocking.unblock)
    server.hooks.inbound.add(blocking.inbound, priority=10)
    server.hooks.outbound.add(blocking.outbound, priority=10)
    server.host_features.add(ns.BLOCKING)
    server.account_features.add(ns.BLOCKING)

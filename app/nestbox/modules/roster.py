"""The contact list kept by the server (RFC 6121, section 2), with versions (section 2.6) and pushes.

A roster's version is a number that grows with each change. A client that says which version it has gets only what
changed since, as pushes. What a roster change means for subscriptions is in `nestbox.modules.subscriptions`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.core.hooks import IqContext
from nestbox.modules.roster_items import QUERY, item_element, push_bytes, push_item, read_item
from nestbox.modules.subscriptions import Subscriptions
from nestbox.store.errors import StoreFull
from nestbox.store.roster import Contact, RosterItem
from nestbox.wire import ns
from nestbox.wire.element import Element, el, to_bytes
from nestbox.wire.stanza import readdress

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.core.session import Session
    from nestbox.core.users import User

__all__ = ["RFCS", "setup"]

RFCS = ("RFC 6121, section 2",)


class _Roster:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._store = server.store.roster
        self._subscriptions = Subscriptions(server)

    async def get(self, context: IqContext) -> Element | None:
        session, user = _own(context)
        ver = context.payload.get("ver")
        while True:
            epoch = user.roster_epoch
            # The version first: what changes between the two reads is then sent once more, not lost.
            now = await self._store.version(user.id)
            changes = await self._store.changes(user.id, int(ver)) if _is_version(ver) else None
            items = await self._store.items(user.id) if changes is None else []
            if user.roster_epoch == epoch:  # else a push for this session may have been missed meanwhile
                break
        session.interested = True
        if changes is None:
            attributes = {} if ver is None else {"ver": str(now)}
            return el(QUERY, attributes, *map(item_element, items))
        # Section 2.6.3: an empty result, then one push for each item that changed. They are sent after the result.
        if changes:
            self._server.spawn(self._catch_up(session, changes))
        return None

    @staticmethod
    async def _catch_up(session: Session, changes: list[RosterItem]) -> None:
        for item in changes:
            session.send(readdress(push_bytes(item), session.full))

    async def set(self, context: IqContext) -> None:
        _, user = _own(context)
        wanted, remove = read_item(context.payload, user.jid)
        if remove:
            await self._remove(user, wanted.jid)
            return

        def decide(contact: Contact) -> Contact:
            item = contact.item or RosterItem(wanted.jid)
            return Contact(replace(item, name=wanted.name, groups=wanted.groups), contact.request)

        try:
            _, after, _ = await self._store.change(user.id, wanted.jid, decide, self._server.config.limits.roster_items)
        except StoreFull as error:
            self._server.counts.limits_hit += 1
            raise StanzaError("resource-constraint", str(error)) from None
        push_item(self._server, user.jid, after.item)

    async def _remove(self, user: User, jid: str) -> None:
        def decide(contact: Contact) -> Contact:
            if contact.item is None:
                raise StanzaError("item-not-found", f"{jid} is not in the roster.")
            return Contact(None, contact.request)

        before, _, ver = await self._store.change(user.id, jid, decide, self._server.config.limits.roster_items)
        push_item(self._server, user.jid, RosterItem(jid, subscription="remove", ver=ver))
        await self._subscriptions.after_removal(user, before.item)


def _own(context: IqContext) -> tuple[Session, User]:
    if not context.own or context.session is None:
        raise StanzaError("forbidden", "This is somebody else's roster.")
    return context.session, context.session.user


def _is_version(ver: str | None) -> bool:
    return ver is not None and ver.isascii() and ver.isdecimal() and len(ver) < 19


def setup(server: Server) -> None:
    """Answer roster queries of accounts, and say so in the stream features."""
    roster = _Roster(server)
    server.router.iq("account", "get", QUERY, roster.get)
    server.router.iq("account", "set", QUERY, roster.set)
    server.account_features.add(ns.ROSTER)
    server.stream_features.append(to_bytes(el(f"{{{ns.ROSTER_VERSIONING}}}ver")))
    server.stream_features.append(to_bytes(el(f"{{{ns.PRE_APPROVAL}}}sub")))

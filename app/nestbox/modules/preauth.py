"""Contacts by invitation (XEP-0379): the server approves who brings a token of a user's to see that user's presence."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from nestbox.core.registry import Probe
from nestbox.modules import Xep
from nestbox.modules.roster_items import push_item
from nestbox.store.errors import NoSuchAccount, StoreFull
from nestbox.store.roster import Contact, RosterItem

if TYPE_CHECKING:
    from nestbox.core.jid import JID
    from nestbox.core.server import Server
    from nestbox.core.users import User

__all__ = ["XEPS", "befriend", "setup"]

XEPS = (Xep(379, "0.3.3"),)


async def befriend(server: Server, one: User, other: User) -> None:
    """Make two accounts contacts that see each other, and tell their clients. Raises StoreError."""
    for user, peer in ((one, other), (other, one)):
        try:
            _, after, _ = await server.store.roster.change(
                user.id, peer.jid, lambda contact, jid=peer.jid: _both(contact, jid), server.config.limits.roster_items
            )
        except (StoreFull, NoSuchAccount):
            return
        push_item(server, user.jid, after.item)
    for user, peer in ((one, other), (other, one)):
        server.registry.tell_all(Probe([user.jid], peer.jid))


def _both(contact: Contact, jid: str) -> Contact:
    item = contact.item or RosterItem(jid)
    return Contact(replace(item, subscription="both", ask=False, approved=False), None)


class _Preauth:
    def __init__(self, server: Server) -> None:
        self._domain = server.config.domain
        self._store = server.store.invites

    async def accept(self, user: User, sender: JID, token: str) -> bool:
        """Whether somebody may see ``user``'s presence by a token of that user's; it is used up then."""
        invite = await self._store.get(token) if token.isascii() and len(token) <= 64 else None
        if invite is None or invite.user_id != user.id or not invite.contact or not invite.is_open(time.time()):
            return False
        if invite.username and sender.bare != f"{invite.username}@{self._domain}":
            return False
        return await self._store.use(token)


def setup(server: Server) -> None:
    """Approve the subscriptions that carry a good token."""
    server.preauthorised = _Preauth(server).accept

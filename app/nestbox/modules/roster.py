"""The contact list kept by the server (RFC 6121, section 2), with versions (section 2.6) and pushes.

A roster's version is a number that grows with each change. A client that says which version it has gets only what
changed since, as pushes. What a roster change means for subscriptions is in `nestbox.modules.subscriptions`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.core.hooks import IqContext
from nestbox.modules.roster_items import QUERY, item_bytes, push_bytes, push_item, read_item
from nestbox.modules.subscriptions import Subscriptions
from nestbox.store.errors import StoreFull
from nestbox.store.roster import Contact, RosterItem
from nestbox.wire import ns
from nestbox.wire.element import el, to_bytes
from nestbox.wire.stanza import readdress

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from nestbox.core.server import Server
    from nestbox.core.session import Session
    from nestbox.core.users import User

__all__ = ["RFCS", "setup"]

RFCS = ("RFC 6121, section 2",)
KEPT_BYTES = 8 * 1024 * 1024  # of rosters as XML, for clients that come back


class _Roster:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._store = server.store.roster
        self._subscriptions = Subscriptions(server)
        self._kept: deque[tuple[User, tuple[int, bytes]]] = deque()
        self._kept_bytes = 0

    def get(self, context: IqContext) -> bytes | Awaitable[bytes | None] | None:
        session, user = _own(context)
        ver = context.payload.get("ver")
        if user.roster is None or (_is_version(ver) and int(ver) != user.roster[0]):
            return self._get_later(session, user, ver)
        return self._answer(session, user.roster, ver)

    async def _get_later(self, session: Session, user: User, ver: str | None) -> bytes | None:
        while True:
            roster = user.roster or await self._read(user)
            epoch = user.roster_epoch
            changes = None
            if _is_version(ver) and int(ver) != roster[0]:
                changes = await self._store.changes(user.id, int(ver))
            if user.roster_epoch == epoch:  # else a push for this session may have been missed meanwhile
                break
        if changes is None:
            return self._answer(session, roster, ver)
        # Section 2.6.3: an empty result, then one push for each item that changed. They are sent after the result.
        session.interested = True
        if changes:
            self._server.spawn(self._catch_up(session, changes))
        return None

    @staticmethod
    def _answer(session: Session, roster: tuple[int, bytes], ver: str | None) -> bytes | None:
        session.interested = True
        version, items = roster
        if ver is not None and ver == str(version):
            return None
        attribute = b"" if ver is None else b' ver="%d"' % version
        return b'<query xmlns="jabber:iq:roster"%s>%s</query>' % (attribute, items)

    async def _read(self, user: User) -> tuple[int, bytes]:
        """The roster's version and its items as XML, which are kept for when the next client asks."""
        version, items = await self._server.users.read_roster(user)
        user.roster = roster = version, b"".join(map(item_bytes, items))
        if items:
            self._kept.append((user, roster))
            self._kept_bytes += len(roster[1])
        while self._kept_bytes > KEPT_BYTES:
            old, roster_then = self._kept.popleft()
            self._kept_bytes -= len(roster_then[1])
            if old.roster is roster_then:
                old.roster = None
        return roster

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
            raise StanzaError("resource-constraint", str(error), limit=error.limit) from None
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
    for features in (server.host_features, server.account_features):
        features.add(ns.ROSTER)
    server.stream_features.append(to_bytes(el(f"{{{ns.ROSTER_VERSIONING}}}ver")))
    server.stream_features.append(to_bytes(el(f"{{{ns.PRE_APPROVAL}}}sub")))

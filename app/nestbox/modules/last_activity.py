"""Last activity (XEP-0012): how long the server runs, and since when an account is away.

Only those who may see an account's presence are told (section 4).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.modules import Xep
from nestbox.modules.disco import check_sees
from nestbox.wire import ns
from nestbox.wire.element import Element, el

if TYPE_CHECKING:
    from nestbox.core.hooks import IqContext
    from nestbox.core.server import Server
    from nestbox.core.session import Session
    from nestbox.wire.stanza import Stanza

__all__ = ["XEPS", "setup"]

XEPS = (Xep(12, "2.0"),)
QUERY = f"{{{ns.LAST}}}query"
STATUS = f"{{{ns.CLIENT}}}status"


class _LastActivity:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._seen: dict[int, tuple[int, str]] = {}  # not written yet
        self._writing = False

    def of_host(self, context: IqContext) -> Element:
        return el(QUERY, {"seconds": str(int(time.time() - self._server.started))})

    async def of_account(self, context: IqContext) -> Element:
        try:
            await check_sees(self._server, context)
        except StanzaError:
            raise StanzaError("forbidden") from None
        if self._server.registry.available(context.to.bare):
            return el(QUERY, {"seconds": "0"})
        user = await self._server.users.load(context.account)
        last = None
        if user is not None:
            last = self._seen.get(user.id) or await self._server.store.accounts.last(user.id)
        if last is None:
            raise StanzaError("item-not-found", "This account has never been online.")
        seconds, status = last
        return el(QUERY, {"seconds": str(max(0, int(time.time()) - seconds))}, text=status or None)

    def presence(self, session: Session, stanza: Stanza) -> None:
        """The status text of the last unavailable presence is kept with its time (section 3)."""
        if stanza.type == "unavailable":
            status = stanza.find(STATUS)
            self._gone(session, "" if status is None else status.text or "")

    def ended(self, session: Session) -> None:
        if session.entry.priority is not None:  # else it has said good-bye, or never was available
            self._gone(session, "")

    def _gone(self, session: Session, status: str) -> None:
        if not self._server.registry.available(session.entry.bare):
            self._seen[session.user.id] = (int(time.time()), status)
            if not self._writing:
                self._writing = True
                self._server.spawn(self._write())

    async def _write(self) -> None:
        """One transaction after the other: thousands of sessions may end at once, when a link breaks."""
        try:
            while self._seen:
                seen = dict(self._seen)
                await self._server.store.accounts.touch_many(seen)
                for user_id, last in seen.items():
                    if self._seen[user_id] is last:
                        del self._seen[user_id]
        finally:
            self._writing = False


def setup(server: Server) -> None:
    """Answer for the host and for accounts, and remember when an account's last session ended."""
    last = _LastActivity(server)
    server.router.iq("host", "get", QUERY, last.of_host)
    server.router.iq("account", "get", QUERY, last.of_account)
    server.hooks.presence_sent.add(last.presence)
    server.hooks.session_ended.add(last.ended)
    server.host_features.add(ns.LAST)
    server.account_features.add(ns.LAST)

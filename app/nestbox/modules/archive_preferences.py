"""XEP-0441, Message Archive Management Preferences: whose messages an account keeps; in the namespace of XEP-0313."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestbox.core import registry as reg
from nestbox.core.errors import StanzaError
from nestbox.core.hooks import IqContext
from nestbox.core.jid import JID, parse_jid
from nestbox.modules import Xep
from nestbox.store.archive import Prefs
from nestbox.wire import ns
from nestbox.wire.element import Element, el

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.core.session import Session
    from nestbox.core.users import User

__all__ = ["XEPS", "keeps", "own_session", "parse_prefs", "prefs_element", "setup"]

XEPS = (Xep(441, "0.2.0"),)

MAX_PREFS = 1_000  # addresses in a list
PREFS = f"{{{ns.MAM}}}prefs"
_JID = f"{{{ns.MAM}}}jid"


def keeps(user: User, peer: JID) -> bool:
    """Whether ``user`` wants messages from or to ``peer`` archived (XEP-0441, section 2)."""
    if user.archive == "always" and not user.archive_never:
        return True
    if user.archive_never and (peer.bare in user.archive_never or str(peer) in user.archive_never):
        return False
    if user.archive_always and (peer.bare in user.archive_always or str(peer) in user.archive_always):
        return True
    if user.archive == "roster":
        return peer.bare in user.contacts or peer.bare == user.jid  # it is known: `User.undecided`
    return user.archive == "always"


def setup(server: Server) -> None:
    """Answer what is asked of preferences, unless the operator has switched the archive off."""
    if not server.config.archive.enabled:
        return
    module = _Preferences(server)
    server.router.iq("account", "get", PREFS, module.get)
    server.router.iq("account", "set", PREFS, module.set)


def own_session(context: IqContext) -> Session:
    """The session that asks for its own account's archive. Raises StanzaError forbidden for anyone else."""
    if not context.own or context.session is None:
        raise StanzaError("forbidden", "This is someone else's archive.")
    return context.session


class _Preferences:
    def __init__(self, server: Server) -> None:
        self._server = server

    async def get(self, context: IqContext) -> Element:
        session = own_session(context)
        return prefs_element(await self._server.store.archive.prefs(session.user.id))

    async def set(self, context: IqContext) -> Element:
        session = own_session(context)
        prefs = parse_prefs(context.payload)
        await self._server.store.archive.set_prefs(session.user.id, prefs)
        await self._server.users.changed(session.user.username)
        self._server.registry.tell_all(reg.Account(session.user.username))
        return prefs_element(prefs)


def prefs_element(prefs: Prefs) -> Element:
    """The ``<prefs/>`` of preferences (XEP-0441, section 2)."""
    answer = el(PREFS, {"default": prefs.default})
    for name, addresses in (("always", prefs.always), ("never", prefs.never)):
        answer.append(el(f"{{{ns.MAM}}}{name}", None, *(el(_JID, text=address) for address in addresses)))
    return answer


def parse_prefs(element: Element) -> Prefs:
    """Read ``<prefs/>``. Raises StanzaError."""
    default = element.get("default")
    if default not in ("always", "never", "roster"):
        raise StanzaError("bad-request", "default must be always, never or roster.")
    lists = []
    for name in ("always", "never"):
        found = element.find(f"{{{ns.MAM}}}{name}")
        addresses = found.findall(_JID) if found is not None else []
        if len(addresses) > MAX_PREFS:
            text = f"At most {MAX_PREFS} addresses in a list."
            raise StanzaError("resource-constraint", text, type="modify", limit="archive_prefs")
        try:
            lists.append(sorted({str(parse_jid((address.text or "").strip())) for address in addresses}))
        except ValueError as error:
            raise StanzaError("jid-malformed", str(error)) from None
    return Prefs(default, *lists)

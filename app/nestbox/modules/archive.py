"""XEP-0313, Message Archive Management: every conversation, on every device.

A message is put into the archives of its sender and its recipient under one id, before anybody gets it, and the
sender's acknowledgement waits for the commit. The recipient's copy carries that id (``<stanza-id/>``, XEP-0359). This
is every message's way: the row is the stanza as serialised once, the id is added as bytes.

Preferences are those of XEP-0441, in the namespace of XEP-0313.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestbox.core import registry as reg
from nestbox.core.errors import StanzaError
from nestbox.core.hooks import IqContext, MessageContext
from nestbox.core.jid import JID, parse_jid
from nestbox.modules import Xep
from nestbox.modules.archive_pages import METADATA, ends, fetch, results, timestamp
from nestbox.modules.archive_query import QUERY, parse_query, query_form
from nestbox.modules.content import ONE_TO_ONE, archivable
from nestbox.modules.stanza_ids import stanza_id_bytes
from nestbox.store.archive import Prefs
from nestbox.store.errors import StoreBusy
from nestbox.wire import ns
from nestbox.wire.element import Element, el, to_bytes
from nestbox.wire.stanza import STANZA_ID

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.core.session import Session
    from nestbox.core.users import User

__all__ = ["XEPS", "keeps", "parse_prefs", "prefs_element", "setup", "timestamp"]

XEPS = (Xep(313, "1.1.3"), Xep(441, "0.2.0"))

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
        # Rather one message too many where the roster is not known yet.
        return user.contacts is None or peer.bare in user.contacts or peer.bare == user.jid
    return user.archive == "always"


def setup(server: Server) -> None:
    """Archive messages and answer queries, unless the operator has switched the archive off."""
    if not server.config.archive.enabled:
        return
    module = _Archive(server)
    server.hooks.message_archive.add(module.archive)
    server.bound.append(module.bound)
    server.account_features.update((ns.MAM, ns.MAM_EXTENDED))
    server.router.iq("account", "get", QUERY, lambda context: _own(context) and query_form())
    server.router.iq("account", "set", QUERY, module.query)
    server.router.iq("account", "get", METADATA, module.metadata)
    server.router.iq("account", "get", PREFS, module.get_prefs)
    server.router.iq("account", "set", PREFS, module.set_prefs)


def _own(context: IqContext) -> Session:
    """The session that asks for its own account's archive. Raises StanzaError forbidden for anyone else."""
    if not context.own or context.session is None:
        raise StanzaError("forbidden", "This is someone else's archive.")
    return context.session


class _Archive:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._committer = server.store.committer
        self._next_id = server.ids.next

    # every message's way

    def archive(self, context: MessageContext) -> None:
        stanza = context.stanza
        if stanza.element.get("type") not in ONE_TO_ONE or not archivable(stanza.element):
            return
        owner, recipient = context.owner, context.recipient
        if recipient is not None and recipient.archive == "roster" and recipient.contacts is None:
            self._server.spawn(self._server.users.contacts(recipient))  # `keeps` does without until it is there
        for_owner = owner is not None and keeps(owner, context.to)
        for_recipient = recipient is not None and recipient is not owner and keeps(recipient, context.sender)
        if not (for_owner or for_recipient):
            return
        archive_id = self._next_id()
        data = stanza.encode()
        committer = self._committer
        try:
            if for_owner:
                context.batch = committer.archive(owner.id, archive_id, context.to.bare, data)
            if for_recipient:
                context.batch = committer.archive(recipient.id, archive_id, context.sender.bare, data)
        except StoreBusy:
            raise StanzaError("resource-constraint", "The server cannot store messages now; try again.") from None
        context.archive_id = archive_id
        if for_recipient or recipient is owner:
            by = recipient.jid
            child = Element(STANZA_ID, {"by": by, "id": str(archive_id)})
            stanza.append_bytes(child, stanza_id_bytes(by, archive_id))

    # queries

    async def query(self, context: IqContext) -> Element:
        session = _own(context)
        query = parse_query(context.payload)
        rows, fin = await fetch(self._server, session.user.id, query)
        for data in results(query, rows, session.entry.bare, session.full):
            session.send(data)
        return fin

    async def metadata(self, context: IqContext) -> Element:
        return await ends(self._server, _own(context).user.id)

    async def bound(self, session: Session) -> bytes:
        """The same for a client that was bound a moment ago (XEP-0386, section 3.2)."""
        return to_bytes(await ends(self._server, session.user.id))

    # preferences

    async def get_prefs(self, context: IqContext) -> Element:
        session = _own(context)
        return prefs_element(await self._server.store.archive.prefs(session.user.id))

    async def set_prefs(self, context: IqContext) -> Element:
        session = _own(context)
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

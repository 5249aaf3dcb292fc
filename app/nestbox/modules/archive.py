"""XEP-0313, Message Archive Management: every conversation, on every device.

A message is put into the archives of its sender and its recipient under one id, before anybody gets it, and the
sender's acknowledgement waits for the commit. The recipient's copy carries that id (``<stanza-id/>``, XEP-0359). This
is every message's way: the row is the stanza as serialised once, the id is added as bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.core.hooks import IqContext, MessageContext
from nestbox.modules import Xep
from nestbox.modules.archive_pages import METADATA, ends, fetch, results
from nestbox.modules.archive_preferences import keeps, own_session
from nestbox.modules.archive_query import GROUPCHAT, QUERY, parse_query, query_form
from nestbox.modules.content import ONE_TO_ONE, archivable
from nestbox.modules.stanza_ids import stanza_id_bytes
from nestbox.store.errors import StoreBusy
from nestbox.wire import ns
from nestbox.wire.element import Element, to_bytes
from nestbox.wire.stanza import STANZA_ID

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.core.session import Session

__all__ = ["XEPS", "setup"]

XEPS = (Xep(313, "1.1.3"),)


def setup(server: Server) -> None:
    """Archive messages and answer queries, unless the operator has switched the archive off."""
    if not server.config.archive.enabled:
        return
    module = _Archive(server)
    server.hooks.message_archive.add(module.archive)
    server.bound.append(module.bound)
    server.account_features.update((ns.MAM, ns.MAM_EXTENDED, ns.MAM_GROUPCHAT))
    server.router.iq("account", "get", QUERY, lambda context: own_session(context) and query_form(GROUPCHAT))
    server.router.iq("account", "set", QUERY, module.query)
    server.router.iq("account", "get", METADATA, module.metadata)


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
        session = own_session(context)
        query = parse_query(context.payload)
        rows, fin = await fetch(self._server, session.user.id, query)
        for data in results(query, rows, session.entry.bare, session.full):
            session.send(data)
        return fin

    async def metadata(self, context: IqContext) -> Element:
        return await ends(self._server, own_session(context).user.id)

    async def bound(self, session: Session) -> bytes:
        """The same for a client that was bound a moment ago (XEP-0386, section 3.2)."""
        return to_bytes(await ends(self._server, session.user.id))

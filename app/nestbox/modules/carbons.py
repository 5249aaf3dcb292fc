"""XEP-0280, Message Carbons: every device of a user sees both sides of every conversation.

A copy goes to each session that asked for carbons and did not get the message itself, on whichever worker it is. The
forwarded part is made once. Copies come from the user's own bare JID, which no client can write into ``from``: that is
what keeps a ``<received/>`` that somebody made up from being believed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.modules import Xep
from nestbox.modules.archive_preferences import keeps
from nestbox.modules.content import MUC_INVITE, MUC_USER, meaningful
from nestbox.modules.stanza_ids import stanza_id_bytes
from nestbox.wire import ns
from nestbox.wire.element import Element, escape_attribute

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nestbox.core.hooks import IqContext, MessageContext
    from nestbox.core.registry import Entry
    from nestbox.core.server import Server
    from nestbox.core.session import Session

__all__ = ["XEPS", "setup"]

XEPS = (Xep(280, "1.0.1", "errors are not copied"), Xep(297, "1.0"))

PRIVATE = f"{{{ns.CARBONS}}}private"
NO_COPY = f"{{{ns.HINTS}}}no-copy"
_END = b"</message>"


def setup(server: Server) -> None:
    """Answer enable and disable, and copy what is delivered."""
    carbons = _Carbons(server)
    server.hooks.message.add(_note_private, priority=60)
    server.hooks.message_delivered.add(carbons.copy)
    server.router.iq("account", "set", f"{{{ns.CARBONS}}}enable", lambda context: carbons.switch(context, True))
    server.router.iq("account", "set", f"{{{ns.CARBONS}}}disable", lambda context: carbons.switch(context, False))
    server.inline[f"{{{ns.CARBONS}}}enable"] = _enable_inline
    server.host_features.add(ns.CARBONS)
    server.account_features.add(ns.CARBONS)


def _enable_inline(session: Session, element: Element) -> None:
    session.entry.carbons = True  # nobody has heard of the entry yet (XEP-0386)


def _note_private(context: MessageContext) -> None:
    """Respect ``<private/>`` and take it out before delivery (section 9)."""
    stanza = context.stanza
    private = stanza.element.find(PRIVATE)
    if private is not None:
        context.private = True
        stanza.remove(private)


def eligible(message: Element) -> bool:
    """Whether a message is copied (section 6.1), ``<private/>`` aside."""
    kind = message.get("type")
    if kind == "chat":
        if message.find(NO_COPY) is not None:
            return False
    elif kind not in (None, "normal") or not meaningful(message) or message.find(NO_COPY) is not None:
        return False
    return True


def _from_room(message: Element) -> bool:
    """Whether it came as a private message in a room, which gives it to each session that is there itself."""
    muc = message.find(MUC_USER)
    return muc is not None and muc.find(MUC_INVITE) is None


class _Carbons:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._registry = server.registry

    async def switch(self, context: IqContext, on: bool) -> None:
        session = context.session
        if not context.own or session is None:
            raise StanzaError("not-allowed", "Carbons are switched by the client that wants them.")
        if session.entry.carbons != on:
            session.entry.carbons = on
            await self._registry.update(session)

    def copy(self, context: MessageContext) -> None:
        targets = context.targets
        to_self = context.sender.bare == context.to.bare
        received: list[Entry] = []
        sent: list[Entry] = []
        if not to_self:
            entries = self._registry.of(context.to.bare)
            if len(entries) > len(targets):
                received = [entry for entry in entries.values() if entry.carbons and entry not in targets]
        if context.session is not None:
            entries = self._registry.of(context.sender.bare)
            if len(entries) > 1:
                own = context.sender.resource
                sent = [entry for entry in entries.values() if entry.carbons and entry.resource != own]
                if to_self:
                    sent = [entry for entry in sent if entry not in targets]
        if not (received or sent) or context.private or not eligible(context.stanza.element):
            return
        data = context.stanza.encode()
        urgent = self._server.router.urgent(context.stanza)
        if received and not _from_room(context.stanza.element):
            self._send(received, "received", context, data, urgent)
        if sent:
            self._send(sent, "sent", context, self._for_sender(context, data), urgent)

    @staticmethod
    def _for_sender(context: MessageContext, data: bytes) -> bytes:
        """The message with the sender's archive id, not the recipient's (XEP-0313, section 3.5)."""
        archive_id, owner, recipient = context.archive_id, context.owner, context.recipient
        if archive_id is None or owner is None or owner is recipient:
            return data
        end = _END
        if recipient is not None:
            theirs = stanza_id_bytes(recipient.jid, archive_id) + _END
            if data.endswith(theirs):
                end = theirs
        ours = stanza_id_bytes(owner.jid, archive_id) if keeps(owner, context.to) else b""
        return data.removesuffix(end) + ours + _END

    def _send(self, entries: Iterable[Entry], name: str, context: MessageContext, data: bytes, urgent: bool) -> None:
        kind = context.stanza.type
        head = "<message" if kind is None else f'<message type="{kind}"'
        start = f'><{name} xmlns="{ns.CARBONS}"><forwarded xmlns="{ns.FORWARD}"><message xmlns="jabber:client"'.encode()
        forwarded = start + data.removeprefix(b"<message") + f"</forwarded></{name}></message>".encode()
        for entry in entries:
            addresses = f' from="{escape_attribute(entry.bare)}" to="{escape_attribute(entry.jid)}"'
            self._registry.deliver(entry, (head + addresses).encode() + forwarded, urgent)

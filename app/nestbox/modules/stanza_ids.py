"""XEP-0359, Unique and Stable Stanza IDs: only we say which ids are ours.

A ``<stanza-id/>`` that claims to be by an account or the host of this server is taken out of every message that comes
in, since clients trust it to find their place in the archive and to drop duplicates. Others' ids pass, and so does
``<origin-id/>``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestbox.core.jid import parse_jid
from nestbox.modules import Xep
from nestbox.wire import ns
from nestbox.wire.element import escape_attribute
from nestbox.wire.stanza import STANZA_ID

if TYPE_CHECKING:
    from nestbox.core.hooks import MessageContext
    from nestbox.core.server import Server

__all__ = ["XEPS", "setup", "stanza_id_bytes"]

XEPS = (Xep(359, "0.7.0"),)


def stanza_id_bytes(by: str, value: int) -> bytes:
    """``<stanza-id/>`` as canonical bytes; ``by`` is the bare JID whose archive knows the message as ``value``."""
    return f'<stanza-id xmlns="urn:xmpp:sid:0" by="{escape_attribute(by)}" id="{value}"/>'.encode()


def setup(server: Server) -> None:
    """Strip forged ids before anybody looks at the message."""
    domain = server.config.domain

    def strip(context: MessageContext) -> None:
        stanza = context.stanza
        if stanza.element.find(STANZA_ID) is None:
            return
        for child in stanza.element.findall(STANZA_ID):
            try:
                by = parse_jid(child.get("by", ""))
            except ValueError:
                stanza.remove(child)
                continue
            if by.domain == domain:
                stanza.remove(child)

    server.hooks.message.add(strip, priority=5)
    server.host_features.add(ns.STANZA_ID)
    server.account_features.add(ns.STANZA_ID)

"""vCards (XEP-0054): each account's card, which anybody may read and only its owner may write."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree.ElementTree import XML

from nestbox.core.errors import StanzaError
from nestbox.modules import Xep
from nestbox.wire import ns
from nestbox.wire.element import Element, el, to_bytes

if TYPE_CHECKING:
    from nestbox.core.hooks import IqContext
    from nestbox.core.server import Server

__all__ = ["XEPS", "setup"]

XEPS = (Xep(54, "1.2"),)
VCARD = f"{{{ns.VCARD}}}vCard"
CARD_BYTES = 192 * 1024  # leaves room for a picture of 128 KiB in base64, and for the stanza around it


class _Vcards:
    def __init__(self, server: Server) -> None:
        self._server = server

    async def get(self, context: IqContext) -> Element:
        user = await self._server.users.load(context.account)
        data = await self._server.store.vcards.get(user.id) if user is not None else None
        if data is not None:
            return XML(data)
        if context.own:
            return el(VCARD)
        raise StanzaError("service-unavailable")  # as where there is no account (XEP-0054, section 3.3)

    def of_host(self, context: IqContext) -> Element:
        """The server's own card: what people call it."""
        return el(VCARD, None, el(f"{{{ns.VCARD}}}FN", text=self._server.config.name))

    async def set(self, context: IqContext) -> None:
        if not context.own or context.session is None:
            raise StanzaError("forbidden", "This is somebody else's vCard.")
        data = to_bytes(context.payload)
        if len(data) > CARD_BYTES:
            text = f"A vCard has at most {CARD_BYTES} bytes; use a smaller picture."
            raise StanzaError("policy-violation", text, limit="vcard_bytes")
        await self._server.store.vcards.put(context.session.user.id, data)
        await self._server.hooks.vcard_stored.run(context.session.user, context.payload)


def setup(server: Server) -> None:
    """Answer vCard queries to accounts."""
    vcards = _Vcards(server)
    server.router.iq("account", "get", VCARD, vcards.get)
    server.router.iq("host", "get", VCARD, vcards.of_host)
    server.router.iq("account", "set", VCARD, vcards.set)
    server.host_features.add(ns.VCARD)
    server.account_features.add(ns.VCARD)

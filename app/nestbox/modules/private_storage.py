"""Private XML storage (XEP-0049): clients keep settings and old-style bookmarks here, one element for each name."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree.ElementTree import XML

from nestbox.core.errors import StanzaError
from nestbox.modules import Xep
from nestbox.wire import ns
from nestbox.wire.element import Element, el, namespace, to_bytes

if TYPE_CHECKING:
    from nestbox.core.hooks import IqContext
    from nestbox.core.server import Server

__all__ = ["XEPS", "setup"]

XEPS = (Xep(49, "1.2"),)
QUERY = f"{{{ns.PRIVATE}}}query"
NAME_BYTES = 512
_RESERVED = ("jabber:client", "jabber:server", ns.PRIVATE, "")


class _Private:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._store = server.store.private

    async def get(self, context: IqContext) -> Element:
        user_id = _owner(context)
        if len(context.payload) != 1:
            raise StanzaError("bad-request", "Ask for one element at a time.")
        data = await self._store.get(user_id, _key(context.payload[0]))
        return el(QUERY, None, el(context.payload[0].tag) if data is None else XML(data))

    async def set(self, context: IqContext) -> None:
        user_id = _owner(context)
        if not len(context.payload):
            raise StanzaError("bad-request", "There is nothing to keep.")
        rows = {_key(element): to_bytes(element) for element in context.payload}
        limit = self._server.config.limits.private_bytes
        old = [await self._store.get(user_id, key) or b"" for key in rows]
        grows = sum(map(len, rows.values())) - sum(map(len, old))
        if grows > 0 and await self._store.size(user_id) + grows > limit:
            text = f"An account keeps at most {limit} bytes here."
            raise StanzaError("resource-constraint", text, limit="private_bytes")
        for key, data in rows.items():
            await self._store.put(user_id, key, data)
        for element in context.payload:
            await self._server.hooks.private_stored.run(context.session.user, element)


def _owner(context: IqContext) -> int:
    if not context.own or context.session is None:
        raise StanzaError("forbidden", "This is somebody else's storage.")
    return context.session.user.id


def _key(element: Element) -> str:
    if namespace(element.tag) in _RESERVED:
        raise StanzaError("not-acceptable", "An element needs a namespace of its own.")
    if len(element.tag.encode()) > NAME_BYTES:
        raise StanzaError("not-acceptable", "The name is too long.", limit="private_name_bytes")
    return element.tag


def setup(server: Server) -> None:
    """Answer for each account's storage."""
    private = _Private(server)
    server.router.iq("account", "get", QUERY, private.get)
    server.router.iq("account", "set", QUERY, private.set)
    server.host_features.add(ns.PRIVATE)
    server.account_features.add(ns.PRIVATE)

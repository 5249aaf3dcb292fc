"""Service discovery (XEP-0030): what the server and an account can do, and which hosts there are.

An account answers only its owner and those who may see its presence; to everybody else it looks like no account at all,
which has no items and no information (section 8 and RFC 6121, section 8.5.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.core.hooks import IqContext
from nestbox.modules import Xep
from nestbox.wire import ns
from nestbox.wire.element import Element, el

if TYPE_CHECKING:
    from nestbox.core.server import Server

__all__ = ["XEPS", "check_sees", "host_info", "setup"]

XEPS = (Xep(30, "2.5.0"), Xep(128, "1.0.1"))
INFO = f"{{{ns.DISCO_INFO}}}query"
ITEMS = f"{{{ns.DISCO_ITEMS}}}query"
IDENTITY = f"{{{ns.DISCO_INFO}}}identity"
FEATURE = f"{{{ns.DISCO_INFO}}}feature"
ITEM = f"{{{ns.DISCO_ITEMS}}}item"


async def check_sees(server: Server, context: IqContext) -> None:
    """Raise StanzaError (service-unavailable) unless the sender is the account's owner or may see its presence."""
    if not await _sees(server, context):
        raise StanzaError("service-unavailable")


async def _sees(server: Server, context: IqContext) -> bool:
    if context.own:
        return True
    user = await server.users.load(context.account)
    contacts = await server.users.contacts(user) if user is not None else {}
    return contacts.get(context.sender.bare) in ("from", "both")


def host_info(server: Server, node: str | None = None) -> Element:
    """The server's identity and features; XEP-0115 hashes the same."""
    name = server.config.name
    # Some clients (Pidgin) ask the server, not the account, whether there is PEP.
    kinds = [("server", "im"), ("pubsub", "pep")]
    identities = [el(IDENTITY, {"category": category, "type": kind, "name": name}) for category, kind in kinds]
    info = _info(identities, server.host_features, node)
    info.extend(server.host_forms)
    return info


def _info(identities: list[Element], features: set[str], node: str | None) -> Element:
    attributes = {"node": node} if node else {}
    return el(INFO, attributes, *identities, *(el(FEATURE, {"var": feature}) for feature in sorted(features)))


class _Disco:
    def __init__(self, server: Server) -> None:
        self._server = server

    def of_host(self, context: IqContext) -> Element:
        node = context.payload.get("node")
        if node and node not in self._server.host_nodes:
            return self._of_node(context, node)
        return host_info(self._server, node)

    def _of_node(self, context: IqContext, node: str) -> Element:
        for known in self._server.disco_nodes:
            answer = known(context.payload.tag, node, context.sender)
            if answer is not None:
                return answer
        raise StanzaError("item-not-found")

    async def of_account(self, context: IqContext) -> Element:
        if context.payload.get("node"):
            try:
                return await self._of_account_node(context)
            except StanzaError:
                await check_sees(self._server, context)
                raise
        await check_sees(self._server, context)
        known = self._server.account_identities
        identities = [el(IDENTITY, {"category": category, "type": kind}) for category, kind in known]
        own = {ns.COMMANDS} if context.own and self._server.commands else set()
        return _info(identities, self._server.account_features | own, None)

    def hosts(self, context: IqContext) -> Element:
        node = context.payload.get("node")
        if node:
            return self._of_node(context, node)
        return el(ITEMS, None, *(el(ITEM, {"jid": host}) for host in sorted(self._server.router.hosts)))

    async def items_of_account(self, context: IqContext) -> Element:
        sees = await _sees(self._server, context)
        if sees or context.payload.get("node"):
            try:
                return await self._of_account_node(context)
            except StanzaError:
                if sees:
                    raise
        return self.no_items(context)

    def no_items(self, context: IqContext) -> Element:
        """For those who are to know of no item, and of an account that there is not."""
        node = context.payload.get("node")
        return el(ITEMS, {"node": node} if node else {})

    async def _of_account_node(self, context: IqContext) -> Element:
        """Who may see an account's nodes is for them to say."""
        node = context.payload.get("node")
        if context.own and node == ns.COMMANDS:
            return self._of_node(context, node)
        answer = self._server.account_disco
        if answer is None:
            raise StanzaError("item-not-found")
        return await answer(context)


def setup(server: Server) -> None:
    """Answer disco queries to the host and to accounts."""
    disco = _Disco(server)
    server.router.iq("host", "get", INFO, disco.of_host)
    server.router.iq("account", "get", INFO, disco.of_account)
    server.router.iq("host", "get", ITEMS, disco.hosts)
    server.router.iq("account", "get", ITEMS, disco.items_of_account)
    server.router.iq("nobody", "get", ITEMS, disco.no_items)
    for features in (server.host_features, server.account_features):
        features.update((ns.DISCO_INFO, ns.DISCO_ITEMS))

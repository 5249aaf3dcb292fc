"""Service discovery of a pubsub service and its nodes (XEP-0060, sections 5.1 to 5.5)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nestbox.core.jid import JID
from nestbox.modules.disco import FEATURE, IDENTITY, INFO, ITEM, ITEMS
from nestbox.modules.pubsub.access import Access, Gate, Seen, Service, access_of, refusal
from nestbox.modules.pubsub.config import metadata_form
from nestbox.wire import ns
from nestbox.wire.element import Element, el

if TYPE_CHECKING:
    from nestbox.core.server import Server

__all__ = ["Discovery", "features"]

ITEMS_MAX = 1_000  # of one answer
_BOTH = (
    "access-authorize",
    "access-open",
    "access-presence",
    "access-roster",
    "access-whitelist",
    "config-node",
    "config-node-max",
    "create-and-configure",
    "create-nodes",
    "delete-items",
    "delete-nodes",
    "instant-nodes",
    "item-ids",
    "manage-subscriptions",
    "member-affiliation",
    "meta-data",
    "modify-affiliations",
    "multi-items",
    "outcast-affiliation",
    "persistent-items",
    "publish",
    "publish-options",
    "publisher-affiliation",
    "purge-nodes",
    "retract-items",
    "retrieve-affiliations",
    "retrieve-default",
    "retrieve-items",
    "retrieve-subscriptions",
    "rsm",
    "subscribe",
)
_PEP = (
    "auto-create",
    "auto-subscribe",
    "filtered-notifications",
    "last-published",
    "presence-notifications",
    "presence-subscribe",
)


def features(pep: bool) -> set[str]:
    """What a service can do, as features of XEP-0030."""
    names = _BOTH + (_PEP if pep else ())
    return {ns.PUBSUB, ns.RSM, *(f"{ns.PUBSUB}#{name}" for name in names)}


class Discovery:
    """Answers for nodes, and for the host's service."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._store = server.store
        self._gate = Gate(server)

    async def answer(self, service: Service, sender: JID, query: Element) -> Element:
        """The answer to a disco query of either kind that has a node, or goes to the host's service."""
        name = query.get("node")
        if query.tag == ITEMS:
            return await (self._items_of(service, name, sender) if name else self.nodes(service, sender))
        if name:
            return await self._info_of(service, name, sender)
        identity = el(IDENTITY, {"category": "pubsub", "type": "service", "name": self._server.config.name})
        wanted = sorted(features(False) | {ns.DISCO_INFO, ns.DISCO_ITEMS})
        return el(INFO, None, identity, *(el(FEATURE, {"var": feature}) for feature in wanted))

    async def nodes(self, service: Service, sender: JID) -> Element:
        """The nodes that the sender may read (section 5.2)."""
        answer = el(ITEMS)
        for view in (await self._store.pubsub.views(service.home, sender.bare))[:ITEMS_MAX]:
            access = access_of(service, view, sender)
            if await self._gate.why_not(access, sender) is None:
                attributes = {"jid": service.home, "node": access.node.name}
                if access.config.title:
                    attributes["name"] = access.config.title
                answer.append(el(ITEM, attributes))
        return answer

    async def _visible(self, service: Service, name: str, sender: JID) -> Access:
        """A node that the sender may know of: one that could be subscribed to with the owner's leave is no secret."""
        access = await self._gate.find(service, name, sender)
        authorize = access.config.access_model == "authorize"
        if not (authorize and refusal(access.config, access.affiliation, True, Seen()) is None):
            await self._gate.check_reads(access, sender)
        return access

    async def _info_of(self, service: Service, name: str, sender: JID) -> Element:
        access = await self._visible(service, name, sender)
        node = access.node
        created = datetime.fromtimestamp(node.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        creator = f"{node.owner}@{self._server.config.domain}"
        people = self._store.pubsub_people
        known = await people.affiliations(node.id) if service.user is None else {creator: "owner"}
        owners = [jid for jid, affiliation in known.items() if affiliation == "owner"]
        subscribers = sum(each.state == "subscribed" for each in await people.subscriptions(node.id))
        metadata = metadata_form(access.config, created, creator, owners, subscribers)
        identity = el(IDENTITY, {"category": "pubsub", "type": "leaf"})
        if access.config.title:
            identity.set("name", access.config.title)
        offered = [el(FEATURE, {"var": feature}) for feature in (ns.PUBSUB, ns.DISCO_INFO, ns.DISCO_ITEMS)]
        return el(INFO, {"node": name}, identity, *offered, metadata)

    async def _items_of(self, service: Service, name: str, sender: JID) -> Element:
        """The ids of a node's items (section 5.5)."""
        access = await self._gate.find(service, name, sender)
        await self._gate.check_reads(access, sender)
        names = await self._store.pubsub_items.names(access.node.id, ITEMS_MAX)
        return el(ITEMS, {"node": name}, *(el(ITEM, {"jid": service.home, "name": each}) for each in names))

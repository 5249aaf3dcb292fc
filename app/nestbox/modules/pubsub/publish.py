"""Publishing and retracting items, and removing them all (XEP-0060, sections 7 and 8.5)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.core.jid import JID
from nestbox.modules.pubsub.access import Access, Gate, Service, may_publish
from nestbox.modules.pubsub.config import NodeConfig, defaults, options_of, with_options
from nestbox.modules.pubsub.names import node_of, of_event, of_ns, refuse
from nestbox.modules.pubsub.notify import Notifier, item_event
from nestbox.store.errors import StoreFull
from nestbox.store.pubsub_items import Item, Page
from nestbox.store.schema import NODE_BYTES
from nestbox.wire.element import Element, el, to_bytes

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.core.users import User

__all__ = ["Publisher", "check_name"]


def check_name(name: str) -> None:
    """Raise StanzaError for the name of a node or an item that is too long to be kept."""
    if len(name.encode()) > NODE_BYTES:
        raise StanzaError("not-acceptable", f"A name has at most {NODE_BYTES} bytes.", limit="pubsub_name_bytes")


class Publisher:
    """Changes what is in nodes; stateless, so that whoever needs one may make one."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._limits = server.config.limits
        self._store = server.store
        self._gate = Gate(server)
        self._notifier = Notifier(server)

    # from clients

    async def publish(self, service: Service, sender: JID, pubsub: Element, element: Element) -> Element:
        """``<publish/>`` (section 7.1)."""
        name = node_of(element)
        check_name(name)
        item = self._item(element, sender)
        options_element = pubsub.find(of_ns("publish-options"))
        options = options_of(options_element) if options_element is not None else {}
        access = await self._gate.look(service, name, sender)
        if access is None:
            access = await self._auto_create(service, name, sender, options)
        else:
            _check_preconditions(access, options)
        if not may_publish(access):
            raise StanzaError("forbidden", "You may not publish to this node.")
        _check_fits(access.config, item)
        await self.put(access, item, sender.bare)
        if service.user is not None:
            await self._server.hooks.pep_changed.run(service.user, name)
        said = el(of_ns("publish"), {"node": name})
        if item is not None:
            said.append(el(of_ns("item"), {"id": item.name}))
        return el(of_ns("pubsub"), None, said)

    def _item(self, element: Element, sender: JID) -> Item | None:
        children = [child for child in element if child.tag == of_ns("item")]
        if not children:
            return None
        if len(children) > 1:
            raise refuse("bad-request", "max-items-exceeded", "Publish one item at a time.")
        if len(children[0]) > 1:
            raise refuse("bad-request", "invalid-payload", "An item has one payload.")
        # In a namespace of its own, wherever it will stand.
        payload = to_bytes(children[0][0], "") if len(children[0]) else b""
        if len(payload) > self._limits.pubsub_item_bytes:
            text = f"An item has at most {self._limits.pubsub_item_bytes} bytes."
            raise refuse("not-acceptable", "payload-too-big", text, limit="pubsub_item_bytes")
        name = children[0].get("id") or secrets.token_urlsafe(12)
        check_name(name)
        return Item(name, payload, sender.bare, self._server.ids.next())

    async def _auto_create(
        self, service: Service, name: str, sender: JID, options: Mapping[str, Sequence[str]]
    ) -> Access:
        """Make a node of the publisher's own account with the options asked for (XEP-0163, section 3)."""
        if service.user is None or service.user.jid != sender.bare:
            raise StanzaError("item-not-found", "There is no such node.")
        config = with_options(defaults(True, name), options, strict=True)
        await self.create(service, service.user, name, config)  # if another was quicker, its node must do
        access = await self._gate.find(service, name, sender)
        _check_preconditions(access, options)
        return access

    async def retract(self, service: Service, sender: JID, element: Element) -> None:
        """``<retract/>`` (section 7.2)."""
        name = node_of(element)
        names = [item.get("id", "") for item in element if item.tag == of_ns("item")]
        if len(names) != 1 or not names[0]:
            raise refuse("bad-request", "item-required", "Which item?")
        access = await self._gate.find(service, name, sender)
        if not access.config.persist_items:
            raise refuse("feature-not-implemented", "unsupported", feature="persistent-items")
        if not may_publish(access):
            raise StanzaError("forbidden", "You may not retract items of this node.")
        only = None if access.affiliation in ("owner", "publisher") else sender.bare
        done = await self._store.pubsub_items.retract(access.node.id, names[0], only)
        if done is None:
            raise StanzaError("item-not-found", "There is no such item.")
        if not done:
            raise StanzaError("forbidden", "This is somebody else's item.")
        if access.config.notify_retract or element.get("notify") in ("1", "true"):
            await self._say_retracted(access, names[0])
        if service.user is not None:
            await self._server.hooks.pep_changed.run(service.user, name)

    async def purge(self, service: Service, sender: JID, element: Element) -> None:
        """``<purge/>`` of an owner (section 8.5)."""
        access = await self._gate.owned(service, node_of(element), sender)
        if not access.config.persist_items:
            raise refuse("feature-not-implemented", "unsupported", feature="persistent-items")
        await self._store.pubsub_items.purge(access.node.id)
        if access.config.notify_retract:
            await self._notifier.tell(access, el(of_event("purge"), {"node": access.node.name}))
        if service.user is not None:
            await self._server.hooks.pep_changed.run(service.user, access.node.name)

    # without asking who may

    async def create(self, service: Service, user: User, name: str, config: NodeConfig) -> bool:
        """Make a node that belongs to ``user``; False when there is one. Raises StanzaError at the limit."""
        owner = user.jid if service.user is None else None  # at home, he need not be entered
        try:
            return await self._store.pubsub.create(
                user.id, service.home, name, config.encode(), int(time.time()), self._limits.pubsub_nodes, owner
            )
        except StoreFull as error:
            text = f"An account has at most {self._limits.pubsub_nodes} nodes."
            raise refuse("conflict", "max-nodes-exceeded", text, limit=error.limit) from None

    async def put(self, access: Access, item: Item | None, publisher: str) -> None:
        """Keep an item where the node keeps items, then send notifications."""
        node, config = access.node, access.config
        if item is not None and config.persist_items:
            limits = self._limits
            only = None if access.affiliation in ("owner", "publisher") else publisher
            keep = config.keep(limits.pubsub_items)
            try:
                done = await self._store.pubsub_items.publish(
                    node.id, node.user_id, item, keep, limits.pubsub_bytes, only
                )
            except StoreFull as error:
                text = f"The items of an account have at most {limits.pubsub_bytes} bytes."
                raise StanzaError("resource-constraint", text, limit=error.limit) from None
            if done is None:
                raise StanzaError("item-not-found", "There is no such node.")
            if not done:
                raise StanzaError("forbidden", "An item of that id is somebody else's.")
        await self._notifier.tell(access, item_event(node.name, config, item))

    async def put_own(
        self, user: User, name: str, item_name: str, payload: Element, options: Mapping[str, Sequence[str]]
    ) -> None:
        """Publish to an account's own node on the server's initiative; ``options`` are for a node that is new."""
        jid = JID(user.username, self._server.config.domain)
        service = Service(jid, user)
        access = await self._gate.look(service, name, jid) or await self._auto_create(service, name, jid, options)
        item = Item(item_name, to_bytes(payload, ""), user.jid, self._server.ids.next())
        await self.put(access, item, user.jid)

    async def retract_own(self, user: User, name: str, item_name: str) -> None:
        """Retract an item of an account's own node on the server's initiative."""
        jid = JID(user.username, self._server.config.domain)
        access = await self._gate.look(Service(jid, user), name, jid)
        if access is not None and await self._store.pubsub_items.retract(access.node.id, item_name):
            await self._say_retracted(access, item_name)

    async def own_item(self, user: User, name: str, item_name: str) -> Item | None:
        """An item of an account's own node."""
        view = await self._store.pubsub.view(user.jid, name, user.jid)
        page = None if view is None else await self._store.pubsub_items.named(view.node.id, [item_name], 0)
        return page.items[0] if page is not None and page.items else None

    async def own_items(self, user: User, name: str, limit: int, max_bytes: int) -> Page | None:
        """The last items of an account's own node, and how many there are; None where there is no such node."""
        view = await self._store.pubsub.view(user.jid, name, user.jid)
        if view is None:
            return None
        return await self._store.pubsub_items.page(view.node.id, limit=limit, max_bytes=max_bytes, backward=True)

    async def own_config(self, user: User, name: str) -> NodeConfig | None:
        """How an account's own node is configured; None where there is no such node."""
        view = await self._store.pubsub.view(user.jid, name, user.jid)
        return NodeConfig.decode(view.node.config) if view is not None else None

    async def _say_retracted(self, access: Access, item: str) -> None:
        what = el(of_event("items"), {"node": access.node.name}, el(of_event("retract"), {"id": item}))
        await self._notifier.tell(access, what)


def _check_preconditions(access: Access, options: Mapping[str, Sequence[str]]) -> None:
    """Raise StanzaError unless the node is as the publisher insists (section 7.1.5)."""
    if options and with_options(access.config, options, strict=True) != access.config:
        raise refuse("conflict", "precondition-not-met", "The node is configured differently.")


def _check_fits(config: NodeConfig, item: Item | None) -> None:
    """Raise StanzaError unless the node takes such a publication (section 7.1.3.6)."""
    if item is None and (config.persist_items or config.deliver_payloads):
        raise refuse("bad-request", "item-required", "This node needs an item.")
    if item is not None and not item.payload and (config.persist_items and config.deliver_payloads):
        raise refuse("bad-request", "payload-required", "An item of this node needs a payload.")
    if item is not None and not (config.persist_items or config.deliver_payloads):
        raise refuse("bad-request", "item-forbidden", "This node takes no items.")

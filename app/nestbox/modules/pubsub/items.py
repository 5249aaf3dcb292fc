"""Retrieving items (XEP-0060, section 6.5), all, some by their ids, the latest, or page by page (XEP-0059)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree.ElementTree import XML

from nestbox.core.errors import StanzaError
from nestbox.core.jid import JID
from nestbox.modules.pubsub.access import Gate, Service
from nestbox.modules.pubsub.config import NodeConfig
from nestbox.modules.pubsub.names import node_of, of_ns
from nestbox.modules.rsm import PageRequest, page_request, page_result
from nestbox.store.pubsub_items import Item, Page
from nestbox.wire.element import Element, el

if TYPE_CHECKING:
    from nestbox.core.server import Server

__all__ = ["Retriever"]

ANSWER_BYTES = 1024 * 1024  # of one answer; what does not fit is left for the next page


class Retriever:
    """Answers ``<items/>``."""

    def __init__(self, server: Server) -> None:
        self._gate = Gate(server)
        self._store = server.store.pubsub_items
        self._limit = server.config.limits.pubsub_items

    async def items(self, service: Service, sender: JID, pubsub: Element, element: Element) -> Element:
        """The items that the sender asks for, in the order of their publication."""
        access = await self._gate.find(service, node_of(element), sender)
        await self._gate.check_reads(access, sender)
        node, config = access.node, access.config
        answer = el(of_ns("items"), {"node": node.name})
        names = [item.get("id", "") for item in element if item.tag == of_ns("item")]
        if names:
            if len(names) > self._limit:
                raise StanzaError("not-acceptable", f"At most {self._limit} items at a time.")
            found, count = await self._store.named(node.id, names, ANSWER_BYTES)
            answer.extend(_element(item, config) for item in found)
            result = el(of_ns("pubsub"), None, answer)
            if len(found) < count:
                result.append(page_result(found[0].name, found[-1].name, count))
            return result
        request = page_request(pubsub)
        latest = _max_items(element)
        page = await self._page(node.id, request, latest)
        if page is None:
            raise StanzaError("item-not-found", "There is no such item to begin from.")
        answer.extend(_element(item, config) for item in page.items)
        result = el(of_ns("pubsub"), None, answer)
        left_out = len(page.items) < min(page.count, latest or page.count)
        if request != PageRequest() or left_out:
            ends = (page.items[0].name, page.items[-1].name) if page.items else (None, None)
            result.append(page_result(*ends, page.count))
        return result

    async def _page(self, node_id: int, request: PageRequest, latest: int | None) -> Page | None:
        limit = min(self._limit if each is None else each for each in (request.max, latest, self._limit))
        backward = request.backward or latest is not None
        return await self._store.page(
            node_id,
            limit=limit,
            max_bytes=ANSWER_BYTES,
            after=request.after,
            before=request.before,
            backward=backward,
        )


def _max_items(element: Element) -> int | None:
    text = element.get("max_items")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and int(text[:9]) > 0):
        raise StanzaError("bad-request", "max_items must be a number of at least 1.")
    return int(text[:9])


def _element(item: Item, config: NodeConfig) -> Element:
    element = el(of_ns("item"), {"id": item.name})
    if config.itemreply == "publisher":
        element.set("publisher", item.publisher)
    if item.payload:
        element.append(XML(item.payload))
    return element

"""Bookmarked rooms (XEP-0402), joined with the two older places for them (XEP-0048): private storage and one PEP item.

The items of ``urn:xmpp:bookmarks:1`` are the truth. Each change there is written to the older places; a list that a
client puts there becomes as many changes of items as it has differences (XEP-0402, section 5.3). What only an older
place knows, such as bookmarked web pages, stays there. Whoever has more than the older places could ever take has them
no longer joined, and a node that others than the account may read, or that keeps too few items, is left out: private
storage is private.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING
from xml.etree.ElementTree import XML

from nestbox.core.jid import parse_jid
from nestbox.modules import Xep
from nestbox.modules.pubsub.publish import Publisher
from nestbox.wire import ns
from nestbox.wire.element import Element, el, to_bytes

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.core.users import User
    from nestbox.store.pubsub_items import Item

__all__ = ["XEPS", "setup"]

XEPS = (Xep(48, "1.2"), Xep(402, "1.1.4"), Xep(411, "1.1.0"))
FEATURES = (f"{ns.BOOKMARKS}#compat", f"{ns.BOOKMARKS}#compat-pep", "urn:xmpp:bookmarks-conversion:0")
STORAGE = f"{{{ns.OLD_BOOKMARKS}}}storage"
OLD = f"{{{ns.OLD_BOOKMARKS}}}conference"
NEW = f"{{{ns.BOOKMARKS}}}conference"
EXTENSIONS = f"{{{ns.BOOKMARKS}}}extensions"
JOINED_BYTES = 256 * 1024  # of all items; as much as private storage has by default
_TEXTS = ("nick", "password")
_FLAGS = {"1": "true", "true": "true", "0": "false", "false": "false"}
_PRIVATE = {
    "pubsub#persist_items": ["true"],
    "pubsub#access_model": ["whitelist"],
    "pubsub#send_last_published_item": ["never"],
}
_MANY = _PRIVATE | {"pubsub#max_items": ["max"]}


class _NotJoinedError(Exception):
    """There is more than is joined, or others may read it than could before."""


class _Bookmarks:
    def __init__(self, server: Server) -> None:
        self._store = server.store
        self._publisher = Publisher(server)
        self._limit = server.config.limits.pubsub_items

    async def published(self, user: User, node: str) -> None:
        """An account has changed one of its nodes."""
        with suppress(_NotJoinedError):
            if node == ns.BOOKMARKS:
                if await self._publisher.own_config(user, ns.OLD_BOOKMARKS) is None:
                    await self._adopt(user, await self._private(user))
                await self._mirror(user)
            elif node == ns.OLD_BOOKMARKS:
                items = await self._items(user, ns.OLD_BOOKMARKS)
                storage = XML(items[-1].payload) if items else None
                if storage is not None and storage.tag == STORAGE:
                    if await self._items(user, ns.BOOKMARKS) is None:
                        await self._adopt(user, await self._private(user))
                    await self._replace(user, storage)

    async def stored(self, user: User, element: Element) -> None:
        """An account has put something into its private storage."""
        if element.tag == STORAGE:
            with suppress(_NotJoinedError):
                await self._replace(user, element)

    async def _items(self, user: User, node: str) -> list[Item] | None:
        """All items of a node of the account's, None where there is none. Raises _NotJoinedError."""
        config = await self._publisher.own_config(user, node)
        if config is not None and (config.access_model != "whitelist" or not config.persist_items):
            raise _NotJoinedError
        page = await self._publisher.own_items(user, node, self._limit, JOINED_BYTES)
        if page is None:
            return None
        if len(page.items) < page.count:
            raise _NotJoinedError
        return page.items

    async def _check_space(self, user: User, count: int) -> None:
        """Raise _NotJoinedError where the node would not keep so many items."""
        config = await self._publisher.own_config(user, ns.BOOKMARKS)
        if config is not None and config.keep(self._limit) < count:
            raise _NotJoinedError

    async def _private(self, user: User) -> Element:
        stored = await self._store.private.get(user.id, STORAGE)
        return el(STORAGE) if stored is None else XML(stored)

    async def _adopt(self, user: User, storage: Element) -> None:
        """Take over what was bookmarked the old way before there were items."""
        known = {item.name for item in await self._items(user, ns.BOOKMARKS) or ()}
        found = _conferences(storage)
        await self._check_space(user, len(known | found.keys()))
        for jid, conference in found.items():
            if jid not in known:
                await self._publisher.put_own(user, ns.BOOKMARKS, jid, conference, _MANY)

    async def _replace(self, user: User, storage: Element) -> None:
        """Make the items what a whole list says; notifications go out for what differs only."""
        current = {item.name: XML(item.payload) for item in await self._items(user, ns.BOOKMARKS) or ()}
        wanted = _conferences(storage)
        await self._check_space(user, len(wanted))
        for jid, conference in wanted.items():
            before = current.get(jid)
            if before is not None:
                if _facts(before) == _facts(conference):
                    continue
                conference.extend(before.findall(EXTENSIONS))
            await self._publisher.put_own(user, ns.BOOKMARKS, jid, conference, _MANY)
        for jid in current.keys() - wanted.keys():
            await self._publisher.retract_own(user, ns.BOOKMARKS, jid)
        await self._mirror(user)

    async def _mirror(self, user: User) -> None:
        """Write the items to the older places, until nobody has changed them meanwhile."""
        items = None
        while items != (now := await self._items(user, ns.BOOKMARKS) or []):
            items = now
            private = await self._private(user)
            written = to_bytes(_rewritten(private, items))
            if written != to_bytes(private):
                await self._store.private.put(user.id, STORAGE, written)
            with suppress(_NotJoinedError):
                old = await self._items(user, ns.OLD_BOOKMARKS)
                storage = XML(old[-1].payload) if old else el(STORAGE)
                written = to_bytes(_rewritten(storage, items))
                if old is None or written != to_bytes(storage):
                    await self._publisher.put_own(user, ns.OLD_BOOKMARKS, "current", XML(written), _PRIVATE)


def _conferences(storage: Element) -> dict[str, Element]:
    """The rooms of an old list as items, by their addresses; what has no address is left out."""
    found = {}
    for conference in storage.iterfind(OLD):
        try:
            jid = parse_jid(conference.get("jid", "")).bare
        except ValueError:
            continue
        found[jid] = _translated(conference, ns.BOOKMARKS)
    return found


def _translated(conference: Element, namespace: str) -> Element:
    """A room as the other specification writes it."""
    answer = el(f"{{{namespace}}}conference")
    name, autojoin, *texts = _facts(conference)
    for attribute, value in (("name", name), ("autojoin", autojoin)):
        if value is not None:
            answer.set(attribute, value)
    for tag, text in zip(_TEXTS, texts, strict=True):
        if text is not None:
            answer.append(el(f"{{{namespace}}}{tag}", text=text))
    return answer


def _facts(conference: Element) -> list[str | None]:
    """What both specifications know of a room: name, whether to join it, nick and password."""
    space = conference.tag.removesuffix("conference")
    texts = (conference.findtext(space + tag) for tag in _TEXTS)
    return [conference.get("name"), _FLAGS.get(conference.get("autojoin", "")), *texts]


def _rewritten(storage: Element, items: list[Item]) -> Element:
    """An old list with these rooms, and with what else was in it."""
    answer = el(STORAGE)
    for item in items:
        element = XML(item.payload)
        if element.tag == NEW:
            conference = _translated(element, ns.OLD_BOOKMARKS)
            conference.attrib = {"jid": item.name, **conference.attrib}
            answer.append(conference)
    answer.extend(child for child in storage if child.tag != OLD)
    return answer


def setup(server: Server) -> None:
    """Keep the three places in step."""
    bookmarks = _Bookmarks(server)
    server.hooks.pep_changed.add(bookmarks.published)
    server.hooks.private_stored.add(bookmarks.stored)
    server.account_features.update((ns.BOOKMARKS, *FEATURES))

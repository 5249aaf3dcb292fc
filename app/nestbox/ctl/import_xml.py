"""nestboxctl user import --xep0227: accounts with all their data, from this server or another.

The file is read twice and never held as a whole: first for who is in it, with what credentials; then for the rest. What
the format allows and we cannot keep is counted by name and told, not silently dropped.
"""

from __future__ import annotations

import base64
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import IO
from xml.etree.ElementTree import Element, ParseError, iterparse

from nestbox.config import Config
from nestbox.core.errors import StanzaError
from nestbox.core.ids import id_to_ms, ms_to_id
from nestbox.core.jid import parse_jid
from nestbox.ctl import portable as names
from nestbox.ctl.context import CommandError, username
from nestbox.modules.archive_preferences import parse_prefs
from nestbox.modules.avatars import photo_hash
from nestbox.modules.pubsub.config import CONFIG_FORM, NodeConfig, defaults, options_of, with_options
from nestbox.modules.roster_items import ITEM as ROSTER_ITEM
from nestbox.modules.roster_items import QUERY as ROSTER
from nestbox.store import PasswordError, RosterItem, ScramKeys, Store
from nestbox.store.errors import StoreFull
from nestbox.store.passwords import ITERATIONS, check_password, derive_many
from nestbox.store.pubsub import View
from nestbox.store.pubsub_items import Item
from nestbox.wire.element import local_name, to_bytes
from nestbox.wire.stanza import MESSAGE, PRESENCE, Stanza

__all__ = ["Importer", "read_accounts"]

_SIZES = {"SHA-1": 20, "SHA-256": 32, "SHA-512": 64}
_CONTAINERS = (names.OFFLINE, names.MAM_ARCHIVE)
_SUBSCRIPTIONS = ("none", "to", "from", "both")


def _pieces(stream: IO[bytes], config: Config) -> Iterator[tuple[str, str, Element]]:
    """Each child of each user, and each message, as (username, password, element). Raises CommandError."""
    stack: list[Element] = []
    try:
        for event, element in iterparse(stream, events=("start", "end")):
            if event == "start":
                stack.append(element)
                if len(stack) == 1 and local_name(element.tag) != "server-data":
                    raise CommandError("The file is not of XEP-0227: it does not begin with <server-data/>.")
                if len(stack) == 2 and element.get("jid") != config.domain:
                    raise CommandError(f"The file is of {element.get('jid')!a}, this server is {config.domain}.")
                continue
            stack.pop()
            depth = len(stack)
            inside = depth == 4 and stack[3].tag in _CONTAINERS
            if inside or (depth == 3 and element.tag not in _CONTAINERS):
                yield username(config, stack[2].get("name", "")), stack[2].get("password", ""), element
            if inside or depth in (2, 3):
                del stack[-1][:]  # it is dealt with
    except ParseError as error:
        raise CommandError(f"The file is no XML: {error}.") from None


def read_accounts(stream: IO[bytes], config: Config) -> dict[str, str | dict[str, ScramKeys]]:
    """Who is in the file, each with a password or SCRAM keys. Raises CommandError for one with neither."""
    passwords: dict[str, str] = {}
    keys: dict[str, dict[str, ScramKeys]] = {}
    for name, password, element in _pieces(stream, config):
        passwords[name] = password
        if element.tag == names.CREDENTIALS:
            _add_keys(keys.setdefault(name, {}), element, name)
    found: dict[str, str | dict[str, ScramKeys]] = {}
    for name, password in passwords.items():
        if password:
            try:
                check_password(password)
            except PasswordError as error:
                raise CommandError(f"Nothing was imported: {name}: {error}.") from None
        elif name not in keys:
            raise CommandError(
                f"Nothing was imported: {name} has neither a password nor SCRAM keys that are known here."
            )
        found[name] = password or keys[name]
    if not found:
        raise CommandError("The file has no users.")
    return found


def _add_keys(keys: dict[str, ScramKeys], element: Element, name: str) -> None:
    mechanism = element.get("mechanism", "").removeprefix("SCRAM-")
    if mechanism not in ITERATIONS:
        return
    try:
        salt, server, stored = (
            base64.b64decode(element.findtext(tag, ""), validate=True)
            for tag in (names.SALT, names.SERVER_KEY, names.STORED_KEY)
        )
        iterations = int(element.findtext(names.ITERATIONS, ""))
        if {len(server), len(stored)} != {_SIZES[mechanism]} or not 0 < len(salt) <= 64 or iterations < 4096:
            raise ValueError
    except ValueError:
        raise CommandError(f"Nothing was imported: the SCRAM-{mechanism} keys of {name} are damaged.") from None
    keys[mechanism] = ScramKeys(salt, iterations, stored, server)


class Importer:
    """``skipped`` counts what could not be kept, by what it is."""

    def __init__(self, store: Store, config: Config) -> None:
        self._store = store
        self._config = config
        self._last_id = 0
        self.skipped: Counter[str] = Counter()

    async def accounts(self, found: dict[str, str | dict[str, ScramKeys]]) -> list[str]:
        """Make the accounts that are not there yet; their names."""
        existing = set(await self._store.accounts.existing(found))
        new = {name: how for name, how in found.items() if name not in existing}
        plain = [name for name, how in new.items() if isinstance(how, str)]
        derived = await derive_many(new[name] for name in plain)
        new.update(zip(plain, derived, strict=True))
        there = set(await self._store.accounts.create_many(new.items()))
        return [name for name in new if name not in there]

    async def data(self, stream: IO[bytes], accounts: list[str]) -> None:
        """Give the accounts, which are new, what the file has for them. Raises CommandError, StoreError."""
        ids = {name: (await self._store.accounts.get(name)).id for name in accounts}
        handlers = {
            names.CREDENTIALS: self._nothing,
            names.DISABLED: self._disable,
            ROSTER: self._roster,
            PRESENCE: self._request,
            names.VCARD: self._vcard,
            names.PRIVATE: self._private,
            names.PRIVACY_QUERY: self._privacy,
            names.BLOCKLIST: self._blocklist,
            names.PREFS: self._prefs,
            MESSAGE: self._offline,
            names.RESULT: self._archived,
            names.OWNER: self._node,
            names.PUBSUB: self._items,
        }
        for name, _, element in _pieces(stream, self._config):
            if name not in ids:
                continue
            handler = handlers.get(element.tag)
            if handler is None:
                self.skipped[local_name(element.tag)] += 1
                continue
            try:
                await handler(ids[name], name, element)
            except (ValueError, StanzaError, StoreFull):
                self.skipped[local_name(element.tag)] += 1
        await self._store.committer.flush()

    async def _nothing(self, user_id: int, name: str, element: Element) -> None:
        """Dealt with before."""

    async def _disable(self, user_id: int, name: str, element: Element) -> None:
        await self._store.accounts.set_enabled(name, False)

    async def _roster(self, user_id: int, name: str, element: Element) -> None:
        for child in element.iterfind(ROSTER_ITEM):
            subscription = child.get("subscription", "none")
            if subscription not in _SUBSCRIPTIONS:
                self.skipped["roster item"] += 1
                continue
            item = RosterItem(
                parse_jid(child.get("jid", "")).bare,
                child.get("name", ""),
                subscription,
                child.get("ask") == "subscribe",
                child.get("approved") in ("true", "1"),
                [group.text for group in child if group.text],
            )
            await self._store.roster.put(user_id, item)

    async def _request(self, user_id: int, name: str, element: Element) -> None:
        if element.get("type") != "subscribe":
            raise ValueError
        await self._store.roster.add_request(user_id, parse_jid(element.get("from", "")).bare, Stanza(element).encode())

    async def _vcard(self, user_id: int, name: str, element: Element) -> None:
        await self._store.vcards.put(user_id, _bytes(element))
        await self._store.accounts.set_photo(user_id, photo_hash(element))

    async def _private(self, user_id: int, name: str, element: Element) -> None:
        for child in element:
            await self._store.private.put(user_id, child.tag, _bytes(child))

    async def _privacy(self, user_id: int, name: str, element: Element) -> None:
        """Of privacy lists, whole addresses that the default list denies are what blocking knows."""
        default = element.find(names.PRIVACY_DEFAULT)
        for each in element.iterfind(names.PRIVACY_LIST):
            items = list(each.iterfind(names.PRIVACY_ITEM))
            if default is None or each.get("name") != default.get("name"):
                self.skipped["privacy list"] += 1
                continue
            denied = [item for item in items if (item.get("type"), item.get("action")) == ("jid", "deny")]
            whole = [item for item in denied if not len(item)]
            self.skipped["privacy rule"] += len(items) - len(whole)
            await self._store.blocking.add(user_id, [str(parse_jid(item.get("value", ""))) for item in whole])
        self.skipped += Counter()  # forget zeros

    async def _blocklist(self, user_id: int, name: str, element: Element) -> None:
        jids = [str(parse_jid(item.get("jid", ""))) for item in element.iterfind(names.BLOCK_ITEM)]
        await self._store.blocking.add(user_id, jids)

    async def _prefs(self, user_id: int, name: str, element: Element) -> None:
        await self._store.archive.set_prefs(user_id, parse_prefs(element))

    async def _offline(self, user_id: int, name: str, element: Element) -> None:
        delay = element.find(names.DELAY)
        stamp = delay.get("stamp", "") if delay is not None else ""
        self._store.committer.offline(user_id, self._id(stamp, ""), _stanza(element))
        await self._breathe()

    async def _archived(self, user_id: int, name: str, element: Element) -> None:
        forwarded = element.find(names.FORWARDED)
        if forwarded is None:
            raise ValueError
        delay, message = forwarded.find(names.DELAY), forwarded.find(MESSAGE)
        if delay is None or message is None:
            raise ValueError
        own = f"{name}@{self._config.domain}"
        sender = parse_jid(message.get("from", own))
        peer = sender if sender.bare != own else parse_jid(message.get("to", own))
        row_id = self._id(delay.get("stamp", ""), element.get("id", ""))
        self._store.committer.archive(user_id, row_id, peer.bare, _stanza(message))
        await self._breathe()

    def _id(self, stamp: str, wanted: str) -> int:
        """An id for a time: the one that it had where it is ours, which says the same time; else a new one."""
        ms = int(datetime.fromisoformat(stamp).timestamp() * 1000)
        if wanted.isascii() and wanted.isdigit() and len(wanted) < 20 and id_to_ms(int(wanted)) == ms:
            return int(wanted)
        row_id = ms_to_id(ms)
        # Of messages with one stamp, and of another server's seconds, each needs an id of its own.
        self._last_id = self._last_id + 1 if row_id <= self._last_id < ms_to_id(ms + 1) - 1 else row_id
        return self._last_id

    async def _breathe(self) -> None:
        """The store takes so much at once."""
        if self._store.committer.waiting_rows >= 1_000:
            await self._store.committer.flush()

    # PEP

    async def _node(self, user_id: int, name: str, element: Element) -> None:
        home = f"{name}@{self._config.domain}"
        for configure in element.iterfind(names.CONFIGURE):
            for form in configure:
                form.set("type", "submit")
            config = with_options(defaults(True), options_of(configure, CONFIG_FORM), strict=False)
            view = await self._view(user_id, home, configure.get("node", ""), config)
            limit = config.keep(self._config.limits.pubsub_items)
            await self._store.pubsub.configure(view.node.id, config.encode(), limit)
        for affiliations in element.iterfind(names.AFFILIATIONS):
            view = await self._view(user_id, home, affiliations.get("node", ""), defaults(True))
            changes = {
                parse_jid(each.get("jid", "")).bare: (each.get("affiliation", "none"), None)
                for each in affiliations.iterfind(names.AFFILIATION)
            }
            limit = self._config.limits.pubsub_subscriptions
            await self._store.pubsub_people.affiliate(view.node.id, user_id, changes, limit, False)

    async def _items(self, user_id: int, name: str, element: Element) -> None:
        home, limits = f"{name}@{self._config.domain}", self._config.limits
        for items in element.iterfind(names.ITEMS):
            view = await self._view(user_id, home, items.get("node", ""), defaults(True))
            for child in items.iterfind(names.ITEM):
                payload = to_bytes(child[0], "") if len(child) else b""
                item = Item(child.get("id", ""), payload, child.get("publisher", home), 0)
                await self._store.pubsub_items.publish(
                    view.node.id, user_id, item, limits.pubsub_items, limits.pubsub_bytes
                )

    async def _view(self, user_id: int, home: str, node: str, config: NodeConfig) -> View:
        view = await self._store.pubsub.view(home, node, home)
        if view is None:
            limit = self._config.limits.pubsub_nodes
            await self._store.pubsub.create(user_id, home, node, config.encode(), int(time.time()), limit)
            view = await self._store.pubsub.view(home, node, home)
        return view


def _bytes(element: Element) -> bytes:
    element.tail = None
    return to_bytes(element)


def _stanza(message: Element) -> bytes:
    message.tail = None
    return Stanza(message).encode()

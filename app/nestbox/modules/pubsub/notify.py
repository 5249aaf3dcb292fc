"""Notifications (XEP-0060, section 7.1.2; XEP-0163, section 4): who gets one, and how it gets there.

A notification is serialised once. It goes to all workers with the bare JIDs of those who see the owner's presence and
may read the node, and with the addresses that have subscribed to it; each worker hands it to its own sessions, of which
it knows what they ask for (`Session.notify`). It is never kept for later: who comes online gets the last item of each
node that it asks for, in one query of the worker that has the session. So it does not matter which worker published.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING
from xml.etree.ElementTree import XML

import msgspec

from nestbox.core.delay import DELAY, timestamp
from nestbox.core.ids import id_to_ms, ms_to_id
from nestbox.core.jid import JID, parse_jid
from nestbox.core.registry import Part
from nestbox.modules.pubsub.access import SEES, Access, Seen, groups_of, refusal
from nestbox.modules.pubsub.config import NodeConfig
from nestbox.modules.pubsub.names import of_event
from nestbox.store.pubsub_items import Item, Last
from nestbox.wire.element import Element, el
from nestbox.wire.stanza import MESSAGE, Stanza, parse_stanza, readdress

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.core.session import Session
    from nestbox.core.users import User

__all__ = ["PART", "Audience", "Notifier", "item_event"]

# The bare JIDs of those who get it if their clients ask for the node, and addresses that have subscribed to it.
Audience = tuple[list[str], list[str]]

PART = "pubsub"
MOVE_MS = 10_000  # clocks of workers on different hosts differ by less, and a publication is told sooner
_SEEN_BY_US = ("to", "both")


class _Notice(msgspec.Struct, tag="notice", array_like=True):
    """A message without ``to``: for the sessions of ``bares`` that ask for ``node``, and for all of ``subscribed``."""

    sender: str
    node: str
    data: bytes
    bares: list[str]
    subscribed: list[str]


class _Approved(msgspec.Struct, tag="approved", array_like=True):
    """``contact`` may see the presence of ``owner`` from now on."""

    owner: str
    contact: str


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Notice | _Approved).decode


def item_event(node: str, config: NodeConfig, item: Item | None) -> Element:
    """What is said of an item, None for a publication without one (section 7.1.2)."""
    items = el(of_event("items"), {"node": node})
    if item is not None:
        element = el(of_event("item"), {"id": item.name})
        if config.itemreply == "publisher":
            element.set("publisher", item.publisher)
        if config.deliver_payloads and item.payload:
            element.append(XML(item.payload))
        items.append(element)
    return items


class Notifier:
    """Sends notifications; stateless, so that whoever needs one may make one."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._store = server.store

    async def tell(self, access: Access, what: Element) -> None:
        """Send everybody who is to have it a notification of a node."""
        self.tell_audience(access, await self.audience(access), what)

    def tell_audience(self, access: Access, audience: Audience, what: Element) -> None:
        """Send a notification to those who were found to have it before the node was deleted."""
        data = _message(access.service.home, access.config, what).encode()
        for jid in audience[1]:
            if parse_jid(jid).domain != self._server.router.domain:  # a component's
                self._server.router.send(parse_stanza(readdress(data, jid)))
        self._all(_Notice(access.service.home, access.node.name, data, *audience))

    async def audience(self, access: Access) -> Audience:
        """Who is to have notifications of a node, of those who are online."""
        node, config = access.node, access.config
        owner = await self._server.users.load(node.owner)
        if owner is None or not config.deliver_notifications:
            return [], []
        affiliations = await self._store.pubsub_people.affiliations(node.id)
        subscriptions = await self._store.pubsub_people.subscriptions(node.id)
        contacts = await self._contacts(owner, config)
        online, hosts = self._server.registry.of, self._server.router.hosts

        def may(bare: str, subscribed: bool) -> bool:
            if not online(bare) and bare.rpartition("@")[2] not in hosts:
                return False
            if bare == owner.jid and access.service.user is not None:
                return True
            if owner.blocked and owner.blocks(parse_jid(bare)):
                return False
            seen = contacts.get(bare, Seen())
            return refusal(config, affiliations.get(bare, "none"), subscribed, seen) is None

        bares = []
        if access.service.user is not None:
            bares = [jid for jid, seen in contacts.items() if seen.subscription in SEES and may(jid, False)]
            bares.append(owner.jid)
        return bares, [each.jid for each in subscriptions if each.state == "subscribed" and may(each.bare, True)]

    async def _contacts(self, owner: User, config: NodeConfig) -> dict[str, Seen]:
        if config.access_model == "roster":
            items = await self._store.roster.items(owner.id)
            return {item.jid: Seen(item.subscription, item.groups) for item in items}
        contacts = await self._server.users.contacts(owner)
        return {jid: Seen(subscription) for jid, subscription in contacts.items()}

    def _all(self, op: msgspec.Struct) -> None:
        registry = self._server.registry
        registry.tell_all(Part(PART, registry.worker, _encode(op)))

    # on each worker

    def received(self, worker: int, data: bytes) -> None:
        """Something for sessions of this worker."""
        op = _decode(data)
        if isinstance(op, _Notice):
            self._hand_out(op)
            return
        for session in self._sessions(op.contact):
            if session.notify:
                self._server.spawn(self._last_items(session, [op.owner], session.notify, 0))

    def _hand_out(self, op: _Notice) -> None:
        sender = parse_jid(op.sender)
        chosen: dict[str, Session] = {}
        for bare in op.bares:
            chosen.update((s.full, s) for s in self._sessions(bare) if op.node in s.notify)
        for address in op.subscribed:
            jid = parse_jid(address)
            if jid.resource:
                session = self._server.registry.sessions.get(address)
                found = [session] if session is not None else []
            else:
                found = [session for session in self._sessions(jid.bare) if session.entry.priority >= 0]
            chosen.update((session.full, session) for session in found)
        for session in chosen.values():
            if not (session.user.blocked and session.user.blocks(sender)):
                session.send(readdress(op.data, session.full), False)

    def _sessions(self, bare: str) -> list[Session]:
        """The available sessions of an account on this worker."""
        registry = self._server.registry
        found = (registry.sessions.get(entry.jid) for entry in registry.available(bare))
        return [session for session in found if session is not None]

    # what somebody has missed

    def interested(self, session: Session, nodes: frozenset[str]) -> None:
        """A session asks for more nodes than before: it gets their last items, its own and those of its contacts.

        One that came from another worker gets only what it may have missed on the way.
        """
        since = 0 if session.moved_at is None else ms_to_id(max(0, int(session.moved_at * 1000) - MOVE_MS))
        self._server.spawn(self._arrived(session, nodes, since))

    async def _arrived(self, session: Session, nodes: frozenset[str], since: int) -> None:
        user = session.user
        contacts = await self._server.users.contacts(user)
        domain = f"@{self._server.config.domain}"
        homes = [jid for jid, state in contacts.items() if state in _SEEN_BY_US and jid.endswith(domain)]
        if user.blocked:
            homes = [jid for jid in homes if not user.blocks(parse_jid(jid))]
        await self._last_items(session, [user.jid, *homes], nodes, since)

    def approved(self, owner: str, contact: str) -> None:
        """A contact may see an account's presence from now on, and so its nodes."""
        self._all(_Approved(owner, contact))

    async def _last_items(self, session: Session, homes: Sequence[str], nodes: Collection[str], since: int) -> None:
        jid = session.jid
        addresses = {jid.bare, str(jid), jid.domain, f"{jid.domain}/{jid.resource}"}
        for last in await self._store.pubsub_items.last(homes, nodes, jid.bare, addresses, since):
            config = NodeConfig.decode(last.config)
            # What came meanwhile is news, not the last item of old.
            wanted = config.deliver_notifications and (
                since or config.send_last_published_item == "on_sub_and_presence"
            )
            if not wanted or not _may_have(last, config, jid):
                continue
            item = last.item if last.item.payload is not None else await self._whole(last)
            if session.ended or session.entry.priority is None:
                return
            if item is not None:
                message = _message(last.home, config, item_event(last.node, config, item), item)
                session.send(message.encode(session.full), False)

    async def _whole(self, last: Last) -> Item | None:
        """A large item, one at a time; None when it is gone."""
        page = await self._store.pubsub_items.named(last.node_id, [last.item.name], 0)
        return page.items[0] if page.items else None

    async def last_item(self, access: Access, to: JID) -> None:
        """Send a new subscriber the last item (section 6.1.7)."""
        config = access.config
        if config.send_last_published_item == "never" or not config.deliver_notifications:
            return
        page = await self._store.pubsub_items.page(access.node.id, limit=1, max_bytes=0, backward=True)
        for item in page.items if page is not None else ():
            what = item_event(access.node.name, config, item)
            message = _message(access.service.home, config, what, item)
            self.send(message, [str(to)])

    def send(self, message: Stanza, addresses: Iterable[str]) -> None:
        """Send a message to addresses, bare or full, where there is somebody; it is not kept."""
        for address in addresses:
            message.element.set("to", address)
            self._server.router.send(message)


def _may_have(last: Last, config: NodeConfig, jid: JID) -> bool:
    if last.home == jid.bare:
        return True
    seen = Seen(last.subscription, groups_of(last.groups_json))
    return seen.subscription in SEES and refusal(config, last.affiliation, False, seen) is None


def _message(home: str, config: NodeConfig, what: Element, old: Item | None = None) -> Stanza:
    """A notification; that of an ``old`` item says since when there is that."""
    attributes = {"type": config.notification_type, "id": secrets.token_urlsafe(8), "from": home}
    delay = [el(DELAY, {"stamp": timestamp(id_to_ms(old.seq))})] if old is not None else []
    return Stanza(el(MESSAGE, attributes, el(of_event("event"), None, what), *delay))

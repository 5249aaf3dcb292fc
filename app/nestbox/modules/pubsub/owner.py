"""What owners do: create, configure and delete nodes, and say who may do what (XEP-0060, section 8)."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.core.jid import JID
from nestbox.modules.dataforms import FORM
from nestbox.modules.pubsub.access import Gate, Service
from nestbox.modules.pubsub.config import CONFIG_FORM, config_form, defaults, options_of, with_options
from nestbox.modules.pubsub.names import node_of, of_event, of_ns, of_owner, refuse, subject
from nestbox.modules.pubsub.notify import Notifier
from nestbox.modules.pubsub.publish import Publisher, check_name
from nestbox.modules.pubsub.subscribe import Subscriber, subscription_element
from nestbox.store.errors import StoreFull
from nestbox.store.pubsub_people import Subscription
from nestbox.wire import ns
from nestbox.wire.element import Element, el

if TYPE_CHECKING:
    from nestbox.core.server import Server

__all__ = ["Owner"]

_AFFILIATIONS = ("owner", "publisher", "member", "outcast", "none")
_STATES = ("subscribed", "pending", "none")
ENTRIES_MAX = 200  # changed by one request


class Owner:
    """Answers what owners ask."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._store = server.store
        self._gate = Gate(server)
        self._publisher = Publisher(server)
        self._subscriber = Subscriber(server)
        self._notifier = Notifier(server)

    async def create(self, service: Service, sender: JID, pubsub: Element, element: Element) -> Element | None:
        """``<create/>`` with ``<configure/>`` (section 8.1); without a name the service finds one."""
        name = element.get("node")
        check_name(name or "")
        configure = pubsub.find(of_ns("configure"))
        options = options_of(configure, CONFIG_FORM) if configure is not None else {}
        user = await self._server.users.load(sender.local) if sender.domain == self._server.config.domain else None
        if user is None or (service.user is not None and service.user.jid != sender.bare):
            raise StanzaError("forbidden", "You may not create nodes here.")
        config = with_options(defaults(service.user is not None), options, strict=False)
        given = name or secrets.token_urlsafe(12)
        if not await self._publisher.create(service, user, given, config):
            raise StanzaError("conflict", "There is a node of that name.")
        return None if name else el(of_ns("pubsub"), None, el(of_ns("create"), {"node": given}))

    async def default(self, service: Service) -> Element:
        """What a new node would be (section 8.3)."""
        return _answer(el(of_owner("default"), None, config_form(defaults(service.user is not None))))

    async def configuration(self, service: Service, sender: JID, element: Element) -> Element:
        """The form of a node (section 8.2.1)."""
        access = await self._gate.owned(service, node_of(element), sender)
        return _answer(el(of_owner("configure"), {"node": access.node.name}, config_form(access.config)))

    async def configure(self, service: Service, sender: JID, element: Element) -> None:
        """The form filled in, or given up (section 8.2.4)."""
        access = await self._gate.owned(service, node_of(element), sender)
        x = element.find(FORM)
        if x is None:
            raise StanzaError("bad-request", "Where is the form?")
        if x.get("type") == "cancel":
            return
        config = with_options(access.config, options_of(element, CONFIG_FORM), strict=False)
        keep = config.keep(self._server.config.limits.pubsub_items) if config.persist_items else 0
        await self._store.pubsub.configure(access.node.id, config.encode(), keep)
        if config.notify_config:
            what = el(of_event("configuration"), {"node": access.node.name})
            if config.deliver_payloads:
                form = config_form(config)
                form.set("type", "result")
                what.append(form)
            await self._notifier.tell(await self._gate.find(service, access.node.name, sender), what)

    async def delete(self, service: Service, sender: JID, element: Element) -> None:
        """``<delete/>``, with the address of what takes its place (section 8.4)."""
        access = await self._gate.owned(service, node_of(element), sender)
        redirect = element.find(of_owner("redirect"))
        what = el(of_event("delete"), {"node": access.node.name})
        if redirect is not None:
            what.append(el(of_event("redirect"), {"uri": redirect.get("uri", "")}))
        audience = await self._notifier.audience(access) if access.config.notify_delete else None
        if not await self._store.pubsub.delete(access.node.id):
            raise StanzaError("item-not-found", "There is no such node.")
        if audience is not None:
            self._notifier.tell_audience(access, audience, what)
        if service.user is not None:
            await self._server.hooks.pep_changed.run(service.user, access.node.name)

    # who has to do with a node (sections 8.8 and 8.9)

    async def subscriptions(self, service: Service, sender: JID, element: Element) -> Element:
        """All subscriptions of a node."""
        access = await self._gate.owned(service, node_of(element), sender)
        answer = el(of_owner("subscriptions"), {"node": access.node.name})
        for each in await self._store.pubsub_people.subscriptions(access.node.id):
            entry = subscription_element(each, of_owner("subscription"))
            del entry.attrib["node"]
            answer.append(entry)
        return _answer(answer)

    async def set_subscriptions(self, service: Service, sender: JID, element: Element) -> None:
        """Change the subscriptions named."""
        access = await self._gate.owned(service, node_of(element), sender)
        changes = []
        for each in _entries(element, "subscription", _STATES):
            jid, state = subject(each), each.get("subscription", "")
            subid = secrets.token_urlsafe(12)
            changes.append(Subscription(access.node.name, str(jid), jid.bare, state, subid))
        for change in changes:
            await self._subscriber.change(access, change)

    async def affiliations(self, service: Service, sender: JID, element: Element) -> Element:
        """All affiliations of a node."""
        access = await self._gate.owned(service, node_of(element), sender)
        known = await self._store.pubsub_people.affiliations(access.node.id)
        if service.user is not None:
            known[service.user.jid] = "owner"
        answer = el(of_owner("affiliations"), {"node": access.node.name})
        answer.extend(el(of_owner("affiliation"), {"jid": jid, "affiliation": known[jid]}) for jid in sorted(known))
        return _answer(answer)

    async def set_affiliations(self, service: Service, sender: JID, element: Element) -> None:
        """Change the affiliations named; somebody must be left as owner (section 8.9.2.4)."""
        access = await self._gate.owned(service, node_of(element), sender)
        changes: dict[str, tuple[str, int | None]] = {}
        for each in _entries(element, "affiliation", _AFFILIATIONS):
            jid = subject(each)
            if jid.bare in changes:
                raise StanzaError("bad-request", f"{jid.bare} is named twice.")
            if service.user is not None and service.user.jid == jid.bare:
                raise StanzaError("not-acceptable", "An account always owns its nodes.")
            changes[jid.bare] = (each.get("affiliation", ""), await self._gate.account_id(jid))
        limit = self._server.config.limits.pubsub_subscriptions
        node = access.node
        people = self._store.pubsub_people
        try:
            done = await people.affiliate(node.id, node.user_id, changes, limit, service.user is None)
        except StoreFull as error:
            raise StanzaError("resource-constraint", str(error), limit=error.limit) from None
        if not done:
            raise StanzaError("not-acceptable", "A node has at least one owner.")


def _entries(element: Element, name: str, values: tuple[str, ...]) -> list[Element]:
    """The entries of a list that is to be changed. Raises StanzaError for a value that there is not."""
    entries = [each for each in element if each.tag == of_owner(name)]
    if not entries:
        raise StanzaError("bad-request", "There is nothing to change.")
    if len(entries) > ENTRIES_MAX:
        raise StanzaError("not-acceptable", f"Change at most {ENTRIES_MAX} at a time.", limit="pubsub_entries")
    for each in entries:
        if each.get(name) == "publish-only":
            raise refuse("feature-not-implemented", "unsupported", feature="publish-only-affiliation")
        if each.get(name) not in values:
            raise StanzaError("bad-request", f"There is no {name} {each.get(name)}.")
    return entries


def _answer(element: Element) -> Element:
    return el(f"{{{ns.PUBSUB_OWNER}}}pubsub", None, element)

"""Subscribing to nodes and what one has to do with a service (XEP-0060, sections 5.6, 5.7, 6.1, 6.2 and 8.6)."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.core.jid import JID
from nestbox.modules.dataforms import FORM, Field, form, submitted
from nestbox.modules.pubsub.access import Access, Gate, Service
from nestbox.modules.pubsub.names import node_of, of_event, of_ns, refuse, subject
from nestbox.modules.pubsub.notify import Notifier
from nestbox.store.errors import StoreFull
from nestbox.store.pubsub_people import Subscription
from nestbox.wire import ns
from nestbox.wire.element import Element, el
from nestbox.wire.stanza import MESSAGE, Stanza

if TYPE_CHECKING:
    from nestbox.core.server import Server

__all__ = ["Subscriber", "subscription_element"]

AUTHORIZATION = f"{ns.PUBSUB}#subscribe_authorization"


def subscription_element(subscription: Subscription, tag: str) -> Element:
    """A ``<subscription/>`` of any of the namespaces."""
    attributes = {"node": subscription.node, "jid": subscription.jid, "subscription": subscription.state}
    if subscription.subid:
        attributes["subid"] = subscription.subid
    return el(tag, attributes)


class Subscriber:
    """Answers what subscribers ask, and takes the owners' word on those who wait for it."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._people = server.store.pubsub_people
        self._gate = Gate(server)
        self._notifier = Notifier(server)

    async def subscribe(self, service: Service, sender: JID, element: Element) -> Element:
        """``<subscribe/>`` (section 6.1)."""
        name, jid = node_of(element), subject(element)
        if jid.bare != sender.bare:
            raise refuse("bad-request", "invalid-jid", "You can subscribe nobody but yourself.")
        access = await self._gate.find(service, name, sender)
        if access.state == "pending":
            raise refuse("not-authorized", "pending-subscription", "The owner has not answered yet.")
        state = "subscribed"
        error = await self._gate.why_not(access, sender)
        if error is not None:
            if access.config.access_model != "authorize" or access.affiliation == "outcast":
                raise error
            state = "pending"
        wanted = Subscription(name, str(jid), jid.bare, state, secrets.token_urlsafe(12))
        subscription = await self.enter(access, wanted, await self._gate.account_id(jid))
        if state == "pending":
            await self._ask_owners(access, subscription)
        elif not access.state:
            # After the answer, which is sent as soon as this returns (section 6.1.7).
            self._server.spawn(self._notifier.last_item(access, jid))
        return el(of_ns("pubsub"), None, subscription_element(subscription, of_ns("subscription")))

    async def enter(self, access: Access, wanted: Subscription, subject_id: int | None) -> Subscription:
        """Keep a subscription. Raises StanzaError."""
        limit = self._server.config.limits.pubsub_subscriptions
        node = access.node
        try:
            subscription = await self._people.subscribe(node.id, node.user_id, subject_id, wanted, limit)
        except StoreFull as error:
            raise refuse("policy-violation", "too-many-subscriptions", str(error), limit=error.limit) from None
        if subscription is None:
            raise StanzaError("item-not-found", "There is no such node.")
        return subscription

    async def unsubscribe(self, service: Service, sender: JID, element: Element) -> None:
        """``<unsubscribe/>`` (section 6.2)."""
        name, jid = node_of(element), subject(element)
        if jid.bare != sender.bare:
            raise StanzaError("forbidden", "This is somebody else's subscription.")
        access = await self._gate.find(service, name, sender)
        mine = {each.jid: each for each in await self._people.subscriptions(access.node.id)}.get(str(jid))
        if mine is None:
            raise refuse("unexpected-request", "not-subscribed", "You are not subscribed.", type="cancel")
        if element.get("subid") not in (None, "", mine.subid):
            raise refuse("not-acceptable", "invalid-subid", "There is no subscription of that id.")
        await self._people.unsubscribe(access.node.id, str(jid))

    async def subscriptions(self, service: Service, sender: JID, element: Element) -> Element:
        """The sender's subscriptions at this service, or at one node (section 5.6)."""
        node = element.get("node")
        answer = el(of_ns("subscriptions"), {"node": node} if node else {})
        for each in await self._people.subscribed(service.home, sender.bare):
            if node in (None, each.node):
                answer.append(subscription_element(each, of_ns("subscription")))
        return el(of_ns("pubsub"), None, answer)

    async def affiliations(self, service: Service, sender: JID, element: Element) -> Element:
        """The sender's affiliations at this service, or at one node (section 5.7)."""
        node = element.get("node")
        answer = el(of_ns("affiliations"), {"node": node} if node else {})
        if service.user is not None and service.user.jid == sender.bare:
            views = await self._server.store.pubsub.views(service.home, sender.bare)
            found = [(view.node.name, "owner") for view in views]
        else:
            found = await self._people.affiliated(service.home, sender.bare)
        for name, affiliation in found:
            if node in (None, name):
                answer.append(el(of_ns("affiliation"), {"node": name, "affiliation": affiliation}))
        return el(of_ns("pubsub"), None, answer)

    # the access model authorize (section 8.6)

    async def _ask_owners(self, access: Access, subscription: Subscription) -> None:
        fields = [
            Field("text-single", "pubsub#node", "Node", [subscription.node]),
            Field("jid-single", "pubsub#subscriber_jid", "Subscriber", [subscription.jid]),
            Field("boolean", "pubsub#allow", "Allow this address to subscribe?", ["0"]),
        ]
        request = form(AUTHORIZATION, fields, title="Somebody asks to subscribe")
        attributes = {"from": access.service.home, "id": secrets.token_urlsafe(8)}
        self._notifier.send(Stanza(el(MESSAGE, attributes, request)), await self._owners(access))

    async def _owners(self, access: Access) -> list[str]:
        if access.service.user is not None:
            return [access.service.user.jid]
        affiliations = await self._people.affiliations(access.node.id)
        return [jid for jid, affiliation in affiliations.items() if affiliation == "owner"]

    @staticmethod
    def answers(message: Element) -> bool:
        """Whether a message is an owner's word on a subscriber."""
        x = message.find(FORM)
        if x is None or x.get("type") not in ("submit", "cancel"):
            return False
        field = x.find(f"{{{ns.DATA_FORMS}}}field[@var='FORM_TYPE']/{{{ns.DATA_FORMS}}}value")
        return field is not None and field.text == AUTHORIZATION

    async def answered(self, service: Service, sender: JID, message: Element) -> None:
        """Take an owner's word. Raises StanzaError."""
        x = message.find(FORM)
        if x is None or x.get("type") == "cancel":
            return
        values = {name: given[0] for name, given in submitted(x, AUTHORIZATION).items() if given}
        access = await self._gate.owned(service, values.get("pubsub#node", ""), sender)
        waiting = {each.jid: each for each in await self._people.subscriptions(access.node.id)}
        subscription = waiting.get(values.get("pubsub#subscriber_jid", ""))
        if subscription is None or subscription.state != "pending":
            raise StanzaError("item-not-found", "Nobody of that address waits for an answer.")
        allowed = values.get("pubsub#allow") in ("1", "true")
        await self.change(access, subscription._replace(state="subscribed" if allowed else "none"))

    async def change(self, access: Access, subscription: Subscription) -> None:
        """Set the state of a subscription for its owner: subscribed, pending or none; and tell the subscriber."""
        jid = subject(el(of_ns("subscription"), {"jid": subscription.jid}))
        if subscription.state == "none":
            subscription = subscription._replace(subid="")
            if not await self._people.unsubscribe(access.node.id, subscription.jid):
                return
        else:
            subscription = await self.enter(access, subscription, await self._gate.account_id(jid))
        what = subscription_element(subscription, of_event("subscription"))
        attributes = {"from": access.service.home, "id": secrets.token_urlsafe(8), "type": "headline"}
        self._notifier.send(Stanza(el(MESSAGE, attributes, el(of_event("event"), None, what))), [subscription.jid])
        if subscription.state == "subscribed":
            await self._notifier.last_item(access, jid)

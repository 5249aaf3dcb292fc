"""Publish-Subscribe (XEP-0060) at ``pubsub.DOMAIN`` for all accounts, and at every account's own address (XEP-0163)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.core.jid import JID
from nestbox.modules import Xep
from nestbox.modules.disco import INFO, ITEMS
from nestbox.modules.pubsub.access import Service
from nestbox.modules.pubsub.discovery import Discovery, features
from nestbox.modules.pubsub.items import Retriever
from nestbox.modules.pubsub.names import of_ns, of_owner, refuse
from nestbox.modules.pubsub.notify import PART, Notifier
from nestbox.modules.pubsub.owner import Owner
from nestbox.modules.pubsub.publish import Publisher
from nestbox.modules.pubsub.subscribe import Subscriber
from nestbox.wire.element import Element, local_name
from nestbox.wire.stanza import iq_result

if TYPE_CHECKING:
    from nestbox.core.hooks import IqContext, MessageContext
    from nestbox.core.server import Server
    from nestbox.core.session import Session
    from nestbox.wire.stanza import Stanza

__all__ = ["XEPS", "setup"]

XEPS = (
    Xep(60, "1.26.0", "no collections, subscription options, item expiry or publish-only affiliation"),
    Xep(163, "1.2.2"),
    Xep(223, "1.1.1"),
    Xep(490, "1.0.1", "no assistance by the server"),
)


class _Pubsub:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._host = Service(JID("", f"pubsub.{server.config.domain}"), None)
        self._publisher = Publisher(server)
        self._retriever = Retriever(server)
        self._subscriber = Subscriber(server)
        self._owner = Owner(server)
        self._discovery = Discovery(server)

    # where requests come from

    async def to_account(self, context: IqContext) -> Element | None:
        """A request to the service of an account."""
        return await self._answer(await self._service(context), context.sender, context.stanza)

    async def disco_account(self, context: IqContext) -> Element:
        """A disco query about nodes of an account (`Server.account_disco`)."""
        return await self._discovery.answer(await self._service(context), context.sender, context.payload)

    async def _service(self, context: IqContext) -> Service:
        user = await self._server.users.load(context.account)
        if user is None:
            raise StanzaError("service-unavailable")
        return Service(context.to, user)

    async def to_host(self, sender: JID, to: JID, stanza: Stanza, session: Session | None) -> int:
        """A stanza to the service of the host (`Router.hosts`)."""
        if to.local:
            raise StanzaError("item-not-found", "There is nothing but the service itself.")
        if stanza.kind == "message":
            if not self._subscriber.answers(stanza.element):
                raise StanzaError("service-unavailable", "This service takes no messages.")
            await self._subscriber.answered(self._host, sender, stanza.element)
        elif stanza.kind == "iq":
            if stanza.type in ("get", "set"):
                self._server.router.send(iq_result(stanza, await self._answer(self._host, sender, stanza)))
            else:
                self._server.questions.answered(stanza)
        return 0

    def message(self, context: MessageContext) -> bool:
        """An account's word on who may subscribe to a node of its own (section 8.6)."""
        owner_of = context.recipient
        if (
            owner_of is None
            or context.sender.bare != owner_of.jid
            or not self._subscriber.answers(context.stanza.element)
        ):
            return False
        context.work = self._approve(Service(context.to.bare_jid, owner_of), context)
        return True

    async def _approve(self, service: Service, context: MessageContext) -> int:
        await self._subscriber.answered(service, context.sender, context.stanza.element)
        return 0  # it is committed

    # what they ask

    async def _answer(self, service: Service, sender: JID, stanza: Stanza) -> Element | None:
        payload = stanza.payload
        if payload is None:
            raise StanzaError("bad-request")
        if payload.tag == of_ns("pubsub"):
            return await self._of_all(service, sender, stanza.type or "", payload)
        if payload.tag == of_owner("pubsub"):
            return await self._of_owner(service, sender, stanza.type or "", payload)
        if payload.tag in (INFO, ITEMS) and stanza.type == "get":
            return await self._discovery.answer(service, sender, payload)
        raise StanzaError("service-unavailable")

    async def _of_all(self, service: Service, sender: JID, kind: str, pubsub: Element) -> Element | None:
        with_all = {
            ("get", "items"): self._retriever.items,
            ("set", "publish"): self._publisher.publish,
            ("set", "create"): self._owner.create,
        }
        alone = {
            ("set", "retract"): self._publisher.retract,
            ("set", "subscribe"): self._subscriber.subscribe,
            ("set", "unsubscribe"): self._subscriber.unsubscribe,
            ("get", "subscriptions"): self._subscriber.subscriptions,
            ("get", "affiliations"): self._subscriber.affiliations,
        }
        for element in pubsub:  # what goes with it, such as options, may stand before it
            what = (kind, local_name(element.tag))
            if element.tag != of_ns(what[1]):
                continue
            if what in with_all:
                return await with_all[what](service, sender, pubsub, element)
            if what in alone:
                return await alone[what](service, sender, element)
        raise _unsupported(kind, pubsub)

    async def _of_owner(self, service: Service, sender: JID, kind: str, pubsub: Element) -> Element | None:
        element = pubsub[0] if len(pubsub) else pubsub
        if element.tag == of_owner("default") and kind == "get":
            return await self._owner.default(service)
        handlers = {
            ("get", of_owner("configure")): self._owner.configuration,
            ("set", of_owner("configure")): self._owner.configure,
            ("set", of_owner("delete")): self._owner.delete,
            ("set", of_owner("purge")): self._publisher.purge,
            ("get", of_owner("subscriptions")): self._owner.subscriptions,
            ("set", of_owner("subscriptions")): self._owner.set_subscriptions,
            ("get", of_owner("affiliations")): self._owner.affiliations,
            ("set", of_owner("affiliations")): self._owner.set_affiliations,
        }
        handler = handlers.get((kind, element.tag))
        if handler is None:
            raise _unsupported(kind, pubsub)
        return await handler(service, sender, element)


def _unsupported(kind: str, pubsub: Element) -> StanzaError:
    """What the XEP has and we do not offer has an error that names it; the rest is no request."""
    missing = {of_ns("options"): "subscription-options", of_ns("default"): "retrieve-default-sub"}
    for element in pubsub:
        if element.tag in missing:
            return refuse("feature-not-implemented", "unsupported", feature=missing[element.tag])
    return StanzaError("bad-request", f"There is nothing in it that an iq of type {kind} could ask.")


def setup(server: Server) -> None:
    """Answer at the host's service and at every account, and send notifications."""
    pubsub = _Pubsub(server)
    notifier = Notifier(server)
    for kind in ("get", "set"):
        for tag in (of_ns("pubsub"), of_owner("pubsub")):
            server.router.iq("account", kind, tag, pubsub.to_account)
    server.router.hosts[f"pubsub.{server.config.domain}"] = pubsub.to_host
    server.account_disco = pubsub.disco_account
    server.account_identities.append(("pubsub", "pep"))
    server.account_features |= features(True)
    server.registry.part(PART, notifier.received)
    server.hooks.interests.add(notifier.interested)
    server.hooks.contact_approved.add(notifier.approved)
    server.hooks.message.add(pubsub.message)

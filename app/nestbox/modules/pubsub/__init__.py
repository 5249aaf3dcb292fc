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
    Xep(60, "1.29.0", "no collections, subscription options, item expiry or publish-only affiliation"),
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
        service = Service(context.to.bare_jid, owner_of)
        self._server.spawn(self._approve(service, context))
        return True

    async def _approve(self, service: Service, context: MessageContext) -> None:
        try:
            await self._subscriber.answered(service, context.sender, context.stanza.element)
        except StanzaError as error:
            self._server.router.bounce(context.stanza, error)

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
        if not len(pubsub):
            raise StanzaError("bad-request", "What do you want?")
        element = pubsub[0]
        what = (kind, local_name(element.tag))
        if what == ("get", "items"):
            return await self._retriever.items(service, sender, pubsub, element)
        if what == ("set", "publish"):
            return await self._publisher.publish(service, sender, pubsub, element)
        if what == ("set", "retract"):
            return await self._publisher.retract(service, sender, element)
        if what == ("set", "create"):
            return await self._owner.create(service, sender, pubsub, element)
        if what == ("set", "subscribe"):
            return await self._subscriber.subscribe(service, sender, element)
        if what == ("set", "unsubscribe"):
            return await self._subscriber.unsubscribe(service, sender, element)
        if what == ("get", "subscriptions"):
            return await self._subscriber.subscriptions(service, sender, element)
        if what == ("get", "affiliations"):
            return await self._subscriber.affiliations(service, sender, element)
        raise _unsupported(*what)

    async def _of_owner(self, service: Service, sender: JID, kind: str, pubsub: Element) -> Element | None:
        if not len(pubsub):
            raise StanzaError("bad-request", "What do you want?")
        element = pubsub[0]
        what = (kind, local_name(element.tag))
        if what == ("get", "default"):
            return await self._owner.default(service)
        handlers = {
            ("get", "configure"): self._owner.configuration,
            ("set", "configure"): self._owner.configure,
            ("set", "delete"): self._owner.delete,
            ("set", "purge"): self._publisher.purge,
            ("get", "subscriptions"): self._owner.subscriptions,
            ("set", "subscriptions"): self._owner.set_subscriptions,
            ("get", "affiliations"): self._owner.affiliations,
            ("set", "affiliations"): self._owner.set_affiliations,
        }
        if what not in handlers:
            raise _unsupported(*what)
        return await handlers[what](service, sender, element)


def _unsupported(kind: str, name: str) -> StanzaError:
    """What we do not offer has an error that names it (section 3 of the errors' schema); the rest is no request."""
    known = {"options": "subscription-options", "default": "retrieve-default-sub"}
    if name in known:
        return refuse("feature-not-implemented", "unsupported", feature=known[name])
    return StanzaError("bad-request", f"An iq of type {kind} has no {name}.")


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

"""Who may do what with a node (XEP-0060, sections 4.1 and 4.5)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.core.jid import JID
from nestbox.modules.pubsub.config import NodeConfig
from nestbox.modules.pubsub.names import refuse
from nestbox.store.pubsub import Node, View

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.core.users import User

__all__ = ["SEES", "Access", "Gate", "Seen", "Service", "access_of", "groups_of", "may_publish", "refusal"]

SEES = ("from", "both")
_INSIDERS = ("owner", "publisher", "member")


@dataclass(frozen=True, slots=True)
class Service:
    """A pubsub service: its address, and the account whose own it is (PEP), None for the service of the host."""

    address: JID
    user: User | None

    @property
    def home(self) -> str:
        """Where its nodes are kept."""
        return self.address.bare


@dataclass(frozen=True, slots=True)
class Access:
    """A node as one address sees it; ``state`` is that of its subscription, '' for none."""

    service: Service
    node: Node
    config: NodeConfig
    affiliation: str
    state: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What the node's owner has of somebody in the roster: the subscription state and the groups."""

    subscription: str = "none"
    groups: Iterable[str] = ()


def refusal(config: NodeConfig, affiliation: str, subscribed: bool, seen: Seen) -> StanzaError | None:
    """Why somebody may not read a node; None if he may (section 6.5.9)."""
    if affiliation == "outcast":
        return StanzaError("forbidden", "The node's owner has shut you out.")
    model = config.access_model
    if affiliation in _INSIDERS or model == "open":
        return None
    if model == "presence" and seen.subscription not in SEES:
        return refuse("not-authorized", "presence-subscription-required", "You do not see the owner's presence.")
    if model == "roster" and not set(seen.groups) & set(config.roster_groups_allowed):
        return refuse("not-authorized", "not-in-roster-group", "You are in none of the groups that may.")
    if model == "whitelist":
        return refuse("not-allowed", "closed-node", "You are not on the list of those who may.")
    if model == "authorize" and not subscribed:
        return refuse("not-authorized", "not-subscribed", "The owner has not approved a subscription of yours.")
    return None


class Gate:
    """Finds nodes and says who may do what; stateless beside the store."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._store = server.store

    async def look(self, service: Service, name: str, sender: JID) -> Access | None:
        """A node as the sender sees it, None where there is none."""
        view = await self._store.pubsub.view(service.home, name, sender.bare)
        return None if view is None else access_of(service, view, sender)

    async def find(self, service: Service, name: str, sender: JID) -> Access:
        """A node as the sender sees it. Raises StanzaError item-not-found."""
        access = await self.look(service, name, sender)
        if access is None:
            raise StanzaError("item-not-found", "There is no such node.")
        return access

    async def owned(self, service: Service, name: str, sender: JID) -> Access:
        """A node that the sender owns. Raises StanzaError item-not-found, forbidden."""
        access = await self.find(service, name, sender)
        if access.affiliation != "owner":
            raise StanzaError("forbidden", "Only an owner of the node may do that.")
        return access

    async def why_not(self, access: Access, sender: JID) -> StanzaError | None:
        """Why the sender may not read a node, None if he may."""
        seen = Seen()
        if access.config.access_model in ("presence", "roster"):
            seen = await self.seen(access, sender.bare)
        return refusal(access.config, access.affiliation, access.state == "subscribed", seen)

    async def check_reads(self, access: Access, sender: JID) -> None:
        """Raise StanzaError unless the sender may read the node."""
        error = await self.why_not(access, sender)
        if error is not None:
            raise error

    async def seen(self, access: Access, bare: str) -> Seen:
        """What the node's owner has of an address in the roster."""
        owner = await self._server.users.load(access.node.owner)
        if owner is None:
            return Seen()
        if owner.jid == bare:
            return Seen("both")
        if access.config.access_model != "roster":
            return Seen((await self._server.users.contacts(owner)).get(bare, "none"))
        item = await self._store.roster.get(owner.id, bare)
        return Seen() if item is None else Seen(item.subscription, item.groups)

    async def account_id(self, jid: JID) -> int | None:
        """The id of the account of an address, None where it is none of ours."""
        user = await self._server.users.load(jid.local) if jid.domain == self._server.config.domain else None
        return None if user is None else user.id


def access_of(service: Service, view: View, sender: JID) -> Access:
    """A node as one address sees it; at home everybody owns what is there."""
    affiliation = "owner" if service.user is not None and service.user.jid == sender.bare else view.affiliation
    return Access(service, view.node, NodeConfig.decode(view.node.config), affiliation, view.state)


def may_publish(access: Access) -> bool:
    """Whether an address may publish to a node (section 4.5, pubsub#publish_model)."""
    if access.affiliation in ("owner", "publisher"):
        return True
    if access.affiliation == "outcast":
        return False
    model = access.config.publish_model
    return model == "open" or (model == "subscribers" and access.state == "subscribed")


def groups_of(groups_json: bytes) -> list[str]:
    """The groups of a roster entry as they are stored."""
    return json.loads(groups_json)

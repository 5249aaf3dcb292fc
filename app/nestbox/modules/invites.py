"""Invitations (XEP-0401): links by which people become contacts of a user, or get an account here.

The server approves a subscription that carries a valid token of the account asked (XEP-0379), in the user's place. What
a token gives to somebody without an account is in `nestbox.modules.registration`.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from nestbox.core.errors import StanzaError
from nestbox.core.jid import prepare_localpart
from nestbox.core.registry import Probe
from nestbox.modules import Xep, dataforms
from nestbox.modules.commands import Answer, Call, Command
from nestbox.modules.dataforms import Field
from nestbox.modules.roster_items import push_item
from nestbox.store.errors import AccountExists, NoSuchAccount, StoreFull
from nestbox.store.invites import Invite, new_token
from nestbox.store.roster import Contact, RosterItem
from nestbox.wire import ns

if TYPE_CHECKING:
    from nestbox.config import Config
    from nestbox.core.jid import JID
    from nestbox.core.server import Server
    from nestbox.core.users import User

__all__ = ["XEPS", "befriend", "landing_url", "setup", "xmpp_uri"]

XEPS = (Xep(401, "0.6.0"), Xep(379, "0.3.3"))
DAY = 24 * 3600
YES = ("1", "true")


def landing_url(config: Config, token: str) -> str:
    """The page that says how to go on, for a browser."""
    return f"{config.https_url}/invite/{token}"


def xmpp_uri(domain: str, invite: Invite) -> str:
    """What an app makes of an invitation (XEP-0401, sections 4.1 and 4.4; XEP-0445, section 2)."""
    if invite.contact and invite.inviter and not invite.username:
        ibr = ";ibr=y" if invite.registers else ""
        return f"xmpp:{quote(invite.inviter, safe='')}@{domain}?roster;preauth={invite.token}{ibr}"
    return register_uri(domain, invite)


def register_uri(domain: str, invite: Invite) -> str:
    """The same for an app that is to make an account."""
    name = f"{quote(invite.username, safe='')}@" if invite.username else ""
    return f"xmpp:{name}{domain}?register;preauth={invite.token}"


async def befriend(server: Server, one: User, other: User) -> None:
    """Make two accounts contacts that see each other, and tell their clients. Raises StoreError."""
    for user, peer in ((one, other), (other, one)):
        try:
            _, after, _ = await server.store.roster.change(
                user.id, peer.jid, lambda contact, jid=peer.jid: _both(contact, jid), server.config.limits.roster_items
            )
        except (StoreFull, NoSuchAccount):
            return
        push_item(server, user.jid, after.item)
    for user, peer in ((one, other), (other, one)):
        server.registry.tell_all(Probe([user.jid], peer.jid))


def _both(contact: Contact, jid: str) -> Contact:
    item = contact.item or RosterItem(jid)
    return Contact(replace(item, subscription="both", ask=False, approved=False), None)


class _Invites:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._config = server.config
        self._store = server.store.invites

    # commands (XEP-0401, section 4)

    async def invite(self, call: Call) -> Answer:
        """A link for a friend, who need not have an account."""
        invite = await self._create(call, registers=self._config.registration.users_invite, contact=True)
        return self._answer(invite, xmpp_uri(self._config.domain, invite))

    def ask(self, call: Call) -> Answer:
        """The form of an administrator who invites to an account."""
        fields = [
            Field("text-single", "username", "Name of the account; leave it empty to let the person choose"),
            Field("boolean", "roster-subscription", "Make the person my contact"),
        ]
        form = dataforms.form("urn:xmpp:invite#create-account", fields, title="Invite to an account")
        return Answer((form,))

    async def create_account(self, call: Call) -> Answer:
        """A link for an account."""
        name = call.value("username").strip()
        try:
            name = prepare_localpart(name.removesuffix(f"@{self._config.domain}")) if name else ""
        except ValueError as error:
            raise StanzaError("not-acceptable", f"That cannot be a name: {error}.") from None
        contact = call.value("roster-subscription") in YES
        invite = await self._create(call, username=name, registers=True, contact=contact)
        return self._answer(invite, register_uri(self._config.domain, invite))

    async def _create(self, call: Call, *, username: str = "", registers: bool, contact: bool) -> Invite:
        user = await self._server.users.load(call.sender.local)
        if user is None:
            raise StanzaError("forbidden")
        now = int(time.time())
        expires = now + self._config.registration.invite_days * DAY
        invite = Invite(new_token(), user.id, username, registers, contact, 1, now, expires, user.username)
        try:
            await self._store.create(invite, self._config.limits.open_invites)
        except StoreFull as error:
            raise StanzaError("resource-constraint", str(error), limit=error.limit) from None
        except AccountExists as error:
            raise StanzaError("conflict", str(error)) from None
        return invite

    def _answer(self, invite: Invite, uri: str) -> Answer:
        expire = datetime.fromtimestamp(invite.expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        fields = [
            Field("text-single", "uri", "For apps", (uri,)),
            Field("text-single", "landing-url", "For browsers", (landing_url(self._config, invite.token),)),
            Field("text-single", "expire", "Good until", (expire,)),
        ]
        return Answer((dataforms.form("urn:xmpp:invite#invitation", fields, kind="result"),))

    # subscriptions (XEP-0379, section 3.5)

    async def accept(self, user: User, sender: JID, token: str) -> bool:
        """Whether somebody may see ``user``'s presence by a token of that user's; it is used up then."""
        invite = await self._store.get(token) if token.isascii() and len(token) <= 64 else None
        if invite is None or invite.user_id != user.id or not invite.contact or not invite.is_open(time.time()):
            return False
        if invite.username and sender.bare != f"{invite.username}@{self._config.domain}":
            return False
        return await self._store.use(token)


def setup(server: Server) -> None:
    """Offer the commands, and approve those who bring a token."""
    invites = _Invites(server)
    admins = frozenset(server.config.admins)
    for command in (
        Command(f"{ns.INVITE}#invite", "Invite somebody", (invites.invite,)),
        Command(
            f"{ns.INVITE}#create-account",
            "Invite somebody to an account",
            (invites.ask, invites.create_account),
            lambda sender: sender.local in admins,
        ),
    ):
        server.commands[command.node] = command
    server.preauthorised = invites.accept

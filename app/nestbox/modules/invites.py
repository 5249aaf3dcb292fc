"""Commands that make invitations (XEP-0401): links by which people become contacts of a user, or get an account here.

What a token does is in `nestbox.modules.preauth` for contacts, and in `nestbox.modules.registration` for accounts.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.core.invite_links import landing_url, register_uri, xmpp_uri
from nestbox.core.jid import prepare_localpart
from nestbox.modules import Xep, dataforms
from nestbox.modules.commands import Answer, Call, Command
from nestbox.modules.dataforms import Field
from nestbox.store.errors import AccountExists, StoreFull
from nestbox.store.invites import Invite, new_token
from nestbox.wire import ns

if TYPE_CHECKING:
    from nestbox.core.server import Server

__all__ = ["XEPS", "setup"]

XEPS = (Xep(401, "0.6.0"),)
YES = ("1", "true")


class _Invites:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._config = server.config
        self._store = server.store.invites

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
        expires = now + self._config.registration.invite_days * 24 * 3600
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


def setup(server: Server) -> None:
    """Offer the commands."""
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

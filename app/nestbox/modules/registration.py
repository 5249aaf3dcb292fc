"""Accounts made, changed and removed by their owners (XEP-0077), with an invitation where that is needed (XEP-0445).

The page behind an invitation's link makes accounts by the same `Registrar`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.core.jid import prepare_localpart
from nestbox.core.passwords import check_choice
from nestbox.core.registry import Account
from nestbox.core.throttle import Throttle
from nestbox.modules import Xep
from nestbox.modules.erasure import erase
from nestbox.modules.preauth import befriend
from nestbox.store.errors import AccountExists
from nestbox.store.invites import InviteGone
from nestbox.store.passwords import PasswordError, derive
from nestbox.wire import ns
from nestbox.wire.element import Element, el, to_bytes

if TYPE_CHECKING:
    from nestbox.core.hooks import IqContext
    from nestbox.core.server import Server
    from nestbox.core.session import Session
    from nestbox.core.users import User
    from nestbox.core.visitor import Visitor
    from nestbox.store.invites import Invite
    from nestbox.wire.stanza import Stanza

__all__ = ["XEPS", "Registrar", "setup"]

XEPS = (Xep(77, "2.4", "without data forms"), Xep(445, "0.2.0"))
QUERY = f"{{{ns.REGISTER}}}query"
PREAUTH = f"{{{ns.PARS}}}preauth"


class Registrar:
    """Makes accounts, whichever way somebody comes in."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._store = server.store

    async def valid(self, token: str) -> Invite | None:
        """The invitation to an account that a token stands for, if it is still good for one."""
        invite = await self._store.invites.get(token) if token.isascii() and 0 < len(token) <= 64 else None
        return invite if invite is not None and invite.registers and invite.is_open(time.time()) else None

    async def register(self, name: str, password: str, invite: Invite | None) -> User:
        """Make an account; an invitation is used up by it, and its inviter becomes a contact.

        Raises StanzaError: not-acceptable for a name or password that cannot be, conflict for a name that is taken,
        item-not-found for an invitation that was used meanwhile. Whether it has ended is for the caller to see.
        """
        server, config = self._server, self._server.config
        try:
            name = prepare_localpart(name)
            check_choice(password, config)
        except PasswordError as error:
            raise StanzaError("not-acceptable", f"{str(error).capitalize()}.") from None
        except ValueError:
            raise StanzaError("not-acceptable", "That cannot be a name: it is empty, or has forbidden signs.") from None
        if invite is not None and invite.username and name != invite.username:
            raise StanzaError("not-acceptable", f"This invitation is for the name {invite.username}.")
        token = invite.token if invite is not None else ""
        taken = StanzaError("conflict", f"The name {name} is taken.")
        # An administrator's name makes an administrator: it takes an invitation for just that name.
        named = invite is not None and bool(invite.username)
        if (name in config.admins and not named) or await self._store.accounts.existing([name]):
            raise taken
        if await self._store.invites.reserved(name, int(time.time()), token):
            raise taken
        keys = await derive(password)
        try:
            if invite is not None:
                await self._store.invites.register(token, name, keys)
            elif await self._store.accounts.create_many([(name, keys)]):
                raise taken
        except AccountExists:
            raise taken from None
        except InviteGone as error:
            raise StanzaError("item-not-found", str(error)) from None
        await server.users.changed(name)
        server.registry.tell_all(Account(name))
        user = await server.users.load(name)
        assert user is not None
        inviter = await server.users.load(invite.inviter) if invite is not None and invite.inviter else None
        if inviter is not None and invite.contact:
            await befriend(server, inviter, user)
        return user


class _Registration:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._registrar = Registrar(server)
        self._open = server.config.registration.open
        self._throttle = Throttle(server.config.limits.registrations_per_hour, 3600)

    # before login

    async def preauth(self, visitor: Visitor, stanza: Stanza) -> None:
        """XEP-0445, section 4: whether a token is good for an account. When it ends matters now and no more."""
        invite = await self._registrar.valid(stanza.payload.get("token", "")) if stanza.type == "set" else None
        if invite is None:
            raise StanzaError("item-not-found", "The invitation is unknown, used or has ended.")
        visitor.invite = invite

    async def visit(self, visitor: Visitor, stanza: Stanza) -> Element | None:
        """XEP-0077, section 3.1: what is needed for an account, and the account."""
        if visitor.registered:
            raise StanzaError("not-acceptable", "You have made an account; log in now.")
        if visitor.invite is None and not self._open:
            raise StanzaError("not-allowed", "New accounts need an invitation.")
        if stanza.type == "get":
            name = visitor.invite.username if visitor.invite is not None else ""
            return _query("Choose a name and a password.", name)
        name, password = (stanza.payload.findtext(f"{{{ns.REGISTER}}}{field}") for field in ("username", "password"))
        if not name or not password:
            raise StanzaError("not-acceptable", "An account needs a name and a password.")
        if visitor.invite is None and not self._throttle.allows(self._server.sources.key(visitor.address)):
            text = "Too many accounts were made from your address; try again later."
            raise StanzaError("resource-constraint", text, limit="registrations_per_hour")
        await self._registrar.register(name, password, visitor.invite)
        visitor.registered = True
        return None

    # after login

    def get(self, context: IqContext) -> Element:
        session = _session(context)
        return _query(
            "Send another password to change yours.", session.user.username, el(f"{{{ns.REGISTER}}}registered")
        )

    async def set(self, context: IqContext) -> None:
        session = _session(context)
        children = {child.tag.rpartition("}")[2]: child.text or "" for child in context.payload}
        if "remove" in children:
            if len(context.payload) != 1:
                raise StanzaError("bad-request", "To remove your account, ask for nothing else.")
            await erase(self._server, session.user)
            return
        name, password = children.get("username", ""), children.get("password", "")
        if not name or not password:
            raise StanzaError("bad-request", "A new password needs your name and the password.")
        try:
            if prepare_localpart(name.removesuffix(f"@{self._server.config.domain}")) != session.user.username:
                raise StanzaError("forbidden", "This is somebody else's account.")
        except ValueError:
            raise StanzaError("bad-request", "That cannot be a name.") from None
        try:
            check_choice(password, self._server.config)
            await self._server.store.accounts.set_password(session.user.username, password)
        except PasswordError as error:
            raise StanzaError("not-acceptable", f"{str(error).capitalize()}.") from None
        self._server.registry.tell_all(Account(session.user.username))


def _session(context: IqContext) -> Session:
    if context.session is None or (context.account is not None and not context.own):
        raise StanzaError("forbidden", "This is somebody else's account.")
    return context.session


def _query(instructions: str, name: str, *more: Element) -> Element:
    fields = (("instructions", instructions), ("username", name), ("password", ""))
    return el(QUERY, None, *more, *(el(f"{{{ns.REGISTER}}}{field}", text=text or None) for field, text in fields))


def setup(server: Server) -> None:
    """Answer those who want an account, and those who have one."""
    registration = _Registration(server)
    for where in ("account", "host"):
        server.router.iq(where, "get", QUERY, registration.get)
        server.router.iq(where, "set", QUERY, registration.set)
    server.host_features.add(ns.REGISTER)
    server.visitor_iqs[QUERY] = registration.visit
    server.visitor_iqs[PREAUTH] = registration.preauth
    server.visitor_features.append(to_bytes(el(f"{{{ns.IBR_TOKEN}}}register")))
    server.visitor_features.append(to_bytes(el("{http://jabber.org/features/iq-register}register")))

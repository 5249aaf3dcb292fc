"""Service administration (XEP-0133): what the administrators named in the configuration may do with accounts.

Passwords cannot be read, since only SCRAM keys exist. Who is an administrator, and restarts, are the operator's: the
inventory and systemd know better than a chat client. *Active* is an account with an available session, *idle* one
whose sessions have sent no presence.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING
from xml.etree.ElementTree import XML

from nestbox.core import registry as reg
from nestbox.core.delay import timestamp
from nestbox.core.errors import StanzaError
from nestbox.core.jid import JID, parse_jid
from nestbox.core.passwords import check_choice
from nestbox.modules import Xep, dataforms
from nestbox.modules.admin_command import Act, add_command, note
from nestbox.modules.commands import Answer, Call
from nestbox.modules.dataforms import Field
from nestbox.modules.erasure import erase
from nestbox.modules.roster_items import item_bytes
from nestbox.store import AccountExists, PasswordError
from nestbox.wire import ns
from nestbox.wire.element import Element

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.core.users import User

__all__ = ["XEPS", "setup"]

XEPS = (Xep(133, "1.3.1", "no passwords read, no lists of blocked domains, no restart, no changing of administrators"),)

MAX_LISTED = 1_000  # addresses in an answer
MAX_ITEMS = ("25", "50", "75", "100", "150", "200", "none")
ACCOUNT = Field("jid-single", "accountjid", "The account's address", required=True)
ACCOUNTS = Field("jid-multi", "accountjids", "The accounts' addresses", required=True)
PASSWORD = Field("text-private", "password", "The password", required=True)
VERIFY = Field("text-private", "password-verify", "The password again", required=True)
_ITEMS = Field(
    "list-single", "max_items", "How many to show", options=[(value.capitalize(), value) for value in MAX_ITEMS]
)


def _result(*fields: Field, more: Iterable[Element] = ()) -> Answer:
    form = dataforms.form(ns.ADMIN, fields, kind="result")
    form.extend(more)
    return Answer((form,))


class _Admin:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._accounts = server.store.accounts
        self._registry = server.registry

    # which accounts

    def _address(self, text: str) -> JID:
        try:
            jid = parse_jid(text.strip())
        except ValueError as error:
            raise StanzaError("jid-malformed", str(error)) from None
        if jid.domain != self._server.config.domain or not jid.local:
            raise StanzaError("not-acceptable", f"{jid} is no account of {self._server.config.domain}.")
        return jid

    async def _named(self, call: Call, texts: Iterable[str], *, other: bool = False) -> list[User]:
        """The accounts of these addresses, all of which exist; ``other`` refuses the administrator's own."""
        users = []
        for jid in dict.fromkeys(self._address(text).bare_jid for text in texts if text.strip()):
            user = await self._server.users.load(jid.local)
            if user is None:
                raise StanzaError("item-not-found", f"There is no account {jid}.")
            if other and jid.bare == call.sender.bare:
                raise StanzaError("not-allowed", "Ask another administrator to do that to your own account.")
            users.append(user)
        return users

    async def _changed(self, user: User) -> None:
        await self._server.users.changed(user.username)
        self._registry.tell_all(reg.Account(user.username))

    # accounts

    async def add_user(self, call: Call) -> Answer:
        jid = self._address(call.value("accountjid"))
        if call.value("password") != call.value("password-verify"):
            raise StanzaError("not-acceptable", "The two passwords differ.")
        try:
            check_choice(call.value("password"), self._server.config)
            await self._accounts.create(jid.local, call.value("password"))
        except AccountExists as error:
            raise StanzaError("conflict", str(error)) from None
        except PasswordError as error:
            raise StanzaError("not-acceptable", f"{str(error).capitalize()}.") from None
        await self._server.users.changed(jid.local)
        self._registry.tell_all(reg.Account(jid.local))
        return note(f"Added {jid.bare}.")

    async def change_password(self, call: Call) -> Answer:
        (user,) = await self._named(call, [call.value("accountjid")])
        try:
            check_choice(call.value("password"), self._server.config)
            await self._accounts.set_password(user.username, call.value("password"))
        except PasswordError as error:
            raise StanzaError("not-acceptable", f"{str(error).capitalize()}.") from None
        await self._changed(user)
        return note(f"Changed the password of {user.jid}.")

    async def delete_user(self, call: Call) -> Answer:
        users = await self._named(call, call.values("accountjids"), other=True)
        for user in users:
            await erase(self._server, user)
        return note(f"Erased {_list(users)}.")

    async def disable_user(self, call: Call) -> Answer:
        return await self._enable(call, False)

    async def reenable_user(self, call: Call) -> Answer:
        return await self._enable(call, True)

    async def _enable(self, call: Call, enabled: bool) -> Answer:
        users = await self._named(call, call.values("accountjids"), other=not enabled)
        for user in users:
            await self._accounts.set_enabled(user.username, enabled)
            await self._changed(user)
        return note(f"{'Enabled' if enabled else 'Disabled'} {_list(users)}.")

    async def end_session(self, call: Call) -> Answer:
        await self._named(call, call.values("accountjids"))
        count = 0
        for text in call.values("accountjids"):
            jid = self._address(text)
            for entry in list(self._registry.of(jid.bare).values()):
                if jid.resource in ("", entry.resource):
                    words = "An administrator ended this session."
                    kick = reg.Kick(entry.bare, entry.resource, entry.uid, "policy-violation", words)
                    self._registry.tell(entry.worker, kick)
                    count += 1
        return note(f"Ended {count} sessions.")

    # one account

    async def roster(self, call: Call) -> Answer:
        users = await self._named(call, call.values("accountjids"))
        rosters = []
        for user in users:
            items = b"".join(map(item_bytes, await self._server.store.roster.items(user.id)))
            rosters.append(XML(b'<query xmlns="jabber:iq:roster">%s</query>' % items))
        return _result(Field("jid-multi", "accountjids", values=[user.jid for user in users]), more=rosters)

    async def last_login(self, call: Call) -> Answer:
        users = await self._named(call, call.values("accountjids"))
        times = []
        for user in users:
            since = [entry.since for entry in self._registry.of(user.jid).values()]
            last = await self._accounts.last(user.id)
            seconds = max(since) if since else last and last[0]
            times.append(timestamp(seconds * 1000) if seconds else "never")
        return _result(
            Field("jid-multi", "accountjids", values=[user.jid for user in users]),
            Field("text-multi", "lastlogin", "Last seen", values=times),
        )

    async def statistics(self, call: Call) -> Answer:
        (user,) = await self._named(call, [call.value("accountjid")])
        entries = self._registry.of(user.jid).values()
        size = str(len(await self._server.store.roster.items(user.id)))
        addresses = sorted({entry.address for entry in entries})
        resources = sorted(entry.resource for entry in entries)
        return _result(
            Field("list-multi", "ipaddresses", "Addresses of the sessions", values=addresses),
            Field("text-single", "rostersize", "Contacts", values=[size]),
            Field("text-multi", "onlineresources", "Sessions", values=resources),
        )

    # all accounts

    async def registered(self, limit: int) -> tuple[int, list[str]]:
        return await self._stored(limit, None)

    async def disabled(self, limit: int) -> tuple[int, list[str]]:
        return await self._stored(limit, False)

    async def _stored(self, limit: int, enabled: bool | None) -> tuple[int, list[str]]:
        found = await self._accounts.list(limit=limit, enabled=enabled) if limit else []
        domain = self._server.config.domain
        return await self._accounts.count(enabled), [f"{account.username}@{domain}" for account in found]

    async def online(self, limit: int) -> tuple[int, list[str]]:
        return _cut({entry.bare for entry in self._registry.all()}, limit)

    async def active(self, limit: int) -> tuple[int, list[str]]:
        return _cut(self._active(), limit)

    async def idle(self, limit: int) -> tuple[int, list[str]]:
        return _cut({entry.bare for entry in self._registry.all()} - self._active(), limit)

    def _active(self) -> set[str]:
        return {entry.bare for entry in self._registry.all() if entry.priority is not None}


Count = Callable[[int], Awaitable[tuple[int, list[str]]]]


def _number(count: Count, field: str, label: str) -> Act:
    async def act(call: Call) -> Answer:
        number, _ = await count(0)
        return _result(Field("text-single", field, label, values=[str(number)]))

    return act


def _addresses(count: Count, field: str, label: str) -> Act:
    async def act(call: Call) -> Answer:
        wanted = call.value("max_items") or "none"
        if wanted not in MAX_ITEMS:
            raise StanzaError("not-acceptable", f"max_items is one of {', '.join(MAX_ITEMS)}.")
        number, found = await count(MAX_LISTED if wanted == "none" else int(wanted))
        answer = _result(Field("jid-multi", field, label, values=found))
        if number > len(found):
            answer.notes = (("info", f"These are the first {len(found)} of {number}."),)
        return answer

    return act


def _cut(found: set[str], limit: int) -> tuple[int, list[str]]:
    return len(found), sorted(found)[:limit] if limit else []


def _list(users: list[User]) -> str:
    return ", ".join(user.jid for user in users)


def setup(server: Server) -> None:
    """Offer the commands to the administrators."""
    admin = _Admin(server)
    for name, title, act, fields in (
        ("add-user", "Add a User", admin.add_user, (ACCOUNT, PASSWORD, VERIFY)),
        ("delete-user", "Delete Users", admin.delete_user, (ACCOUNTS,)),
        ("disable-user", "Disable Users", admin.disable_user, (ACCOUNTS,)),
        ("reenable-user", "Enable Users Again", admin.reenable_user, (ACCOUNTS,)),
        ("end-user-session", "End Sessions of Users", admin.end_session, (ACCOUNTS,)),
        ("change-user-password", "Change a User's Password", admin.change_password, (ACCOUNT, PASSWORD)),
        ("get-user-roster", "Show Contacts of Users", admin.roster, (ACCOUNTS,)),
        ("get-user-lastlogin", "Show When Users Were Here", admin.last_login, (ACCOUNTS,)),
        ("user-stats", "Show Figures of a User", admin.statistics, (ACCOUNT,)),
    ):
        add_command(server, name, title, act, fields)
    for kind, count in (
        ("registered", admin.registered),
        ("disabled", admin.disabled),
        ("online", admin.online),
        ("active", admin.active),
        ("idle", admin.idle),
    ):
        title = f"{kind.capitalize()} Users"
        add_command(server, f"get-{kind}-users-num", f"Number of {title}", _number(count, f"{kind}usersnum", title))
        node = f"get-{kind}-users-list" if kind in ("registered", "disabled", "online") else f"get-{kind}-users"
        # Section 4.22: the list of idle users is in the field of the active ones.
        field = "activeuserjids" if kind == "idle" else f"{kind}userjids"
        add_command(server, node, f"List of {title}", _addresses(count, field, title), (_ITEMS,))

"""Announcements (XEP-0133, sections 4.23 to 4.28): to those online, to everybody, of the day, and to newcomers.

The message of the day goes to every account once, at once or when it next comes online, until it is deleted; a changed
text of the same message is for those who have not had it yet. The welcome goes to an account that has never been here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nestbox.core.jid import JID
from nestbox.core.registry import Part
from nestbox.modules.admin_command import add_command, note
from nestbox.modules.commands import Answer, Call
from nestbox.modules.dataforms import Field
from nestbox.store.notices import Notice
from nestbox.wire import ns
from nestbox.wire.element import el
from nestbox.wire.stanza import MESSAGE, Stanza

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.core.session import Session

__all__ = ["setup"]

MOTD, WELCOME = "motd", "welcome"
WELCOMED = 0  # the id under which an account has had a welcome, whatever its text
_PAGE = 500


class _Announce:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._store = server.store.notices
        self._host = JID("", server.config.domain)
        self._notices: dict[str, Notice] | None = None  # not read yet
        self._changes = 0

    async def texts(self) -> dict[str, list[str]]:
        """The standing messages by their fields, in lines."""
        return {name: notice.text.split("\n") for name, notice in (await self._store.all()).items()}

    # one-time announcements

    async def announce(self, call: Call) -> Answer:
        message = _message("Announcement", _text(call, "announcement"), "headline")
        bares = {entry.bare for entry in self._server.registry.all() if entry.priority is not None}
        for bare in bares:
            self._send(bare, message)
        return note(f"Sent to {len(bares)} users.")

    async def announce_to_all(self, call: Call) -> Answer:
        self._server.spawn(self._to_all(_message("Announcement", _text(call, "announcement"))))
        return note("It is being sent.")

    async def _to_all(self, message: Stanza) -> None:
        after = ""
        while page := await self._server.store.accounts.list(after=after, limit=_PAGE, enabled=True):
            for account in page:
                await self._route(account.username, message)
            after = page[-1].username

    # standing messages

    async def edit(self, call: Call) -> Answer:
        """Change the text of the message of the day, or set it where there is none."""
        notices = await self._store.all()
        if MOTD not in notices:
            return await self.set_motd(call)
        await self._put(MOTD, Notice(notices[MOTD].id, _text(call, MOTD)))
        return note("Changed for those who have not had it yet.")

    async def set_motd(self, call: Call) -> Answer:
        notice = Notice(self._server.ids.next(), _text(call, MOTD))
        await self._put(MOTD, notice)
        bares = {entry.bare for entry in self._server.registry.all() if entry.priority is not None}
        self._server.spawn(self._motd_to(bares, notice))
        return note(f"Sent to {len(bares)} users, and to the others when they come online.")

    async def _motd_to(self, bares: set[str], notice: Notice) -> None:
        for bare in bares:
            user = await self._server.users.load(bare.partition("@")[0])
            if user is not None and await self._store.claim(user.id, MOTD, notice.id):
                await self._route(user.username, _message("Message of the Day", notice.text))

    async def set_welcome(self, call: Call) -> Answer:
        await self._put(WELCOME, Notice(self._server.ids.next(), _text(call, WELCOME)))
        return note("Users will have it when they come online for the first time.")

    async def delete_motd(self, call: Call) -> Answer:
        return await self._remove(MOTD)

    async def delete_welcome(self, call: Call) -> Answer:
        return await self._remove(WELCOME)

    async def _remove(self, name: str) -> Answer:
        await self._store.remove(name)
        self._forget()
        return note("Deleted.")

    async def _put(self, name: str, notice: Notice) -> None:
        await self._store.put(name, notice)
        self._forget()

    def _forget(self) -> None:
        self._server.registry.tell_all(Part("announce", self._server.registry.worker, b""))

    def changed(self, worker: int, data: bytes) -> None:
        """Somebody changed a standing message: read them when they are needed next."""
        self._changes += 1
        self._notices = None

    # a session comes online

    def available(self, session: Session) -> None:
        if self._notices is None or self._notices:
            self._server.spawn(self._greet(session))

    async def _greet(self, session: Session) -> None:
        while (notices := self._notices) is None:
            changes = self._changes
            notices = await self._store.all()
            if changes == self._changes:  # else they were changed while we read
                self._notices = notices
        user = session.user
        welcome, motd = notices.get(WELCOME), notices.get(MOTD)
        new = welcome is not None and await self._server.store.accounts.last(user.id) is None
        if new and await self._store.claim(user.id, WELCOME, WELCOMED):
            await self._route(user.username, _message("Welcome", welcome.text))
        if motd is not None and await self._store.claim(user.id, MOTD, motd.id):
            await self._route(user.username, _message("Message of the Day", motd.text))

    # sending

    def _send(self, bare: str, message: Stanza) -> None:
        copy = message.copy()
        copy.element.attrib.update({"from": str(self._host), "to": bare})
        self._server.router.send(copy)

    async def _route(self, username: str, message: Stanza) -> None:
        """Send a message that is archived and, where nobody takes it, kept."""
        to = JID(username, self._host.domain)
        copy = message.copy()
        copy.element.attrib.update({"from": str(self._host), "to": to.bare})
        outcome = self._server.router.route(self._host, to, copy)
        if not isinstance(outcome, int):
            await outcome
        await asyncio.sleep(0)  # among thousands, others' stanzas have their turn


def _text(call: Call, name: str) -> str:
    return "\n".join(call.values(name)).strip()


def _message(subject: str, text: str, kind: str = "normal") -> Stanza:
    children = [el(f"{{{ns.CLIENT}}}subject", text=subject), el(f"{{{ns.CLIENT}}}body", text=text)]
    return Stanza(el(MESSAGE, {"type": kind}, *children))


def setup(server: Server) -> None:
    """Offer the commands, and greet who comes online."""
    announce = _Announce(server)
    announcement = Field("text-multi", "announcement", "Announcement", required=True)
    motd = Field("text-multi", MOTD, "Message of the day", required=True)
    welcome = Field("text-multi", WELCOME, "Welcome message", required=True)
    add_command(server, "announce", "Announce to Users Online", announce.announce, (announcement,))
    add_command(server, "announce-all", "Announce to All Users", announce.announce_to_all, (announcement,))
    add_command(server, "set-motd", "Set the Message of the Day", announce.set_motd, (motd,))
    add_command(server, "edit-motd", "Edit the Message of the Day", announce.edit, (motd,), announce.texts)
    add_command(server, "delete-motd", "Delete the Message of the Day", announce.delete_motd)
    add_command(server, "set-welcome", "Set the Welcome Message", announce.set_welcome, (welcome,), announce.texts)
    add_command(server, "delete-welcome", "Delete the Welcome Message", announce.delete_welcome)
    server.registry.part("announce", announce.changed)
    server.hooks.session_available.add(announce.available, priority=40)  # before the offline messages

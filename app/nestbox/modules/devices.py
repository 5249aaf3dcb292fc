"""A command by which people see where their account is used, and log a device out (XEP-0050).

Logged out means: its token (XEP-0484) lets nobody in any more, its session ends and cannot be resumed. A device that
knows the password can log in again; against that helps a new password, and the command says so.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nestbox.core.devices import belongs, farewell
from nestbox.core.errors import StanzaError
from nestbox.modules import dataforms
from nestbox.modules.commands import Answer, Call, Command
from nestbox.modules.dataforms import Field

if TYPE_CHECKING:
    from nestbox.core.registry import Entry
    from nestbox.core.server import Server
    from nestbox.core.users import User
    from nestbox.store import Device

__all__ = ["setup"]

NODE = "devices"
_FORM = "urn:nestbox:devices"
_SESSION = "session:"  # begins the value of a session whose client does not say which device it is


class _Devices:
    def __init__(self, server: Server) -> None:
        self._server = server

    async def _of(self, call: Call) -> tuple[User, list[Device], list[Entry]]:
        """Who asks, the account's devices, and its sessions but the one that asks."""
        user = await self._server.users.load(call.sender.local)
        if user is None:
            raise StanzaError("item-not-found", "There is no such account.")
        entries = [entry for entry in self._server.registry.of(user.jid).values() if entry.jid != str(call.sender)]
        return user, await self._server.store.devices.of(user.id), entries

    async def ask(self, call: Call) -> Answer:
        _, devices, entries = await self._of(call)
        here = self._server.registry.of(call.sender.bare).get(call.sender.resource)
        options, known = [], []
        for device in devices:
            if here is not None and belongs(here, device):
                continue
            mine = [entry for entry in entries if belongs(entry, device)]
            known += mine
            state = "connected now" if mine else f"last login {_day(device.seen)}"
            options.append((f"{device.name or 'A device without a name'}, {state}", device.agent))
        for entry in entries:
            if entry not in known:
                options.append((f"{entry.resource}, connected since {_day(entry.since)}", _SESSION + entry.resource))
        if not options:
            return Answer(notes=(("info", "Your account is used on this device only."),))
        field = Field("list-multi", "devices", "Log out", options=options)
        words = "Choose the devices to log out; this one stays. A device that you have lost: change your password, too."
        return Answer((dataforms.form(_FORM, (field,), title="Your devices", instructions=words),))

    async def log_out(self, call: Call) -> Answer:
        user, devices, entries = await self._of(call)
        chosen = set(call.values("devices"))
        leaving = [entry for entry in entries if _SESSION + entry.resource in chosen]
        count = len(leaving)
        for device in devices:
            if device.agent in chosen:
                count += await self._server.store.devices.remove(user.id, device.agent)
                leaving += [entry for entry in entries if belongs(entry, device)]
        for entry in leaving:
            self._server.registry.tell(entry.worker, farewell(entry))
        return Answer(notes=(("info", f"Logged out: {count}."),))


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def setup(server: Server) -> None:
    """Offer the command to everybody."""
    devices = _Devices(server)
    server.commands[NODE] = Command(NODE, "Your Devices", (devices.ask, devices.log_out))

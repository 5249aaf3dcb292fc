"""The end of an account: its contacts, its files and its sessions hear of it (XEP-0077, section 3.2)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.core.registry import Account
from nestbox.modules.subscriptions import Subscriptions
from nestbox.store.upload_files import UploadFiles

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.core.users import User

__all__ = ["erase"]


async def erase(server: Server, user: User) -> None:
    """Erase an account and all that is kept for it, then end its sessions. Raises NoSuchAccount, StoreError."""
    items = await server.store.roster.items(user.id)
    await server.store.accounts.delete(user.username)
    await asyncio.to_thread(UploadFiles(server.config.state_dir).remove_account, user.id)
    subscriptions = Subscriptions(server)
    for item in items:
        with suppress(StanzaError):  # its server may be out of reach; ours has forgotten it all the same
            await subscriptions.after_removal(user, item)
    await server.users.changed(user.username)
    server.hooks.account_deleted.run(user.jid)
    server.registry.tell_all(Account(user.username))  # last: whoever asked for this is answered before the end

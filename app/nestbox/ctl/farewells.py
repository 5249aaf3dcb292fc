"""What an erased account's contacts are left with: no subscription to somebody who is gone (XEP-0077, section 3.2).

`nestbox.modules.erasure` does the same on a worker. Here nobody needs to be running: the rosters are changed in the
store, and the workers are told as far as there are any.
"""

from __future__ import annotations

from collections.abc import Iterable

from nestbox.bus import BusError
from nestbox.config import Config
from nestbox.core.jid import parse_jid
from nestbox.core.registry import Push, encode
from nestbox.ctl.context import CommandError, bus
from nestbox.modules.roster_items import push_bytes
from nestbox.modules.subscriptions import endings, inbound
from nestbox.store import RosterItem, Store
from nestbox.store.errors import NoSuchAccount
from nestbox.store.roster import Contact
from nestbox.wire.element import el
from nestbox.wire.stanza import PRESENCE, Stanza

__all__ = ["end_subscriptions", "push"]


async def end_subscriptions(store: Store, config: Config, gone: str, contacts: Iterable[RosterItem]) -> list[Push]:
    """Change the rosters of the contacts of ``gone``, a bare JID, that have an account here; what to tell them."""
    news: list[Push] = []
    for item in contacts:
        kinds, jid = endings(item), parse_jid(item.jid)
        account = await store.accounts.get(jid.local) if kinds and jid.domain == config.domain else None
        if account is None:
            continue

        def decide(contact: Contact, kinds: list[str] = kinds) -> Contact:
            for kind in kinds:
                contact = inbound(contact, gone, kind)
            return contact

        try:
            before, after, _ = await store.roster.change(account.id, gone, decide, config.limits.roster_items)
        except NoSuchAccount:
            continue  # it went, too
        for kind in kinds:
            presence = Stanza(el(PRESENCE, {"type": kind, "from": gone}))
            news.append(Push(item.jid, presence.encode(), "interested"))
        if after.item is not None and after.item != before.item:
            news.append(Push(item.jid, push_bytes(after.item), "interested"))
    return news


async def push(config: Config, news: Iterable[Push]) -> None:
    """Tell the contacts' sessions. Raises CommandError."""
    if config.bus.url == "local":
        return
    try:
        async with bus(config) as guest:
            for one in news:
                guest.broadcast(encode(one))
    except (BusError, OSError) as error:
        raise CommandError(f"The change is stored, but the contacts could not be told: {error}.") from error

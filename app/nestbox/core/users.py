"""What a worker remembers of the accounts it has to do with.

The store is the truth. A changed account is read again on every worker (`Users.changed`, told over the bus), in
place, so that sessions go on holding the same object.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from nestbox.core.jid import JID
    from nestbox.store import Store

__all__ = ["ABSENT", "User", "Users"]


class User:
    """An account of this server.

    ``blocked`` are prepared addresses (XEP-0191); ``contacts`` maps bare JIDs to the subscription states ``none``,
    ``to``, ``from``, ``both``, and is None until the roster was needed, while ``roster_epoch`` counts its changes;
    ``archive`` is the MAM default (XEP-0313, section 7) with its exceptions; ``photo`` the SHA-1 of the account's
    picture (XEP-0153), '' for none.
    """

    __slots__ = (
        "__weakref__",
        "archive",
        "archive_always",
        "archive_never",
        "blocked",
        "contacts",
        "enabled",
        "id",
        "jid",
        "photo",
        "roster_epoch",
        "username",
    )

    def __init__(self, username: str, domain: str) -> None:
        self.id = 0
        self.username = username
        self.jid = f"{username}@{domain}"
        self.enabled = True
        self.blocked: frozenset[str] = frozenset()
        self.contacts: dict[str, str] | None = None
        self.roster_epoch = 0
        self.archive = "always"
        self.archive_always: frozenset[str] = frozenset()
        self.archive_never: frozenset[str] = frozenset()
        self.photo = ""

    def blocks(self, jid: JID) -> bool:
        """Whether the account has blocked an address (XEP-0191, section 2); never itself."""
        blocked = self.blocked
        if not blocked or jid.bare == self.jid:
            return False
        if str(jid) in blocked or jid.bare in blocked or jid.domain in blocked:
            return True
        return bool(jid.resource) and f"{jid.domain}/{jid.resource}" in blocked


ABSENT = User("", "")  # stands in the cache for a name that has no account


class Users:
    """A bounded cache of `User`. ``limit`` is a number of accounts; those with sessions are held whatever it says."""

    def __init__(self, store: Store, domain: str, limit: int = 20_000) -> None:
        self._store = store
        self._domain = domain
        self._limit = limit
        self._changes = 0  # of any account, to notice one while an account is being read
        self._recent: OrderedDict[str, User] = OrderedDict()
        self._live: WeakValueDictionary[str, User] = WeakValueDictionary()
        self._outdated: set[str] = set()  # in memory, but changed and not read again yet

    def peek(self, username: str) -> User | None:
        """The account if it is in memory, `ABSENT` if it is known not to exist, None if the store must be asked."""
        if self._outdated and username in self._outdated:
            return None
        return self._recent.get(username) or self._live.get(username)

    async def load(self, username: str) -> User | None:
        """The account, from memory or the store; None if there is none. Raises StoreError."""
        user = self.peek(username)
        if user is None:
            user = await self._read(username, None)
        return None if user is ABSENT else user

    async def contacts(self, user: User) -> dict[str, str]:
        """The subscription states of the account's roster, read once."""
        while user.contacts is None:
            epoch = user.roster_epoch
            items = await self._store.roster.items(user.id)
            if user.roster_epoch == epoch:  # else it was changed while we read
                user.contacts = {item.jid: item.subscription for item in items}
        return user.contacts

    def roster_changed(self, bare: str) -> None:
        """Forget what is remembered of a roster: someone changed it, here or on another worker."""
        user = self.peek(bare.partition("@")[0])
        if user is not None:
            user.roster_epoch += 1
            user.contacts = None

    async def changed(self, username: str) -> None:
        """Read an account again if it is in memory: someone changed it, here or on another worker.

        Until then the store is asked, so that what comes after the change is dealt with as the change says.
        """
        self._changes += 1
        user = self._recent.pop(username, None) or self._live.get(username)
        if user is not None:
            self._outdated.add(username)
            await self._read(username, None if user is ABSENT else user)

    async def _read(self, username: str, user: User | None) -> User:
        changes = -1
        while changes != self._changes:
            changes = self._changes
            account = await self._store.accounts.get(username)
            if account is not None:
                blocked = frozenset(await self._store.blocking.list(account.id))
                prefs = await self._store.archive.prefs(account.id)
        self._outdated.discard(username)
        if account is None:
            if user is not None:
                user.enabled = False
            self._live.pop(username, None)
            return self._remember(username, ABSENT)
        # Another task may have read it meanwhile; sessions must share one object.
        user = user or self._live.get(username) or User(username, self._domain)
        user.id = account.id
        user.enabled = account.enabled
        user.blocked = blocked
        user.archive = prefs.default
        user.archive_always = frozenset(prefs.always)
        user.archive_never = frozenset(prefs.never)
        user.photo = account.photo
        user.roster_epoch += 1
        user.contacts = None
        self._live[username] = user
        return self._remember(username, user)

    def _remember(self, username: str, user: User) -> User:
        self._recent[username] = user
        self._recent.move_to_end(username)
        while len(self._recent) > self._limit:
            self._recent.popitem(last=False)
        return user

"""What a worker remembers of the accounts it has to do with.

The store is the truth. A changed account is read again on every worker (`Users.changed`, told over the bus), in
place, so that sessions go on holding the same object.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakValueDictionary

from nestbox.store.errors import StoreError

if TYPE_CHECKING:
    from nestbox.core.jid import JID
    from nestbox.core.registry import Waiting
    from nestbox.store import Registration, Store
    from nestbox.store.profiles import Profile
    from nestbox.store.roster import RosterItem

__all__ = ["ABSENT", "User", "Users"]

T = TypeVar("T")
PATIENCE = 60.0  # seconds for which messages and presence wait for the database, as messages do for their commit
PAUSE = 0.2  # seconds between two tries


class User:
    """An account of this server.

    ``blocked`` are prepared addresses (XEP-0191); ``contacts`` maps bare JIDs to the subscription states ``none``,
    ``to``, ``from``, ``both``, and is None until the roster was needed; so is ``roster``, its version and items as XML,
    which may be forgotten again; ``roster_epoch`` counts the roster's changes; ``undecided`` is True while the roster
    decides what is archived and is not known: messages wait for it;
    ``archive`` is the MAM default (XEP-0313, section 7) with its exceptions; ``photo`` the SHA-1 of the account's
    picture (XEP-0153), '' for none; ``pushes`` are its registrations for notifications (XEP-0357). ``offline`` and
    ``requests`` are False when it is certain that no messages, and no contacts' requests, wait for the account: then
    nobody has to ask the store.
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
        "offline",
        "photo",
        "pushes",
        "requests",
        "roster",
        "roster_epoch",
        "undecided",
        "username",
    )

    def __init__(self, username: str, domain: str) -> None:
        self.id = 0
        self.username = username
        self.jid = f"{username}@{domain}"
        self.enabled = True
        self.blocked: frozenset[str] = frozenset()
        self.contacts: dict[str, str] | None = None
        self.roster: tuple[int, bytes] | None = None
        self.roster_epoch = 0
        self.undecided = False
        self.offline = True
        self.requests = True
        self.archive = "always"
        self.archive_always: frozenset[str] = frozenset()
        self.archive_never: frozenset[str] = frozenset()
        self.photo = ""
        self.pushes: tuple[Registration, ...] = ()

    def blocks(self, jid: JID) -> bool:
        """Whether the account has blocked an address (XEP-0191, section 2); never itself."""
        blocked = self.blocked
        if not blocked or jid.bare == self.jid:
            return False
        if str(jid) in blocked or jid.bare in blocked or jid.domain in blocked:
            return True
        return bool(jid.resource) and f"{jid.domain}/{jid.resource}" in blocked


ABSENT = User("", "")  # stands in the cache for a name that has no account


async def _patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask the store again and again while it is away."""
    give_up_at = time.monotonic() + PATIENCE
    while True:
        try:
            return await ask()
        except StoreError:
            if time.monotonic() > give_up_at:
                raise
        await asyncio.sleep(PAUSE)


class Users:
    """A bounded cache of `User`. ``limit`` is a number of accounts; those with sessions are held whatever it says."""

    def __init__(self, store: Store, domain: str, limit: int = 20_000) -> None:
        self._store = store
        self._domain = domain
        self._limit = limit
        self._reading: dict[str, list[int]] = {}  # by name: how many read an account now, and changes meanwhile
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
        while (user := self.peek(username)) is None:
            await self._read(username, None)
        return None if user is ABSENT else user

    async def await_account(self, username: str) -> User | None:
        """The same, but waits while the database is away: a message is not refused for that.

        Raises StoreError after `PATIENCE` seconds.
        """
        return await _patiently(lambda: self.load(username))

    async def profile(self, username: str) -> Profile | None:
        """All of an account, from the store, with its keys; it is in memory afterwards. None if there is none."""
        return await self._read(username, None)

    async def contacts(self, user: User) -> dict[str, str]:
        """The subscription states of the account's roster, read once.

        Waits for the database as `await_account` does: else whoever logs in meanwhile would stay unavailable.
        """
        while user.contacts is None:
            await _patiently(lambda: self.read_roster(user))
        return user.contacts

    async def read_roster(self, user: User) -> tuple[int, list[RosterItem]]:
        """The roster's version and items from the store; ``contacts`` is known afterwards."""
        while True:
            epoch = user.roster_epoch
            version, items = await self._store.roster.load(user.id)
            if user.roster_epoch == epoch:  # else it was changed while we read
                user.contacts = {item.jid: item.subscription for item in items}
                user.undecided = False
                return version, items

    def roster_changed(self, bare: str) -> None:
        """Forget what is remembered of a roster: someone changed it, here or on another worker."""
        username = bare.partition("@")[0]
        user = self._recent.get(username) or self._live.get(username)
        if user is not None:
            _forget_roster(user)
        self._touch(username)

    def waiting(self, op: Waiting) -> None:
        """Something waits for an account from now on, put into the store here or by another worker."""
        username = op.bare.partition("@")[0]
        user = self._recent.get(username) or self._live.get(username)
        if user is not None:
            setattr(user, op.what, True)
        self._touch(username)

    def doubt(self) -> None:
        """Others' changes may have been missed: believe nothing that can be read again."""
        for user in list(self._live.values()):
            _forget_roster(user)
            user.offline = user.requests = True
        for username in self._reading:
            self._touch(username)

    async def changed(self, username: str) -> None:
        """Read an account again if it is in memory: someone changed it, here or on another worker.

        Until then the store is asked, so that what comes after the change is dealt with as the change says.
        """
        self._touch(username)
        user = self._recent.pop(username, None) or self._live.get(username)
        if user is not None:
            self._outdated.add(username)
            await self._read(username, None if user is ABSENT else user)

    def _touch(self, username: str) -> None:
        """Whoever reads this account now must read it again."""
        if username in self._reading:
            self._reading[username][1] += 1

    async def _read(self, username: str, user: User | None) -> Profile | None:
        """Read an account into memory; ``user`` is the object to update, None: only if there is none yet."""
        reading = self._reading.setdefault(username, [0, 0])
        reading[0] += 1
        try:
            changes = -1
            while changes != reading[1]:
                changes = reading[1]
                profile = await self._store.profiles.get(username)
        finally:
            reading[0] -= 1
            if not reading[0]:
                self._reading.pop(username, None)
        if user is not None or self.peek(username) is None:
            self._outdated.discard(username)
            self._fill(username, user, profile)
        return profile

    def _fill(self, username: str, user: User | None, profile: Profile | None) -> None:
        if profile is None:
            if user is not None:
                user.enabled = False
            self._live.pop(username, None)
            self._remember(username, ABSENT)
            return
        # Another task may have read it meanwhile; sessions must share one object.
        user = user or self._live.get(username) or User(username, self._domain)
        account, prefs = profile.account, profile.prefs
        user.id = account.id
        user.enabled = account.enabled
        user.blocked = profile.blocked
        user.archive = prefs.default
        user.archive_always = frozenset(prefs.always)
        user.archive_never = frozenset(prefs.never)
        user.photo = account.photo
        user.pushes = profile.pushes
        user.offline = profile.offline
        user.requests = profile.requests
        _forget_roster(user)
        if profile.empty_roster is not None:
            user.contacts, user.roster, user.undecided = {}, (profile.empty_roster, b""), False
        self._live[username] = user
        self._remember(username, user)

    def _remember(self, username: str, user: User) -> None:
        self._recent[username] = user
        self._recent.move_to_end(username)
        while len(self._recent) > self._limit:
            self._recent.popitem(last=False)


def _forget_roster(user: User) -> None:
    user.roster_epoch += 1
    user.contacts = user.roster = None
    user.undecided = user.archive == "roster"

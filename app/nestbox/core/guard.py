"""Guessing passwords gets slow: after some failed logins the next ones wait, longer each time (RFC 6120, 13.9.4).

It is counted by address and by account, each worker for itself; one failure is forgiven a minute. Nobody is locked out:
the owner of an account at which somebody guesses waits for some seconds, but not where the account has logged in from
before; and whom we trust (`Sources`) never waits.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

from nestbox.core.errors import StreamError

if TYPE_CHECKING:
    from nestbox.core.sources import Sources

__all__ = ["Guard"]

FIRST_SECONDS = 0.25  # of waiting, doubled by each more failure up to the last
LAST_SECONDS = 8.0
FORGIVE_SECONDS = 60.0  # after which one failure does not count any more
KEYS = 10_000  # addresses, and accounts, that are remembered: those of the latest failures
WAITING = 20  # logins that may wait for one address or account at a time


class _Failures:
    """How often logins have failed, by key; the first ``free`` cost nothing."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._counts: OrderedDict[str, tuple[float, float]] = OrderedDict()  # how many, and when that was
        self.waiting: Counter[str] = Counter()

    def _count(self, key: str) -> float:
        count, when = self._counts.get(key, (0.0, 0.0))
        return max(0.0, count - (time.monotonic() - when) / FORGIVE_SECONDS)

    def add(self, key: str) -> None:
        self._counts[key] = self._count(key) + 1, time.monotonic()
        self._counts.move_to_end(key)
        while len(self._counts) > KEYS:
            self._counts.popitem(last=False)

    def delay(self, key: str) -> float:
        """How many seconds the next login has to wait."""
        over = round(self._count(key)) - self._free
        return 0.0 if over < 0 else min(LAST_SECONDS, FIRST_SECONDS * 2 ** min(over, 16))


class Guard:
    """``per_address`` and ``per_account`` failed logins cost nothing."""

    def __init__(self, sources: Sources, per_address: int, per_account: int) -> None:
        self._sources = sources
        self._addresses = _Failures(per_address)
        self._accounts = _Failures(per_account)
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()  # from where an account has logged in

    def failed(self, address: str, account: str) -> None:
        """A login from ``address`` as ``account``, which need not exist, has failed."""
        source = self._sources.key(address)
        if source:
            self._addresses.add(source)
            self._accounts.add(account)

    def succeeded(self, address: str, account: str) -> None:
        """Somebody has shown that the account is theirs. Failures stay: others may go on guessing."""
        place = self._sources.key(address), account
        self._known[place] = None
        self._known.move_to_end(place)
        while len(self._known) > KEYS:
            self._known.popitem(last=False)

    def delay(self, address: str, account: str) -> float:
        """How many seconds a login has to wait; 0 for most."""
        return self._longest(address, account)[0]

    def limit(self, address: str, account: str) -> str:
        """The name of the limit for which a login has to wait; '' for most."""
        seconds, limit = self._longest(address, account)
        return limit if seconds else ""

    def _longest(self, address: str, account: str) -> tuple[float, str]:
        source = self._sources.key(address)
        if not source:
            return 0.0, ""
        known = (source, account) in self._known
        by_account = 0.0 if known else self._accounts.delay(account)
        return max(
            (self._addresses.delay(source), "failed_logins_per_address"), (by_account, "failed_logins_per_account")
        )

    async def wait(self, address: str, account: str) -> None:
        """Wait for `delay`. Raises StreamError where too many wait already: then they are guesses."""
        source = self._sources.key(address)
        places = [(self._addresses.waiting, source)]
        if (source, account) not in self._known:
            places.append((self._accounts.waiting, account))
        if any(waiting[key] >= WAITING for waiting, key in places):
            raise StreamError(
                "policy-violation", "Too many logins have failed; try again later.", limit="logins_waiting"
            )
        for waiting, key in places:
            waiting[key] += 1
        try:
            await asyncio.sleep(self.delay(address, account))
        finally:
            for waiting, key in places:
                waiting[key] -= 1
                if not waiting[key]:
                    del waiting[key]

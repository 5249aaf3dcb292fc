"""The bus of a worker that is alone: everything stays in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from nestbox.bus.base import BusCounts, Handler

__all__ = ["LocalBus"]


class LocalBus:
    """See Bus. There is nobody else: ``broadcast`` reaches none."""

    def __init__(self, worker: int = 1) -> None:
        self.worker = worker
        self.connected = True
        self.counts = BusCounts()
        self.on_reconnect: Callable[[], None] = lambda: None
        self.on_worker_lost: Callable[[int], None] = lambda worker: None
        self.on_undelivered: Callable[[int, bytes], None] = lambda worker, payload: None
        self._hashes: dict[str, dict[str, bytes]] = {}
        self._values: dict[str, bytes] = {}
        self._expiry: dict[str, float] = {}  # by the monotonic clock

    async def start(self, handler: Handler) -> None:
        """See Bus.start."""

    async def close(self) -> None:
        """See Bus.close."""

    def send(self, worker: int, payload: bytes) -> None:
        """See Bus.send."""
        self.counts.undelivered += 1
        self.on_undelivered(worker, payload)

    def broadcast(self, payload: bytes) -> None:
        """See Bus.broadcast."""

    def workers(self) -> set[int]:
        """See Bus.workers."""
        return {self.worker}

    async def living(self) -> set[int]:
        """See Bus.living."""
        return {self.worker}

    async def hset(self, key: str, field: str, value: bytes) -> None:
        """See Bus.hset."""
        self._hashes.setdefault(key, {})[field] = value

    async def hdel(self, key: str, *fields: str) -> int:
        """See Bus.hdel."""
        values = self._hashes.get(key, {})
        found = sum(values.pop(field, None) is not None for field in fields)
        if not values:
            self._hashes.pop(key, None)
        return found

    def post(
        self, key: str, fields: dict[str, bytes], gone: Iterable[str] = (), done: Callable[[], None] | None = None
    ) -> None:
        """See Bus.post."""
        values = self._hashes.setdefault(key, {})
        values.update(fields)
        for field in gone:
            values.pop(field, None)
        if done is not None:
            done()

    def discard(self, key: str) -> None:
        """See Bus.discard."""
        self._hashes.pop(key, None)
        self._values.pop(key, None)

    async def hget(self, key: str, field: str) -> bytes | None:
        """See Bus.hget."""
        return self._hashes.get(key, {}).get(field)

    async def hgetall(self, key: str) -> dict[str, bytes]:
        """See Bus.hgetall."""
        return dict(self._hashes.get(key, {}))

    async def set(self, key: str, value: bytes, ttl: float | None) -> None:
        """See Bus.set."""
        now = time.monotonic()
        for old in [old for old, end in self._expiry.items() if end <= now]:
            self._forget(old)
        self._forget(key)
        self._values[key] = value
        if ttl is not None:
            self._expiry[key] = now + ttl

    async def get(self, key: str) -> bytes | None:
        """See Bus.get."""
        if self._expiry.get(key, float("inf")) <= time.monotonic():
            self._forget(key)
        return self._values.get(key)

    async def delete(self, key: str) -> int:
        """See Bus.delete."""
        found = await self.get(key) is not None or key in self._hashes
        self._forget(key)
        self._hashes.pop(key, None)
        return int(found)

    async def incr(self, key: str) -> int:
        """See Bus.incr."""
        number = int(await self.get(key) or 0) + 1
        self._values[key] = b"%d" % number
        return number

    async def take(self, key: str) -> bytes | None:
        """See Bus.take."""
        value = await self.get(key)
        self._forget(key)
        return value

    async def swap(self, key: str, field: str, old: bytes | None, new: bytes | None) -> bytes | None:
        """See Bus.swap."""
        found = await self.hget(key, field)
        if found != old:
            return found
        if new is None:
            await self.hdel(key, field)
        else:
            await self.hset(key, field, new)
        return new

    def _forget(self, key: str) -> None:
        self._values.pop(key, None)
        self._expiry.pop(key, None)

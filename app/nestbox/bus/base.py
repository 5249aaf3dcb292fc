"""What workers use to reach each other, however many there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["Bus", "BusCounts", "BusError", "Handler"]

Handler = Callable[[bytes], None]


class BusError(Exception):
    """The bus did not answer in time, or refused."""


@dataclass(slots=True)
class BusCounts:
    """For the metrics: messages sent and received, those that reached nobody, lost connections, limits by name."""

    sent: int = 0
    received: int = 0
    undelivered: int = 0
    reconnects: int = 0
    limits_hit: Counter[str] = field(default_factory=Counter)


class Bus(Protocol):
    """Messages between workers, and small values that all of them see. Times are in seconds.

    ``worker`` 0 is a guest such as nestboxctl: it is not counted among the workers, and is sent nothing.
    Values are bytes; keys and fields are strings. Every coroutine raises BusError when the bus stays away.

    The three callbacks may be set before ``start``:

    - ``on_reconnect()``: messages may have been lost, and values too if the engine was restarted; read and write anew.
    - ``on_worker_lost(worker)``: that worker is dead, or was restarted and has forgotten what it had.
    - ``on_undelivered(worker, payload)``: nobody was there to take what ``send`` was given.
    """

    worker: int
    connected: bool
    counts: BusCounts
    on_reconnect: Callable[[], None]
    on_worker_lost: Callable[[int], None]
    on_undelivered: Callable[[int, bytes], None]

    async def start(self, handler: Handler) -> None:
        """Join; ``handler`` gets each payload from another worker. Raises BusError when the bus cannot be reached."""

    async def close(self) -> None:
        """Send what waits, and leave."""

    def send(self, worker: int, payload: bytes) -> None:
        """Send to one worker, in order. Does not wait; see ``on_undelivered``."""

    def broadcast(self, payload: bytes) -> None:
        """Send to every other worker, in order with ``send``."""

    def workers(self) -> set[int]:
        """The workers that are alive, this one included, as far as we have heard."""

    async def living(self) -> set[int]:
        """The same, asked now: whoever has set a value is found, unless it has died since."""

    async def hset(self, key: str, field: str, value: bytes) -> None:
        """Set a field of a hash."""

    async def hdel(self, key: str, *fields: str) -> int:
        """Remove fields of a hash; returns how many there were."""

    async def hget(self, key: str, field: str) -> bytes | None:
        """A field of a hash."""

    async def hgetall(self, key: str) -> dict[str, bytes]:
        """All fields of a hash."""

    async def set(self, key: str, value: bytes, ttl: float | None) -> None:
        """Set a value, for ``ttl`` seconds or for good."""

    async def get(self, key: str) -> bytes | None:
        """A value."""

    async def delete(self, key: str) -> int:
        """Remove a value or a hash; returns how many there were (0 or 1)."""

    async def incr(self, key: str) -> int:
        """Add one to a counter, which begins at 0; returns the new value."""

    def post(
        self, key: str, fields: dict[str, bytes], gone: Iterable[str] = (), done: Callable[[], None] | None = None
    ) -> None:
        """Set fields of a hash (at least one) and remove others, in order with other posts. Does not wait.

        It may fail unseen: ``done()`` is called when the fields are there, or can be so only after ``on_reconnect``.
        """

    def discard(self, key: str) -> None:
        """Remove a value or a hash, in order with posts. Does not wait, and may fail unseen."""

    async def take(self, key: str) -> bytes | None:
        """A value, removed in the same step: of several takers one gets it."""

    async def swap(self, key: str, field: str, old: bytes | None, new: bytes | None) -> bytes | None:
        """Change a field of a hash from ``old`` to ``new`` (None: absent), if it is that; returns what it is then."""

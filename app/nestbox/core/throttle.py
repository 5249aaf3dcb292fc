"""How often somebody may do something that costs us: a count per key within a stretch of time, in memory."""

from __future__ import annotations

import time
from collections import OrderedDict

__all__ = ["Throttle"]

KEYS = 10_000


class Throttle:
    """At most ``limit`` times within ``seconds`` for each key, such as an address. Each worker counts for itself."""

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()  # since when, how often

    def allows(self, key: str) -> bool:
        """Count one more time; False when it is one too many. For '' nothing is counted (see `Sources`)."""
        if not key:
            return True
        now = time.monotonic()
        since, count = self._counts.pop(key, (now, 0))
        if now - since > self._seconds:
            since, count = now, 0
        self._counts[key] = since, count + 1
        while len(self._counts) > KEYS:
            self._counts.popitem(last=False)
        return count < self._limit

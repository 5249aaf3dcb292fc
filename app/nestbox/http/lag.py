"""How late a worker's event loop calls back: what every client of it waits on top of everything else."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry, Histogram

__all__ = ["LoopLag"]

QUIET = 0.25  # seconds between two looks; each wakes the worker, which on a Pi costs half a millisecond
LATE = 0.005  # seconds after which the loop counts as late: then it is looked at more often,
BUSY = 0.02  # as a stall may have been that much longer than what is seen of it
KEPT = 60.0  # seconds that the worst lag is remembered, at least
_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.5, 1, 2, 5)


class LoopLag:
    """The lag as a histogram in ``registry``, and the worst of the last minute or two; both in seconds."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._histogram = Histogram(
            "nestbox_event_loop_lag_seconds",
            "How late the event loop called back",
            registry=registry,
            buckets=_BUCKETS,
        )
        self._worst = self._before = self._since = 0.0

    @property
    def worst(self) -> float:
        """The longest lag of the last minute or two."""
        return max(self._worst, self._before)

    async def watch(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        self._since = loop.time()
        every = QUIET
        while True:
            due = loop.time() + every
            await asyncio.sleep(every)
            now = loop.time()
            lag = max(0.0, now - due)
            every = BUSY if lag > LATE else QUIET
            self._histogram.observe(lag)
            if now - self._since > KEPT:
                self._before, self._worst, self._since = self._worst, 0.0, now
            self._worst = max(self._worst, lag)

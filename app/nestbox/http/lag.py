"""How late a worker's event loop calls back: what every client of it waits on top of everything else."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry, Histogram

__all__ = ["LoopLag"]

EVERY = 0.02  # seconds between two looks, by which a stall may have been longer than what is seen of it
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
        while True:
            due = loop.time() + EVERY
            await asyncio.sleep(EVERY)
            now = loop.time()
            lag = max(0.0, now - due)
            self._histogram.observe(lag)
            if now - self._since > KEPT:
                self._before, self._worst, self._since = self._worst, 0.0, now
            self._worst = max(self._worst, lag)

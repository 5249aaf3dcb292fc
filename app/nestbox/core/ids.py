"""Time-ordered 64-bit ids: 48 bits of Unix milliseconds, 5 bits of worker, 11 bits of sequence.

They are the primary keys of the archive and the offline store, so an id says when it was given and the order of ids is
the order of time, across workers to the millisecond.
"""

from __future__ import annotations

import time
from collections.abc import Callable

WORKER_BITS = 5
SEQUENCE_BITS = 11
TIME_SHIFT = WORKER_BITS + SEQUENCE_BITS
MAX_WORKER = (1 << WORKER_BITS) - 1
_SEQUENCE_LIMIT = 1 << SEQUENCE_BITS


def _clock_ms() -> int:
    return time.time_ns() // 1_000_000


class IdSource:
    """Gives the ids of one worker (0..31): always rising, also when the clock steps back or a ms has 2,048 of them."""

    __slots__ = ("_clock", "_last_ms", "_sequence", "_worker")

    def __init__(self, worker: int, clock: Callable[[], int] = _clock_ms) -> None:
        if not 0 <= worker <= MAX_WORKER:
            raise ValueError(f"worker {worker} is not in 0..{MAX_WORKER}")
        self._worker = worker << SEQUENCE_BITS
        self._clock = clock
        self._last_ms = 0
        self._sequence = 0

    def next(self) -> int:
        """Return an id greater than every earlier one of this source."""
        now = self._clock()
        if now > self._last_ms:
            self._last_ms = now
            self._sequence = 0
        else:
            self._sequence += 1
            if self._sequence == _SEQUENCE_LIMIT:  # borrow from the next millisecond rather than wait
                self._last_ms += 1
                self._sequence = 0
        return self._last_ms << TIME_SHIFT | self._worker | self._sequence

    __call__ = next


def id_to_ms(value: int) -> int:
    """Return the Unix time in milliseconds at which an id was given."""
    return value >> TIME_SHIFT


def ms_to_id(ms: int) -> int:
    """Return the smallest id of a millisecond: the bound for a time filter."""
    return ms << TIME_SHIFT

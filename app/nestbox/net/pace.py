"""Logins take turns: when everybody comes back at once, as after a power cut, the worker's loop still turns.

A job is one step of somebody's login, such as the answer to what one read has brought. While there is little to do it
is done at once. Else it waits, and in each turn of the loop those that wait are let go on, in order, for a moment;
those who are in the midst of a login go before those who have just connected, as their clients have been waiting for
longer. Nobody is refused for that: what waits is one job of each connection, and those are counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from time import perf_counter

__all__ = ["Pace"]

_log = logging.getLogger("nestbox.c2s")
SLICE = 0.005  # seconds of jobs in one turn of the loop
AT_ONCE = 32  # logins for which the store or another worker is asked
FRESH_EVERY = 4  # one of so many turns is for a newcomer, so that they wait, but not for ever


class Pace:
    """The jobs of one worker. ``waiting`` counts those that wait, ``waited`` all that had to."""

    def __init__(self) -> None:
        self._begun: deque[Callable[[], None]] = deque()
        self._fresh: deque[Callable[[], None]] = deque()
        self._spent = 0.0  # seconds, in this turn of the loop
        self._asking = 0
        self._turns = 0
        self._scheduled = False
        self.waited = 0

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._begun) + len(self._fresh)

    def take(self, job: Callable[[], None], fresh: bool = False) -> None:
        """Do a job now or when its turn has come; ``fresh`` is a newcomer's first."""
        if not self._begun and not self._fresh and self._spent < SLICE and self._asking < AT_ONCE:
            self._do(job)
        else:
            self.waited += 1
            (self._fresh if fresh else self._begun).append(job)
        self._go_on()

    def answer(self, question: Awaitable[None]) -> Awaitable[None]:
        """What a job asks of the store or another worker, to be awaited; while many ask, the next jobs wait."""
        self._asking += 1
        return self._answer(question)

    async def _answer(self, question: Awaitable[None]) -> None:
        try:
            await question
        finally:
            self._asking -= 1
            self._go_on()

    async def aside(self, pause: Awaitable[None]) -> None:
        """A pause within `answer`, for which nobody else has to wait."""
        self._asking -= 1
        self._go_on()
        try:
            await pause
        finally:
            self._asking += 1

    def _do(self, job: Callable[[], None]) -> None:
        begin = perf_counter()
        try:
            job()
        except Exception:  # must not keep the others waiting
            _log.exception("a step of a login failed")
        self._spent += perf_counter() - begin

    def _go_on(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._spent = 0.0
        while self._spent < SLICE and self._asking < AT_ONCE and (self._begun or self._fresh):
            self._turns += 1
            if self._fresh and (not self._begun or self._turns % FRESH_EVERY == 0):
                self._do(self._fresh.popleft())
            else:
                self._do(self._begun.popleft())
        if self._spent >= SLICE or (self._asking < AT_ONCE and self.waiting):
            self._go_on()  # also when nothing waits: what comes until the next turn of the loop has to wait for it

"""The way to one other worker: what is sent arrives in order, also over a restart of the engine.

When the engine is back, its other workers come back to it one after another. What is sent to one that is not there yet
reaches nobody, and what is sent a moment later would overtake it. So all waits until the first is taken.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from nestbox.bus.base import BusError
from nestbox.bus.resp import RespConnection

__all__ = ["Channel"]

AWAY_SECONDS = 60  # for which messages wait when the engine is away, to be sent in order when it is back
LATE_SECONDS = 0.2  # between two tries to reach a worker that has not come back yet
MAX_WAITING = 20_000  # groups, for one worker
MAX_WAITING_BYTES = 16 * 1024 * 1024


@dataclass(slots=True)
class _Group:
    number: int
    data: bytes  # with its number: taken twice, it is dropped there
    payloads: list[bytes]
    deadline: float  # loop time


class Channel:
    """``name`` is the channel's on the engine.

    ``forgiving()`` says whether a worker may be expected that nobody hears; else what reaches nobody is given back to
    ``undelivered``.
    """

    def __init__(
        self,
        commands: RespConnection,
        name: str,
        forgiving: Callable[[], bool],
        undelivered: Callable[[list[bytes]], None],
    ) -> None:
        self._commands = commands
        self._name = name
        self._forgiving = forgiving
        self._undelivered = undelivered
        self._waiting: deque[_Group] = deque()
        self._bytes = 0  # of those
        self._trying = False  # the first of those is on its way
        self._number = 0  # of the last group

    def send(self, data: bytes, payloads: list[bytes]) -> None:
        """Send a group of messages, ``data`` in the bus's own form, behind all that were sent before."""
        self._number += 1
        group = _Group(self._number, data, payloads, asyncio.get_running_loop().time() + AWAY_SECONDS)
        if self._waiting or not self._commands.connected:
            self._wait(group)
        else:
            self._publish(group, self._published)

    def back(self) -> None:
        """The engine is there again."""
        if not self._waiting or self._trying or not self._commands.connected:
            return
        self._trying = True
        self._publish(self._waiting[0], self._tried)

    def lost(self) -> None:
        """The worker has died; what waits was for it, not for the one that is started in its place."""
        first = [self._waiting.popleft()] if self._trying else []
        groups, self._waiting = self._waiting, deque(first)
        self._bytes = sum(len(group.data) for group in first)
        for group in groups:
            self._undelivered(group.payloads)

    def check(self) -> None:
        """To be called about once a second: what has waited too long is given back."""
        now = asyncio.get_running_loop().time()
        while self._waiting and not self._trying and self._waiting[0].deadline < now:
            self._undelivered(self._take().payloads)
        self.back()

    def _publish(self, group: _Group, done: Callable[[_Group, object], None]) -> None:
        try:
            # Not sent again by the connection: it would come before or behind the others.
            self._commands.send(
                ("PUBLISH", self._name, group.data), partial(done, group), again=False, seconds=AWAY_SECONDS
            )
        except BusError as error:
            done(group, error)

    def _published(self, group: _Group, reply: object) -> None:
        if isinstance(reply, Exception):
            self._wait(group)  # the connection is lost, and nobody knows whether it was taken
        elif reply == 0 and self._forgiving():
            self._wait(group)
            if len(self._waiting) == 1:
                self._try_later()
        elif reply == 0:
            self._undelivered(group.payloads)

    def _tried(self, group: _Group, reply: object) -> None:
        self._trying = False
        if isinstance(reply, Exception):
            return  # it waits until the engine is back
        if reply == 0 and self._forgiving():
            self._try_later()
        elif reply == 0:
            self.lost()
        else:
            self._take()
            groups, self._waiting, self._bytes = self._waiting, deque(), 0
            for following in groups:
                self._publish(following, self._published)

    def _try_later(self) -> None:
        asyncio.get_running_loop().call_later(LATE_SECONDS, self.back)

    def _wait(self, group: _Group) -> None:
        if len(self._waiting) >= MAX_WAITING or self._bytes + len(group.data) > MAX_WAITING_BYTES:
            self._commands.limits_hit["bus_groups"] += 1
            self._undelivered(group.payloads)
        else:
            at = len(self._waiting)
            while at and self._waiting[at - 1].number > group.number:  # back again, and older
                at -= 1
            self._waiting.insert(at, group)
            self._bytes += len(group.data)

    def _take(self) -> _Group:
        group = self._waiting.popleft()
        self._bytes -= len(group.data)
        return group

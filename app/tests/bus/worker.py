"""A worker's bus as the tests see it: with what came over it."""

import asyncio
import contextlib

from nestbox.bus.redis import RedisBus


class Worker:
    """A bus with what came over it."""

    def __init__(self, url, number):
        self.bus = RedisBus(url, number)
        self.got, self.lost, self.undelivered, self.reconnects = [], [], [], 0
        self._news = asyncio.Event()
        self.bus.on_reconnect = self._reconnected
        self.bus.on_worker_lost = self._note(self.lost)
        self.bus.on_undelivered = lambda worker, payload: self._note(self.undelivered)((worker, payload))

    def _reconnected(self):
        self.reconnects += 1
        self._news.set()

    def _note(self, where):
        def note(what):
            where.append(what)
            self._news.set()

        return note

    async def until(self, condition):
        while not condition():
            self._news.clear()
            await self._news.wait()

    async def start(self):
        await self.bus.start(self._note(self.got))
        return self


@contextlib.asynccontextmanager
async def workers(url, count):
    started = [await Worker(url, number).start() for number in range(1, count + 1)]
    try:
        yield started
    finally:
        for worker in started:
            await worker.bus.close()


async def until_away(*buses):
    while any(bus.connected for bus in buses):  # noqa: ASYNC110
        await asyncio.sleep(0.01)

"""The bus of several workers: Valkey or Redis, one channel per worker and one for all.

Publish/subscribe only carries messages; nothing that may not be lost is kept there. Each worker numbers what it sends
on a channel, so that a receiver drops what was sent twice and notices what it missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import struct
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from time import perf_counter

from nestbox.bus.base import BusCounts, BusError, Handler
from nestbox.bus.channel import AWAY_SECONDS, Channel
from nestbox.bus.resp import RespConnection

__all__ = ["RedisBus"]

_log = logging.getLogger("nestbox.bus")

HEARTBEAT_SECONDS = 3.0
ALIVE_SECONDS = 10
SUBSCRIBE_SECONDS = 5.0
MAX_WORKERS = 32  # ids have five bits for the worker (nestbox.core.ids)
MAX_GROUP = 1024 * 1024  # bytes in one PUBLISH
SLICE = 0.005  # seconds of messages from others in one turn of the loop

_PREFIX = "nestbox:"
_ALL = f"{_PREFIX}all"
_HEAD = struct.Struct("!BII")  # worker, life, number
_LENGTH = struct.Struct("!I")
_SWAP = """
local now = redis.call('HGET', KEYS[1], ARGV[1])
if (now or '') ~= ARGV[2] then return now end
if ARGV[3] == '' then redis.call('HDEL', KEYS[1], ARGV[1]) return nil end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return ARGV[3]
"""


class RedisBus:
    """See Bus. ``worker`` is 1 to 31, or 0 for a guest; all workers at ``url`` see each other."""

    def __init__(self, url: str, worker: int) -> None:
        if not 0 <= worker < MAX_WORKERS:
            raise ValueError(f"a worker's number must be from 0 to {MAX_WORKERS - 1}")
        self.worker = worker
        self.on_reconnect: Callable[[], None] = lambda: None
        self.on_worker_lost: Callable[[int], None] = lambda worker: None
        self.on_undelivered: Callable[[int, bytes], None] = lambda worker, payload: None
        self._life = secrets.randbits(32)  # a restarted worker is not the one that it was
        self._commands = RespConnection(url, self._up)
        self._subscriber = RespConnection(url, self._subscribe, self._pushed)
        self.counts = BusCounts(limits_hit=self._commands.limits_hit)
        self._handler: Handler = lambda payload: None
        self._subscribed: asyncio.Future[None] | None = None
        self._heart: asyncio.Task[None] | None = None
        self._alive: dict[int, int] = {}  # worker -> life
        self._forgive_until = 0.0  # loop time: after the engine came back, missing heartbeats mean nothing
        self._channels: dict[str, Channel] = {}  # of the other workers, by name
        self._out: dict[str, list[bytes]] = {}  # by channel: what this turn of the loop sends
        self._out_bytes = 0
        self._numbers: dict[str, int] = {}  # by channel: of the last message sent
        self._seen: dict[tuple[int, bytes], tuple[int, int]] = {}  # (worker, channel) -> life, number
        self._heard = 0.0
        self._beaten = 0.0  # loop time of the last heartbeat that the engine took

    @property
    def connected(self) -> bool:
        """Whether both connections stand."""
        return self._commands.connected and self._subscriber.connected

    async def start(self, handler: Handler) -> None:
        """See Bus.start."""
        loop = asyncio.get_running_loop()
        self._handler = handler
        self._subscribed = loop.create_future()
        self._heard = loop.time()
        await self._commands.start()
        self._forgive_until = 0.0
        await self._subscriber.start()
        try:
            async with asyncio.timeout(SUBSCRIBE_SECONDS):
                await self._subscribed
        except TimeoutError as error:
            raise BusError("the bus does not let us subscribe; does it want another password?") from error
        await self._beat(first=True)
        if self.worker:
            self._publish(_ALL, [])  # hello
        self._heart = loop.create_task(self._beat_on())

    async def close(self) -> None:
        """See Bus.close."""
        if self._heart is not None:
            self._heart.cancel()
        self._seal()
        if self.worker and self._commands.connected:
            self._commands.send(("DEL", self._alive_key(self.worker)), lambda reply: None)
        await self._commands.stop()
        await self._subscriber.stop()
        for channel in self._channels.values():
            channel.lost()

    def workers(self) -> set[int]:
        """See Bus.workers."""
        return {self.worker, *self._alive} - {0}

    async def living(self) -> set[int]:
        """See Bus.living."""
        return {self.worker, *await self._ask_alive()} - {0}

    async def _ask_alive(self) -> dict[int, int]:
        values = await self._commands.ask("MGET", *[self._alive_key(worker) for worker in range(MAX_WORKERS)])
        found = {worker: int(value) for worker, value in enumerate(values) if value is not None}
        found.pop(self.worker, None)
        return found

    # sending

    def send(self, worker: int, payload: bytes) -> None:
        """See Bus.send."""
        if _ALL in self._out:
            self._seal()
        self._queue(f"{_PREFIX}worker:{worker}", payload)

    def broadcast(self, payload: bytes) -> None:
        """See Bus.broadcast."""
        if self._out and _ALL not in self._out:
            self._seal()
        self._queue(_ALL, payload)

    def _queue(self, channel: str, payload: bytes) -> None:
        if not self._out:
            asyncio.get_running_loop().call_soon(self._seal)
        self._out.setdefault(channel, []).append(payload)
        self._out_bytes += len(payload)
        if self._out_bytes > MAX_GROUP:
            self._seal()

    def _seal(self) -> None:
        """Hand what was gathered to the connection."""
        out, self._out, self._out_bytes = self._out, {}, 0
        for channel, payloads in out.items():
            self._publish(channel, payloads)

    def _forgive(self) -> None:
        """The engine is there again: give the other workers time to come back to it, too."""
        self._forgive_until = asyncio.get_running_loop().time() + ALIVE_SECONDS

    def _up(self) -> None:
        """Say that we live before we set any value, or others would think that it is a dead worker's."""
        self._forgive()
        if self.worker:
            self._commands.send_first("SET", self._alive_key(self.worker), self._life, "EX", ALIVE_SECONDS)
        for channel in self._channels.values():
            channel.back()

    def _forgiving(self) -> bool:
        return asyncio.get_running_loop().time() < self._forgive_until

    def _publish(self, channel: str, payloads: list[bytes]) -> None:
        number = self._numbers[channel] = self._numbers.get(channel, 0) + 1 & 0xFFFFFFFF
        parts = [_HEAD.pack(self.worker, self._life, number)]
        for payload in payloads:
            parts += (_LENGTH.pack(len(payload)), payload)
        data = b"".join(parts)
        self.counts.sent += len(payloads)
        if channel != _ALL:
            self._channel(channel).send(data, payloads)
            return
        with contextlib.suppress(BusError):  # too much waits
            self._commands.send(("PUBLISH", channel, data), _ignore, seconds=AWAY_SECONDS)

    def _channel(self, name: str) -> Channel:
        channel = self._channels.get(name)
        if channel is None:
            worker = int(name.rpartition(":")[2])
            channel = Channel(self._commands, name, self._forgiving, partial(self._undelivered, worker))
            self._channels[name] = channel
        return channel

    def _undelivered(self, worker: int, payloads: list[bytes]) -> None:
        self.counts.undelivered += len(payloads)
        for payload in payloads:
            try:
                self.on_undelivered(worker, payload)
            except Exception:
                _log.exception("a message that reached nobody could not be dealt with")

    # receiving

    def _subscribe(self) -> None:
        self._subscriber.send_first("SUBSCRIBE", f"{_PREFIX}worker:{self.worker}", _ALL)

    def _pushed(self, reply: object) -> None:
        if type(reply) is not list:
            if reply != b"OK":  # the answer to AUTH
                _log.error("the bus refused the subscription: %s", reply)
            return
        self._heard = asyncio.get_running_loop().time()
        if reply[0] == b"message":
            self._message(reply[1], reply[2])
        elif reply[0] == b"subscribe" and reply[2] == 2:
            if not self._subscribed.done():
                self._subscribed.set_result(None)
            else:
                self._forgive()
                self._seen.clear()
                self._missed()

    def _message(self, channel: bytes, data: bytes) -> None:
        worker, life, number = _HEAD.unpack_from(data)
        if worker == self.worker:
            return
        old_life, old_number = self._seen.get((worker, channel), (None, 0))
        if life == old_life:
            ahead = number - old_number & 0xFFFFFFFF
            if ahead == 0 or ahead > 0x7FFFFFFF:
                return  # sent again after a reconnect of the sender, though it had arrived
            if ahead != 1:
                _log.warning("missed %d messages of worker %d", ahead - 1, worker)
                self._missed()
        self._seen[worker, channel] = life, number
        self._met(worker, life)
        self._hand_over(worker, data, _HEAD.size)

    def _hand_over(self, worker: int, data: bytes, at: int) -> None:
        """Deal with the messages in a group, as long as there is time in this turn of the loop."""
        subscriber = self._subscriber
        while at < len(data):
            (length,) = _LENGTH.unpack_from(data, at)
            at += 4
            self.counts.received += 1
            try:
                self._handler(data[at : at + length])
            except Exception:
                _log.exception("a message from worker %d failed", worker)
            at += length
            if perf_counter() - subscriber.since > SLICE and subscriber.connected:
                subscriber.hold(partial(self._hand_over, worker, data, at))
                return

    def _missed(self) -> None:
        self.counts.reconnects += 1
        self.on_reconnect()

    # who is alive

    def _alive_key(self, worker: int) -> str:
        return f"{_PREFIX}alive:{worker}"

    def _met(self, worker: int, life: int) -> None:
        known = self._alive.get(worker)
        if known != life and worker:
            self._alive[worker] = life
            if known is not None:
                self._lost(worker)

    def _lost(self, worker: int) -> None:
        _log.warning("worker %d is gone", worker)
        self.on_worker_lost(worker)
        self._channel(f"{_PREFIX}worker:{worker}").lost()

    async def _beat_on(self) -> None:
        loop = asyncio.get_running_loop()
        next_beat = loop.time() + HEARTBEAT_SECONDS
        while True:
            await asyncio.sleep(1.0)
            self._commands.check()
            for channel in list(self._channels.values()):
                channel.check()
            if loop.time() < next_beat:
                continue
            next_beat = loop.time() + HEARTBEAT_SECONDS
            if self._subscriber.connected and loop.time() - self._heard > ALIVE_SECONDS:
                _log.warning("the bus brings no messages; connecting again")
                self._heard = loop.time()
                self._subscriber.abort()
            try:
                await self._beat()
            except BusError as error:
                _log.warning("no heartbeat: %s", error)
            except Exception:
                _log.exception("the heartbeat failed")

    async def _beat(self, first: bool = False) -> None:
        """Say that we live, see who else does."""
        loop = asyncio.get_running_loop()
        if self.worker:
            words = ("SET", self._alive_key(self.worker), self._life, "EX", ALIVE_SECONDS, "GET")
            before = await self._commands.ask(*words)
            late, self._beaten = loop.time() - self._beaten > ALIVE_SECONDS, loop.time()
            if not first and (late or before is None):  # we were thought dead (or the engine was restarted)
                self._forgive()
                self._missed()
            elif not first and int(before) != self._life:
                _log.error("another process says that it is worker %d", self.worker)
        # Comes back over the subscription, which shows that it works.
        self._commands.send(("PUBLISH", f"{_PREFIX}worker:{self.worker}", _HEAD.pack(self.worker, 0, 0)), _ignore)
        found = await self._ask_alive()
        for worker, life in found.items():
            self._met(worker, life)
        if loop.time() >= self._forgive_until:
            for worker in [worker for worker in self._alive if worker not in found]:
                del self._alive[worker]
                self._lost(worker)

    # values

    def _key(self, key: str) -> str:
        return f"{_PREFIX}{key}"

    async def hset(self, key: str, field: str, value: bytes) -> None:
        """See Bus.hset."""
        await self._commands.ask("HSET", self._key(key), field, value)

    async def hdel(self, key: str, *fields: str) -> int:
        """See Bus.hdel. After a lost connection it may be sent twice, and then says 0."""
        return await self._commands.ask("HDEL", self._key(key), *fields)

    def post(
        self, key: str, fields: dict[str, bytes], gone: Iterable[str] = (), done: Callable[[], None] | None = None
    ) -> None:
        """See Bus.post."""
        key = self._key(key)
        words = "HSET", key, *chain.from_iterable(fields.items())
        if done is None:
            self._commands.tell(words)
        else:
            self._tell_and_wait(words, done)
        if gone:
            self._commands.tell(("HDEL", key, *gone))

    def discard(self, key: str) -> None:
        """See Bus.discard."""
        self._commands.tell(("DEL", self._key(key)))

    def _tell_and_wait(self, words: tuple[object, ...], done: Callable[[], None]) -> None:
        if not self._commands.connected:
            self._commands.tell(words)
            done()
            return
        try:
            self._commands.send(words, lambda reply: done())
        except BusError:
            done()

    async def hget(self, key: str, field: str) -> bytes | None:
        """See Bus.hget."""
        return await self._commands.ask("HGET", self._key(key), field)

    async def hgetall(self, key: str) -> dict[str, bytes]:
        """See Bus.hgetall."""
        flat = await self._commands.ask("HGETALL", self._key(key))
        return {field.decode(): value for field, value in zip(flat[::2], flat[1::2], strict=True)}

    async def set(self, key: str, value: bytes, ttl: float | None) -> None:
        """See Bus.set."""
        expiry = () if ttl is None else ("PX", max(1, int(ttl * 1000)))
        await self._commands.ask("SET", self._key(key), value, *expiry)

    async def get(self, key: str) -> bytes | None:
        """See Bus.get."""
        return await self._commands.ask("GET", self._key(key))

    async def delete(self, key: str) -> int:
        """See Bus.delete."""
        return await self._commands.ask("DEL", self._key(key))

    async def incr(self, key: str) -> int:
        """See Bus.incr. Not sent twice, so it fails when the connection breaks before the answer."""
        return await self._commands.ask("INCR", self._key(key), again=False)

    async def take(self, key: str) -> bytes | None:
        """See Bus.take. Not sent twice, so it fails when the connection breaks before the answer."""
        return await self._commands.ask("GETDEL", self._key(key), again=False)

    async def swap(self, key: str, field: str, old: bytes | None, new: bytes | None) -> bytes | None:
        """See Bus.swap. Values are not empty. Sent twice after a lost connection, it finds its own work done."""
        return await self._commands.ask("EVAL", _SWAP, 1, self._key(key), field, old or b"", new or b"")


def _ignore(reply: object) -> None:
    pass

"""One connection to Valkey or Redis that mends itself.

Commands are packed and replies read by hiredis; all commands of a loop turn leave in one write. redis-py's own asyncio
client does the same work for several times the CPU, which on the way of each message between workers is felt.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from time import perf_counter
from urllib.parse import unquote, urlsplit

import hiredis

from nestbox.bus.base import BusError

__all__ = ["RespConnection", "parse_url"]

_log = logging.getLogger("nestbox.bus")

MAX_WAITING = 20_000  # commands without an answer
MAX_WAITING_BYTES = 64 * 1024 * 1024
ANSWER_SECONDS = 5.0
CONNECT_SECONDS = 3.0
BACKOFF = (0.05, 0.1, 0.2, 0.5, 1.0)


def parse_url(url: str) -> tuple[str, int | None, str | None]:
    """``unix:///path`` -> (path, None, password); ``redis://[:password@]host[:port]`` -> (host, port, password)."""
    parts = urlsplit(url)
    password = unquote(parts.password) if parts.password else None
    if parts.scheme == "unix" and parts.path:
        return unquote(parts.path), None, password
    if parts.scheme == "redis" and parts.hostname:
        return parts.hostname, parts.port or 6379, password
    raise ValueError(f"{url!r} is no address of a bus: it must be unix:///path or redis://host:port")


class _Command:
    """One command, or several in a row whose replies do not matter."""

    __slots__ = ("again", "data", "deadline", "done", "due", "size")

    def __init__(self, data: bytes, done: Callable[[object], None], again: bool, deadline: float) -> None:
        self.data = [data]
        self.size = len(data)
        self.due = 1  # replies
        self.done = done  # called with each reply, or with an exception
        self.again = again  # may be sent twice when the connection broke before the answer
        self.deadline = deadline


class RespConnection(asyncio.Protocol):
    """Commands in, replies out, in order, over reconnects.

    ``on_up()`` is called on each connect, before anything else is sent, and may call ``send_first``. With ``on_push``
    it is a subscriber's connection: that gets all that comes. A command that is not answered when the connection breaks
    is sent again only when it may be; else it fails at once. ``since`` is when, by `time.perf_counter`, this turn's
    work on what has come began; ``limits_hit`` counts what was too much, see BusCounts.
    """

    def __init__(
        self, url: str, on_up: Callable[[], None], on_push: Callable[[list[object]], None] | None = None
    ) -> None:
        self._path, self._port, self._password = parse_url(url)
        self._on_up = on_up
        self._on_push = on_push
        self.limits_hit: Counter[str] = Counter()
        self._io: asyncio.Transport | None = None
        self._reader = hiredis.Reader()
        self._held: Callable[[], None] | None = None
        self.since = 0.0
        self._unsent: deque[_Command] = deque()
        self._sent: deque[_Command] = deque()
        self._bytes = 0
        self._flushing = False
        self._stopped = False
        self._task: asyncio.Task[None] | None = None
        self._lost: asyncio.Event = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._io is not None

    async def start(self) -> None:
        """Connect, then stay connected. Raises BusError when the first attempt fails."""
        try:
            await self._connect()
        except (OSError, TimeoutError) as error:
            why = str(error) or "it does not answer"
            raise BusError(f"the bus at {self._path} cannot be reached: {why}") from error
        self._task = asyncio.get_running_loop().create_task(self._stay())

    async def stop(self) -> None:
        """Wait for answers that are due, then leave."""
        if self._io is not None and (self._unsent or self._sent):
            idle = asyncio.get_running_loop().create_future()
            self.send(("PING",), lambda reply: idle.done() or idle.set_result(None))
            await asyncio.wait([idle], timeout=1.0)
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
        if self._io is not None:
            self._io.close()
        self._fail(lambda command: True)

    def send(
        self,
        words: tuple[object, ...],
        done: Callable[[object], None],
        again: bool = True,
        seconds: float | None = None,
    ) -> None:
        """Queue a command; ``done`` gets the reply or, after ``seconds`` (`ANSWER_SECONDS`) without, an exception.

        Raises BusError when too much waits.
        """
        data = hiredis.pack_command(words)
        if not self._takes(len(data)):
            raise BusError("too many commands wait for the bus")
        deadline = asyncio.get_running_loop().time() + (seconds or ANSWER_SECONDS)
        self._unsent.append(_Command(data, done, again, deadline))
        self._flush_soon()

    def tell(self, words: tuple[object, ...]) -> None:
        """Queue a command that may be sent twice and whose reply does not matter; dropped when too much waits.

        Those in a row are one, which is cheaper.
        """
        data = hiredis.pack_command(words)
        size = len(data)
        if not self._takes(size):
            return
        last = self._unsent[-1] if self._unsent else None
        if last is not None and last.done is _unheard:
            last.data.append(data)
            last.size += size
            last.due += 1
        else:
            deadline = asyncio.get_running_loop().time() + ANSWER_SECONDS
            self._unsent.append(_Command(data, _unheard, True, deadline))
            self._flush_soon()

    def _takes(self, size: int) -> bool:
        if self._bytes + size > MAX_WAITING_BYTES or len(self._sent) + len(self._unsent) >= MAX_WAITING:
            self.limits_hit["bus_commands"] += 1
            return False
        self._bytes += size
        return True

    def _flush_soon(self) -> None:
        if not self._flushing and self._io is not None:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    async def ask(self, *words: object, again: bool = True) -> object:
        """Send a command and wait for its reply. Raises BusError."""
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        def done(reply: object) -> None:
            if future.done():
                return
            if isinstance(reply, Exception):
                future.set_exception(reply if isinstance(reply, BusError) else BusError(str(reply)))
            else:
                future.set_result(reply)

        self.send(words, done, again)
        return await future

    def send_first(self, *words: object) -> None:
        """In ``on_up``: a command that goes before all that wait. Its reply is not looked at."""
        self._io.write(hiredis.pack_command(words))
        if self._on_push is None:
            self._sent.append(_Command(b"", _ignore, False, asyncio.get_running_loop().time() + ANSWER_SECONDS))

    def abort(self) -> None:
        """Cut the connection; a new one follows."""
        if self._io is not None:
            self._io.abort()

    def hold(self, go_on: Callable[[], None]) -> None:
        """In ``on_push``: give others the loop, and read nothing until ``go_on`` in its next turn."""
        self._held = go_on
        self._io.pause_reading()
        asyncio.get_running_loop().call_soon(self._release)

    def _release(self) -> None:
        go_on, self._held = self._held, None
        if go_on is None:
            return
        self.since = perf_counter()
        go_on()
        if self._held is None:
            self._replies()
        if self._held is None and self._io is not None:
            self._io.resume_reading()

    def check(self) -> None:
        """To be called about once a second: fails what waited too long, cuts a connection that does not answer."""
        now = asyncio.get_running_loop().time()
        if self._io is not None and any(command.deadline < now for command in self._sent):
            _log.warning("the bus does not answer; connecting again")
            self.abort()
        else:
            self._fail(lambda command: command.deadline < now)

    def _fail(self, which: Callable[[_Command], bool], why: str = "the bus does not answer") -> None:
        failed = [command for command in (*self._sent, *self._unsent) if which(command)]
        self._sent = deque(command for command in self._sent if not which(command))
        self._unsent = deque(command for command in self._unsent if not which(command))
        for command in failed:
            self._bytes -= command.size
            command.done(BusError(why))

    def _flush(self) -> None:
        self._flushing = False
        if self._io is not None and self._unsent:
            self._io.write(b"".join([data for command in self._unsent for data in command.data]))
            self._sent.extend(self._unsent)
            self._unsent.clear()

    # the connection

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        self._lost.clear()
        if self._port is None:
            connecting = loop.create_unix_connection(lambda: self, self._path)
        else:
            connecting = loop.create_connection(lambda: self, self._path, self._port)
        async with asyncio.timeout(CONNECT_SECONDS):
            await connecting

    async def _stay(self) -> None:
        failures = 0
        while not self._stopped:
            await self._lost.wait()
            await asyncio.sleep(BACKOFF[min(failures, len(BACKOFF) - 1)])
            try:
                await self._connect()
                failures = 0
            except (OSError, TimeoutError):
                self._lost.set()
                failures += 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say who we are, subscribe, then send what waited."""
        if self._stopped:
            transport.abort()
            return
        self._io = transport
        self._reader = hiredis.Reader()
        for command in self._sent:
            command.due = len(command.data)
        self._unsent.extendleft(reversed(self._sent))
        self._sent.clear()
        if self._password is not None:
            self.send_first("AUTH", self._password)
        self._on_up()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Try again in a moment."""
        self._io = None
        while self._held is not None:  # what had come before counts
            self._release()
        self._fail(lambda command: not command.again, "the connection to the bus broke before the answer")
        self._lost.set()
        if not self._stopped:
            _log.warning("the connection to the bus is lost: %s", exc or "closed by the other side")

    def data_received(self, data: bytes) -> None:
        """Replies, in the order of the commands, and pushes."""
        self._reader.feed(data)
        self.since = perf_counter()
        if self._held is None:
            self._replies()

    def _replies(self) -> None:
        reader = self._reader
        try:
            while self._held is None and (reply := reader.gets()) is not False:
                if self._on_push is not None:
                    self._on_push(reply)
                    continue
                command = self._sent[0]
                command.due -= 1
                if not command.due:
                    self._sent.popleft()
                    self._bytes -= command.size
                command.done(reply)
        except (hiredis.ProtocolError, IndexError):
            _log.error("what answers at the bus's address is not Valkey or Redis")
            self.abort()


def _ignore(reply: object) -> None:
    if isinstance(reply, Exception):
        _log.error("the bus refused a command: %s", reply)


def _unheard(reply: object) -> None:
    """Of `tell` alone, which adds to a command by this mark."""

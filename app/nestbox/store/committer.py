"""Group commit of the hot path: archive and offline rows of many messages in one transaction.

A worker appends rows and goes on. What came within a window is written in one transaction; then whoever waits for a
batch is told, and only then are its stanzas acknowledged. While the database is away the rows stay in memory, bounded,
and are tried again: nothing is reported before it is durable. Those who add rows look at ``behind`` and ``full``, and
wait before they add more, so that the bounds are not reached.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from nestbox.store.errors import StoreBusy
from nestbox.store.writers import Away, Batch, Writer

__all__ = ["Committer"]

_log = logging.getLogger("nestbox.committer")
_RETRY_SECONDS = (0.1, 2.0)  # the first pause, doubled up to the last


class Committer:
    """``window`` is the least time in seconds between two commits; ``give_up`` how long one batch is tried.

    ``max_rows`` and ``max_bytes`` bound what waits. Sync methods must be called on the event loop.
    """

    def __init__(
        self,
        writer: Writer,
        window: float = 0.01,
        *,
        max_rows: int = 20_000,
        max_bytes: int = 32 * 1024 * 1024,
        give_up: float = 60.0,
    ) -> None:
        self._writer = writer
        self._window = window
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._give_up = give_up
        self._loop = asyncio.get_running_loop()
        self._open = Batch()
        self._number = 1  # of the open batch
        self._callbacks: dict[int, list[Callable[[bool], None]]] = {}
        self._failed: dict[int, bool] = {}  # batch -> whether all of it is lost
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._next_start = 0.0
        self._closing = False
        self.committed = 0  # the highest batch that is durable, less rows that were rejected: `when` tells of those
        # Called before `committed` passes a batch of which nothing is known to be durable: its stanzas must never be
        # acknowledged.
        self.failed: Callable[[int], None] = lambda batch: None
        # For the metrics: what was done since the start, and what waits now.
        self.rows = 0
        self.batches = 0
        self.rejected = 0
        self.retries = 0
        self.waiting_rows = 0
        self.waiting_bytes = 0
        self.commit_seconds: Callable[[float], None] = lambda seconds: None  # a histogram's observe

    def archive(self, owner: int, id: int, peer: str, stanza: bytes) -> int:
        """Add a row to ``owner``'s archive (``peer`` is a bare JID) and return its batch. Raises StoreBusy."""
        self._admit(len(stanza))
        self._open.archive.append((owner, id, peer, stanza))
        return self._number

    def offline(self, user_id: int, id: int, stanza: bytes) -> int:
        """Add a message for when the account comes online and return its batch. Raises StoreBusy."""
        self._admit(len(stanza))
        self._open.offline.append((user_id, id, stanza))
        return self._number

    def mark(self, batch: int, sm_id: str, user_id: int, received: int) -> bool:
        """Note, in the transaction of ``batch``, how many stanzas stream ``sm_id`` has got through (XEP-0198).

        A batch that is on its way already is left as it is (False): then the client may send that stanza again after a
        crash.
        """
        if batch != self._number:
            return False
        self._open.marks[sm_id] = (user_id, received)
        return True

    def when(self, batch: int, callback: Callable[[bool], None]) -> None:
        """Call back once: True when the whole batch is durable, False when rows of it never will be.

        At once for a batch that is settled already.
        """
        if batch <= self.committed:
            callback(batch not in self._failed)
        else:
            self._callbacks.setdefault(batch, []).append(callback)

    @property
    def behind(self) -> bool:
        """Whether the database is slower than those who add rows: each should wait until its last row is durable."""
        return self.waiting_rows > self._max_rows // 5 or self.waiting_bytes > self._max_bytes // 4

    @property
    def full(self) -> bool:
        """Whether nobody should add anything until the batches that wait are durable."""
        return self.waiting_rows > self._max_rows // 2 or self.waiting_bytes > self._max_bytes // 2

    def gave_up(self, batch: int) -> bool:
        """Whether a batch that is settled was given up: not only rows of it were refused for what they hold."""
        return self._failed.get(batch, False)

    async def flush(self) -> None:
        """Wait until all that was added before is durable or given up."""
        done = self._loop.create_future()
        last = self._number if self._open.rows else self._number - 1
        self.when(last, lambda ok: done.done() or done.set_result(None))
        await done

    async def close(self) -> None:
        """Write what waits, trying once more if the database is away, and end the connection."""
        self._closing = True
        self._next_start = 0.0
        if self._open.rows or self._task is not None:
            await self.flush()
        await self._writer.close()

    def _admit(self, size: int) -> None:
        if self.waiting_rows >= self._max_rows or self.waiting_bytes + size > self._max_bytes:
            raise StoreBusy("Too many messages wait for the database.")
        self.waiting_rows += 1
        self.waiting_bytes += size
        self._open.rows += 1
        self._open.bytes += size
        if self._timer is None and self._task is None:
            self._schedule()

    def _schedule(self) -> None:
        # After a quiet time at once, but at the end of this turn of the loop: a message has more than one row.
        self._timer = self._loop.call_at(max(self._next_start, self._loop.time()), self._start)

    def _start(self) -> None:
        self._timer = None
        self._next_start = self._loop.time() + (0.0 if self._closing else self._window)
        batch, number = self._open, self._number
        self._open = Batch()
        self._number += 1
        self._task = self._loop.create_task(self._commit(batch, number))

    async def _commit(self, batch: Batch, number: int) -> None:
        started = self._loop.time()
        ok = gave_up = False
        try:
            rejected = await self._write(batch, started + self._give_up)
            ok = not rejected
            self.rejected += len(rejected)
            for table, owner, id_, reason in rejected:
                _log.error("a row of %s for account %d with id %d was refused: %s", table, owner, id_, reason)
            self.rows += batch.rows - len(rejected)
            self.batches += 1
            self.commit_seconds(self._loop.time() - started)
        except Away as error:
            gave_up = True
            self.rejected += batch.rows
            _log.error("gave up writing %d rows: %s", batch.rows, error)
        except Exception:  # a defect of ours must not stop the commits that follow
            gave_up = True
            self.rejected += batch.rows
            _log.exception("writing %d rows failed", batch.rows)
        if gave_up:
            try:
                self.failed(number)
            except Exception:
                _log.exception("dealing with a failed batch failed")
        self._settle(batch, number, ok, gave_up)

    async def _write(self, batch: Batch, give_up_at: float) -> list[tuple[str, int, int, str]]:
        pause, longest = _RETRY_SECONDS
        warned = False
        while True:
            try:
                return await self._writer.write(batch)
            except Away as error:
                self.retries += 1
                if self._closing or self._loop.time() + pause > give_up_at:
                    raise
                if not warned:
                    _log.warning("the database is away, %d rows wait: %s", self.waiting_rows, error)
                    warned = True
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    def _settle(self, batch: Batch, number: int, ok: bool, gave_up: bool) -> None:
        self.waiting_rows -= batch.rows
        self.waiting_bytes -= batch.bytes
        self.committed = number
        self._task = None
        if not ok:
            self._failed[number] = gave_up
            if len(self._failed) > 1000:
                del self._failed[next(iter(self._failed))]
        if self._open.rows:
            self._schedule()
        for callback in self._callbacks.pop(number, ()):
            try:
                callback(ok)
            except Exception:
                _log.exception("a callback after a commit failed")

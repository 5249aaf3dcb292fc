from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
import time
from functools import partial
from pathlib import Path

import pytest

from nestbox.core.ids import IdSource, id_to_ms
from nestbox.store import Store, StoreBusy, open_store
from nestbox.store.committer import Committer
from nestbox.store.writers import Away, Batch, Refused
from tests.databases import MariaDB


def outcome(committer: Committer, batch: int) -> asyncio.Future[bool]:
    future = asyncio.get_running_loop().create_future()
    committer.when(batch, future.set_result)
    return future


async def test_rows_of_a_window_share_one_commit(store: Store) -> None:
    committer = store.committer
    first = committer.archive(1, 1, "bob@x", b"<m/>")
    assert committer.archive(2, 1, "alice@x", b"<m/>") == committer.offline(2, 1, b"<m/>") == first
    assert committer.committed < first and committer.waiting_rows == 3
    assert await outcome(committer, first)
    assert committer.committed == first and committer.batches == 1 and committer.rows == 3
    assert committer.waiting_rows == committer.waiting_bytes == 0
    assert await outcome(committer, first), "a settled batch is reported at once"
    second = committer.archive(1, 2, "bob@x", b"<m/>")
    assert second > first and await outcome(committer, second)
    assert [row.id for row in (await store.archive.query(1)).rows] == [1, 2]
    assert await store.offline.fetch(2, 10) == [(1, b"<m/>")]


async def test_how_far_a_stream_has_got_is_committed_with_its_rows(store: Store) -> None:
    committer = store.committer
    assert await store.streams.received("one") is None
    batch = committer.archive(1, 1, "bob@x", b"<m/>")
    committer.mark(batch, "one", 1, 5)
    committer.mark(batch, "two", 2, 2**32 - 1)
    assert await outcome(committer, batch)
    committer.mark(batch, "one", 1, 9)  # too late for that batch
    assert [await store.streams.received(name) for name in ("one", "two")] == [5, 2**32 - 1]
    batch = committer.archive(1, 2, "bob@x", b"<m/>")
    committer.mark(batch, "one", 1, 6)
    assert await outcome(committer, batch)
    assert await store.streams.received("one") == 6
    assert await store.streams.forget_old() == 0


async def test_any_bytes_come_back_as_they_were(store: Store) -> None:
    stanzas = [bytes(range(256)) * 4, b"'\\%s%d--;/*\x00", "🐦".encode(), b"x" * 300_000, b"y" * 262_144 * 6]
    for index, stanza in enumerate(stanzas):
        store.committer.archive(1, index, "b'ób\\@x", stanza)
    await store.committer.flush()
    page = await store.archive.query(1, with_="b'ób\\@x")
    assert [row.stanza for row in page.rows] == stanzas


async def test_a_refused_row_does_not_block_the_others(store: Store) -> None:
    # Longer than a column of MariaDB; on SQLite, which has no lengths, a missing value.
    peer = "x" * 3000 if store.database.kind == "mariadb" else None
    committer = store.committer
    if peer is None:
        committer._open.archive.append((1, 7, None, b"<m/>"))
        committer._open.rows += 1
        committer.waiting_rows += 1
    else:
        committer.archive(1, 7, peer, b"<m/>")
    for index in range(20):
        batch = committer.archive(2, index, "bob@x", b"<m/>")
    committer.offline(2, 5, b"<m/>")
    assert await outcome(committer, batch) is False
    assert await outcome(committer, batch) is False, "also afterwards"
    assert committer.rejected == 1 and committer.waiting_rows == 0
    assert await store.archive.count(2) == 20 and await store.archive.count(1) == 0
    assert await store.offline.count(2) == 1
    assert await outcome(committer, committer.archive(2, 100, "bob@x", b"<m/>"))


async def test_a_row_written_twice_counts_as_written(store: Store) -> None:
    committer = store.committer
    assert await outcome(committer, committer.archive(1, 1, "bob@x", b"<m/>"))
    committer.archive(1, 1, "bob@x", b"<m/>")  # as after a commit whose answer got lost
    assert await outcome(committer, committer.archive(1, 2, "bob@x", b"<m/>"))
    # Another message under the same id is a defect and must not vanish silently.
    if store.database.kind == "mariadb":
        assert not await outcome(committer, committer.archive(1, 1, "bob@x", b"<other/>"))
    committer.offline(1, 1, b"<m/>")
    await committer.flush()
    committer.offline(1, 1, b"<m/>")
    assert await outcome(committer, committer.offline(1, 2, b"<m/>"))
    assert not await outcome(committer, committer.offline(1, 2, b"<other/>"))
    assert [row.stanza for row in (await store.archive.query(1)).rows] == [b"<m/>", b"<m/>"]


async def test_what_was_reported_survives_a_power_cut(mariadb: MariaDB, mariadb_url: str) -> None:
    store = await open_store(mariadb_url, commit_window=0.001)
    await store.migrate()
    ids = IdSource(0)
    durable: list[int] = []
    first = asyncio.Event()

    def report(ok: bool, sent: list[int]) -> None:
        durable.extend(sent if ok else ())
        first.set()

    for _ in range(20):
        sent = [ids() for _ in range(10)]
        for id_ in sent:
            batch = store.committer.archive(1, id_, "bob@x", b"<m/>")
        store.committer.when(batch, partial(report, sent=sent))
        await asyncio.sleep(0.002)
    await first.wait()
    promised = list(durable)
    mariadb.kill()  # no flush, no warning
    mariadb.start()
    await store.committer.flush()
    found = [row.id for row in (await store.archive.query(1, limit=1000)).rows]
    assert promised and set(promised) <= set(found)
    assert found == sorted(set(found)) and len(found) == 200, "what waited is written once"
    assert len(durable) == 200
    await store.close()


async def test_a_restart_of_the_database_only_delays(mariadb: MariaDB, mariadb_url: str) -> None:
    store = await open_store(mariadb_url, commit_window=0.001)
    await store.migrate()
    assert await outcome(store.committer, store.committer.archive(1, 1, "bob@x", b"<m/>"))
    mariadb.stop()
    batch = outcome(store.committer, store.committer.archive(1, 2, "bob@x", b"<m/>"))
    later = outcome(store.committer, store.committer.offline(1, 2, b"<m/>"))
    await asyncio.sleep(0.5)
    assert not batch.done() and not later.done() and store.committer.retries >= 2
    await asyncio.to_thread(mariadb.start)
    assert await asyncio.wait_for(batch, 10) and await asyncio.wait_for(later, 10)
    # The cold paths find their way back, too.
    assert await store.archive.count(1) == 2 and await store.offline.count(1) == 1
    await store.close()


class Stuck:
    """A database that is away until told otherwise."""

    def __init__(self) -> None:
        self.away = True
        self.written: list[int] = []

    async def write(self, batch: Batch) -> list[Refused]:
        if self.away:
            raise Away("gone")
        self.written += [row[1] for row in batch.archive]
        return []

    async def close(self) -> None:
        pass


async def test_the_window_is_for_those_who_come_together() -> None:
    writer = Stuck()
    writer.away = False
    committer = Committer(writer, 1.2)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    assert await outcome(committer, committer.archive(1, 1, "bob@x", b"x"))
    assert loop.time() - begin < 1.0, "a message on an idle server does not wait"
    batches = [committer.archive(1, number, "bob@x", b"x") for number in range(2, 50)]
    await asyncio.sleep(0.02)
    batches.append(committer.archive(1, 50, "bob@x", b"x"))
    assert await outcome(committer, batches[-1])
    assert loop.time() - begin >= 1.2 and len(set(batches)) == 1 and committer.batches == 2
    await asyncio.sleep(1.3)
    begin = loop.time()
    assert await outcome(committer, committer.archive(1, 51, "bob@x", b"x"))
    assert loop.time() - begin < 1.0, "nor does the next one after a pause"
    await committer.close()


async def test_those_who_add_rows_can_see_when_to_wait() -> None:
    writer = Stuck()
    committer = Committer(writer, 0.001, max_rows=100, max_bytes=1000)
    for number in range(20):
        committer.archive(1, number, "bob@x", b"x")
    assert not committer.behind
    batch = committer.archive(1, 20, "bob@x", b"x")
    assert committer.behind and not committer.full
    batch = committer.archive(1, 21, "bob@x", b"x" * 500)
    assert committer.full
    writer.away = False
    assert await outcome(committer, batch)
    assert not committer.behind and not committer.full
    await committer.close()


async def test_what_waits_is_bounded_in_rows_and_bytes() -> None:
    writer = Stuck()
    committer = Committer(writer, 0.001, max_rows=3, max_bytes=100)
    committer.archive(1, 1, "bob@x", b"x" * 60)
    with pytest.raises(StoreBusy):
        committer.archive(1, 2, "bob@x", b"x" * 60)
    committer.archive(1, 3, "bob@x", b"x")
    batch = committer.archive(1, 4, "bob@x", b"x")
    with pytest.raises(StoreBusy):
        committer.archive(1, 5, "bob@x", b"x")
    writer.away = False
    assert await outcome(committer, batch)
    assert writer.written == [1, 3, 4] and committer.waiting_rows == committer.waiting_bytes == 0
    committer.archive(1, 6, "bob@x", b"x" * 60)
    await committer.close()
    assert writer.written == [1, 3, 4, 6]


async def test_a_database_that_stays_away_is_reported_in_the_end() -> None:
    committer = Committer(Stuck(), 0.001, give_up=1.0)
    failed: list[tuple[int, int]] = []
    committer.failed = lambda batch: failed.append((batch, committer.committed))
    assert await outcome(committer, committer.archive(1, 1, "bob@x", b"x")) is False
    assert committer.rejected == 1 and committer.waiting_rows == 0
    assert failed == [(1, 0)], "told before the batch counts as committed"
    batch = outcome(committer, committer.archive(1, 2, "bob@x", b"x"))
    started = time.monotonic()
    await committer.close()  # a stop does not wait for a database that is away
    assert await batch is False and time.monotonic() - started < 0.8


async def test_a_failing_callback_harms_no_other() -> None:
    writer = Stuck()
    writer.away = False
    committer = Committer(writer, 0.001)
    batch = committer.archive(1, 1, "bob@x", b"x")
    committer.when(batch, lambda ok: 1 / 0)
    assert await outcome(committer, batch)
    assert await outcome(committer, committer.archive(1, 2, "bob@x", b"x"))


def write_as_worker(url: str, worker: int, count: int) -> None:
    async def run() -> None:
        store = await open_store(url, commit_window=0.001)
        ids = IdSource(worker)
        for _ in range(count):
            batch = store.committer.archive(worker, ids(), "bob@x", b"<m/>")
            assert await outcome(store.committer, batch)
            await store.accounts.touch_last(worker, 1, "beside the committer")
        await store.close()

    asyncio.run(run())


async def test_four_workers_write_to_one_sqlite_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/nestbox.db"
    store = await open_store(url)
    await store.migrate()
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=write_as_worker, args=(url, number, 40)) for number in (1, 2, 3, 4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        await asyncio.to_thread(worker.join, 60)
        assert worker.exitcode == 0
    assert [await store.archive.count(number) for number in (1, 2, 3, 4)] == [40] * 4
    await store.close()
    with sqlite3.connect(tmp_path / "nestbox.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_ids_rise_whatever_the_clock_does() -> None:
    now = [1_000_000]
    ids = IdSource(5, clock=lambda: now[0])
    found = [ids() for _ in range(5000)]  # more than a millisecond holds
    now[0] -= 10_000
    found += [ids() for _ in range(10)]
    now[0] += 20_000
    found.append(ids())
    assert found == sorted(set(found)) and id_to_ms(found[-1]) == now[0]
    assert not set(found) & {IdSource(6, clock=lambda: 1_000_000)() for _ in range(10)}
    assert all(id_ < 2**63 for id_ in found)
    with pytest.raises(ValueError, match="worker 32"):
        IdSource(32)

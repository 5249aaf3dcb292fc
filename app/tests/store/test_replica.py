"""Reads of the archive from a replica: two real MariaDB servers, one of which follows the other over loopback."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from nestbox.config import Config, Database
from nestbox.core.ids import ms_to_id
from nestbox.ctl.checks import replication
from nestbox.store import Store, open_store, replica
from tests.databases import MariaDB
from tests.live.conftest import free_port

DATABASE = "shared"


class Pair:
    """A primary and its replica."""

    def __init__(self, folder: Path) -> None:
        self._folders = folder / "one", folder / "two"
        for each in self._folders:
            each.mkdir()
        port = free_port()
        log = ("--log-bin=bin", "--gtid-strict-mode=1")
        self.primary = MariaDB(self._folders[0], "--server-id=1", *log, port=port)
        self.replica = MariaDB(self._folders[1], "--server-id=2", "--slave-parallel-threads=0")
        self.primary.query(f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4")
        self.primary.query("CREATE USER follower@'127.0.0.1' IDENTIFIED BY 'loopback'")
        self.primary.query("GRANT REPLICATION SLAVE ON *.* TO follower@'127.0.0.1'")
        source = f"master_host='127.0.0.1', master_port={port}, master_user='follower', master_password='loopback'"
        self.replica.query(f"CHANGE MASTER TO {source}, master_use_gtid=slave_pos, master_connect_retry=1")
        self.replica.query("START SLAVE")

    def stop(self) -> None:
        self.replica.stop()
        self.primary.stop()


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with tempfile.TemporaryDirectory(prefix="nestbox-pair-") as folder:
        pair = Pair(Path(folder))
        yield pair
        pair.stop()


@pytest.fixture
async def store(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    """A store whose reads may go to the replica; ample time to catch up, which is cut short where it never will."""
    monkeypatch.setattr(replica, "WAIT_SECONDS", 10)
    store = await open_store(pair.primary.url(DATABASE), 0.0, pair.replica.url(DATABASE))
    await store.migrate()
    yield store
    await store.close()


async def write(store: Store, owner: int, number: int) -> int:
    """Archive a message, durably; its id."""
    archive_id = ms_to_id(1_000_000 + number)
    store.committer.archive(owner, archive_id, "bob@x", b"<message/>")
    await store.committer.flush()
    return archive_id


async def ids(store: Store, owner: int) -> list[int]:
    return [row.id for row in (await store.archive.query(owner)).rows]


async def test_the_replica_serves_when_it_has_what_was_written(pair: Pair, store: Store) -> None:
    written = []
    for number in range(20):
        written.append(await write(store, 1, number))
        assert await ids(store, 1) == written  # each time at once
        assert await store.archive.count(1) == number + 1
        assert await store.archive.ends(1) == (written[0], written[-1])
    assert (store.replica.used, store.replica.behind) == (60, 0)
    # It is the replica that answers: what is only there is found.
    pair.replica.query(f"INSERT INTO {DATABASE}.archive VALUES (1, {written[-1] + 1}, 'bob@x', '<message/>')")
    assert await ids(store, 1) == [*written, written[-1] + 1]


async def test_while_it_is_late_the_primary_serves(pair: Pair, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await write(store, 2, 0)
    assert await ids(store, 2) == [first]
    monkeypatch.setattr(replica, "WAIT_SECONDS", 0.01)
    pair.replica.query("STOP SLAVE SQL_THREAD")
    try:
        second = await write(store, 2, 1)
        assert await ids(store, 2) == [first, second]
        assert (store.replica.used, store.replica.behind) == (1, 1)
    finally:
        pair.replica.query("START SLAVE")
    monkeypatch.setattr(replica, "WAIT_SECONDS", 10)
    assert await ids(store, 2) == [first, second]
    assert store.replica.used == 2


async def test_a_replica_that_is_away_is_left_alone_for_a_while(
    pair: Pair, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await write(store, 3, 0)
    assert await ids(store, 3) == [first]
    pair.replica.kill()
    try:
        for _ in range(3):
            assert await ids(store, 3) == [first]
        assert store.replica.behind == 1  # asked once
    finally:
        pair.replica.start()
    store.replica._ask_again = 0.0
    second = await write(store, 3, 1)
    assert await ids(store, 3) == [first, second]
    assert store.replica.used == 2


async def test_without_a_binary_log_nobody_knows_and_the_primary_serves(mariadb_url: str, pair: Pair) -> None:
    store = await open_store(mariadb_url, 0.0, pair.replica.url(DATABASE))
    await store.migrate()
    first = await write(store, 4, 0)
    assert await ids(store, 4) == [first]
    assert (store.replica.used, store.replica.behind) == (0, 1)
    await store.close()


async def test_the_self_check_says_whether_it_follows(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(pair.primary.url(DATABASE), pair.replica.url(DATABASE))
    config = Config("nestbox.test", database=database)
    assert [found.state for found in await replication.check(config)] == ["ok"]
    monkeypatch.setattr(replication, "_SECONDS", 0.05)
    pair.replica.query("STOP SLAVE SQL_THREAD")
    try:
        pair.primary.query(f"CREATE TABLE {DATABASE}.late (id INT)")
        found = await replication.check(config)
        assert [one.state for one in found] == ["warning"] and "catch up" in found[0].what
    finally:
        pair.replica.query("START SLAVE")
    pair.replica.kill()
    try:
        found = await replication.check(config)
        assert [one.state for one in found] == ["warning"] and "cannot be asked" in found[0].what
    finally:
        pair.replica.start()
    assert await replication.check(Config("nestbox.test")) == []

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from nestbox.core.ids import ms_to_id
from nestbox.store import NoSuchAccount, Store
from nestbox.store.archive import _where, page_query

YEAR = datetime.now(UTC).year + 2  # migrating makes this month's partitions; the tests go on from a later year
DAY = 86_400_000


def ms(month: int, day: int = 1) -> int:
    return int(datetime(YEAR, month, day, tzinfo=UTC).timestamp()) * 1000


MAY = ms(5, 10)
PEERS = ("bob@x", "carol@x")


async def fill(store: Store, owner: int, count: int, step_ms: int = 3 * DAY) -> list[tuple[int, str]]:
    rows = [(ms_to_id(MAY + index * step_ms) + index % 3, PEERS[index % 2]) for index in range(count)]
    for id_, peer in rows:
        store.committer.archive(owner, id_, peer, message(id_, peer))
    await store.committer.flush()
    return rows


def resource(id_: int) -> str:
    """The resource that a row's peer used: some messages go to the bare address."""
    return ("", "/phone", "/a&amp;b")[(id_ >> 16) // DAY % 3]


def message(id_: int, peer: str) -> bytes:
    address = ("from", "to")[id_ % 2]
    return f'<message {address}="{peer}{resource(id_)}"><body> from="{peer}/phone"</body></message>'.encode()


async def test_paging_in_either_direction_gives_the_whole_list(store: Store) -> None:
    await store.archive.maintain(months_ahead=3, now_ms=MAY)  # the rows lie in several partitions
    alice, bob = [(await store.accounts.create(name, "x")).id for name in ("alice", "bob")]
    rows = await fill(store, alice, 40)
    await fill(store, bob, 5)
    peers = dict(rows)
    loop = asyncio.get_running_loop()

    async def page_through(
        size: int, backward: bool, peer: tuple[str | None, str | None], start: int | None, end: int | None
    ) -> None:
        with_, ending = peer
        full = None if ending is None else f"{with_}{ending}".encode()
        expected = [
            id_
            for id_, peer in rows
            if (with_ is None or peer == with_)
            and (ending is None or resource(id_) == ending)
            and (start is None or id_ >= ms_to_id(start))
            and (end is None or id_ < ms_to_id(end + 1))
        ]
        found: list[int] = []
        edge = None
        while True:
            paging = {"before": edge} if backward else {"after": edge}
            page = await store.archive.query(
                alice, with_=with_, full=full, start=start, end=end, limit=size, backward=backward, **paging
            )
            ids = [row.id for row in page.rows]
            assert ids == sorted(ids) and len(ids) <= size
            assert all(row.stanza == message(row.id, peers[row.id]) for row in page.rows)
            found = ids + found if backward else found + ids
            if page.complete:
                break
            edge = ids[0] if backward else ids[-1]
        assert found == expected
        assert await store.archive.count(alice, with_=with_, full=full, start=start, end=end) == len(expected)

    named = [(None, None), *((peer, end) for peer in (*PEERS, "none@x") for end in (None, "/phone", "/a&amp;b", "/x"))]
    times = st.one_of(st.none(), st.integers(MAY - DAY, MAY + 130 * DAY), st.sampled_from([MAY, MAY + 3 * DAY]))

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(1, 45), st.booleans(), st.sampled_from(named), times, times)
    def check(size, backward, peer, start, end) -> None:
        asyncio.run_coroutine_threadsafe(page_through(size, backward, peer, start, end), loop).result(60)

    await asyncio.to_thread(check)


async def test_ids_ends_and_bounds(store: Store) -> None:
    alice = (await store.accounts.create("alice", "x")).id
    assert await store.archive.ends(alice) is None
    assert await store.archive.totals() == (0, None)
    rows = [id_ for id_, _ in await fill(store, alice, 10)]
    assert await store.archive.ends(alice) == (rows[0], rows[-1])
    assert (await store.archive.totals())[1] == MAY
    page = await store.archive.query(alice, ids=[rows[7], rows[2], 5])
    assert [row.id for row in page.rows] == [rows[2], rows[7]]
    page = await store.archive.query(alice, after=rows[2], before=rows[5])
    assert [row.id for row in page.rows] == rows[3:5] and page.complete
    assert (await store.archive.query(alice, limit=0)).rows == []
    assert (await store.archive.query(alice + 1)).rows == []
    # Both ends count, to the millisecond.
    page = await store.archive.query(alice, start=MAY + 3 * DAY, end=MAY + 6 * DAY)
    assert [row.id for row in page.rows] == rows[1:3]


async def test_preferences_have_defaults_and_are_replaced(store: Store) -> None:
    alice = (await store.accounts.create("alice", "x")).id
    prefs = await store.archive.prefs(alice)
    assert (prefs.default, prefs.always, prefs.never) == ("always", [], [])
    prefs.default, prefs.never = "roster", ["bob@x"]
    await store.archive.set_prefs(alice, prefs)
    assert await store.archive.prefs(alice) == prefs


async def explain(store: Store, **options: object) -> list[dict[str, object]]:
    paging = {name: options.pop(name, None) for name in ("with_", "start", "end", "after", "before", "ids", "full")}
    query = page_query(_where(1, *paging.values()), 50, bool(options.pop("backward", False)))
    sqlite = store.database.kind == "sqlite"
    async with store.database.read() as connection:
        sql = str(query.compile(connection.sync_connection, compile_kwargs={"literal_binds": True}))
        prefix = "EXPLAIN QUERY PLAN " if sqlite else "EXPLAIN PARTITIONS "
        return [dict(row._mapping) for row in await connection.execute(text(prefix + sql.replace(":", "\\:")))]


async def test_reads_walk_an_index_and_never_sort(store: Store) -> None:
    await store.archive.maintain(months_ahead=5, now_ms=MAY)
    alice = (await store.accounts.create("alice", "x")).id
    for owner in (alice, *range(100, 110)):  # enough for MariaDB's optimizer to care
        await fill(store, owner, 400, DAY // 3)
    for options in (
        {},
        {"backward": True},
        {"after": ms_to_id(MAY)},
        {"before": ms_to_id(MAY + 60 * DAY), "backward": True},
        {"start": MAY, "end": MAY + DAY},
        {"ids": [ms_to_id(MAY), ms_to_id(MAY + DAY)]},
        {"with_": "bob@x"},
        {"with_": "bob@x", "full": b"bob@x/phone"},
        {"with_": "bob@x", "before": ms_to_id(MAY + 60 * DAY), "backward": True},
    ):
        plan = await explain(store, **options)
        assert len(plan) == 1, plan
        if store.database.kind == "sqlite":
            assert "USING INDEX archive_time (owner=?" in plan[0]["detail"], plan
        else:
            wanted = {"PRIMARY", "archive_peer"} if "with_" in options else {"PRIMARY"}
            assert plan[0]["key"] in wanted and "filesort" not in plan[0]["Extra"], (options, plan)


async def test_the_ends_are_found_without_reading_the_archive(store: Store) -> None:
    await fill(store, 1, 3_000, DAY // 100)
    steps: list[str] = []
    async with store.database.read() as connection:
        if store.database.kind == "sqlite":
            driver = (await connection.get_raw_connection()).driver_connection
            await driver.set_progress_handler(lambda: steps.append("step") or 0, 100)
    first, last = await store.archive.ends(1)
    assert first < last
    if store.database.kind == "sqlite":
        assert len(steps) < 10  # of a hundred instructions each; reading all would be hundreds
    else:
        async with store.database.read() as connection:
            first, last = (f"(SELECT {edge}(id) FROM archive WHERE owner = 1)" for edge in ("MIN", "MAX"))
            plan = (await connection.execute(text(f"EXPLAIN SELECT {first}, {last}"))).all()
        assert [row.Extra for row in plan[1:]] == ["Select tables optimized away"] * 2


async def test_mariadb_reads_only_the_partitions_of_the_time(mariadb_store: Store) -> None:
    store = mariadb_store
    before = await partition_names(store)
    await store.archive.maintain(months_ahead=3, now_ms=MAY)
    june, july = ms(6), ms(7)
    ids = [id_ for id_, _ in await fill(store, 1, 40)]
    for options, partitions in (
        ({"start": june, "end": july - 1}, f"p{YEAR}06"),
        ({"after": ms_to_id(july)}, f"p{YEAR}07,p{YEAR}08,pmax"),
        ({"before": ms_to_id(june), "backward": True}, ",".join([*before[:-1], f"p{YEAR}05"])),
        ({"with_": "bob@x", "start": june, "end": july - 1}, f"p{YEAR}06"),
        ({"with_": "bob@x", "full": b"bob@x/a", "after": ms_to_id(july)}, f"p{YEAR}07,p{YEAR}08,pmax"),
        ({"start": june, "before": ms_to_id(july), "backward": True}, f"p{YEAR}06"),
        ({"ids": [next(id_ for id_ in ids if id_ > ms_to_id(june))]}, f"p{YEAR}06"),
    ):
        assert (await explain(store, **options))[0]["partitions"] == partitions


async def partition_names(store: Store) -> list[str]:
    async with store.database.read() as connection:
        rows = await connection.execute(
            text(
                "SELECT partition_name FROM information_schema.partitions WHERE table_schema = DATABASE()"
                " AND table_name = 'archive' ORDER BY partition_ordinal_position"
            )
        )
        return list(rows.scalars())


async def test_partitions_are_made_ahead_and_dropped_with_age(mariadb_store: Store) -> None:
    store = mariadb_store
    alice = (await store.accounts.create("alice", "x")).id
    base = await partition_names(store)
    assert len(base) == 4 and base[-1] == "pmax"
    later = ms(11, 15)
    rows = [ms_to_id(later + offset * DAY) for offset in (-300, -40, -20, 0, 20, 50, 100)]
    for id_ in rows:
        store.committer.archive(alice, id_, "bob@x", b"<m/>")
    await store.committer.flush()
    made = [f"p{YEAR}11", f"p{YEAR}12", f"p{YEAR + 1}01"]
    done = await store.archive.maintain(months_ahead=2, now_ms=later)
    assert done.created == made
    assert await partition_names(store) == [*base[:-1], *made, "pmax"]
    assert [row.id for row in (await store.archive.query(alice)).rows] == rows
    assert (await store.archive.maintain(months_ahead=2, now_ms=later)).created == []
    done = await store.archive.maintain(months_ahead=2, retention_days=30, now_ms=later)
    assert done.dropped == base[:-1] and done.deleted == 2
    assert [row.id for row in (await store.archive.query(alice)).rows] == rows[2:]


async def test_retention_keeps_what_is_young(store: Store) -> None:
    alice = (await store.accounts.create("alice", "x")).id
    rows = [id_ for id_, _ in await fill(store, alice, 30, DAY)]
    await store.archive.maintain(now_ms=MAY + 30 * DAY)
    assert await store.archive.count(alice) == 30
    await store.archive.maintain(retention_days=10, now_ms=MAY + 30 * DAY)
    assert [row.id for row in (await store.archive.query(alice)).rows] == rows[20:]


async def test_an_account_may_have_a_shorter_time_of_its_own(store: Store) -> None:
    alice, bob = [(await store.accounts.create(name, "x")).id for name in ("alice", "bob")]
    rows = [id_ for id_, _ in await fill(store, alice, 30, DAY)]
    await fill(store, bob, 30, DAY)
    await store.accounts.set_archive_days("alice", 5)
    await store.archive.maintain(now_ms=MAY + 30 * DAY)
    assert [row.id for row in (await store.archive.query(alice)).rows] == rows[25:]
    assert await store.archive.count(bob) == 30
    await store.accounts.set_archive_days("alice", 20)  # longer than everybody's has no effect
    await store.archive.maintain(retention_days=3, now_ms=MAY + 30 * DAY)
    assert [await store.archive.count(owner) for owner in (alice, bob)] == [3, 3]
    await store.accounts.set_archive_days("alice", None)
    await store.archive.maintain(now_ms=MAY + 60 * DAY)
    assert await store.archive.count(alice) == 3
    with pytest.raises(NoSuchAccount):
        await store.accounts.set_archive_days("nobody", 5)


async def test_what_came_during_a_deletion_is_erased_by_maintenance(store: Store) -> None:
    alice, bob = [(await store.accounts.create(name, "x")).id for name in ("alice", "bob")]
    await store.accounts.delete("alice")
    for owner in (alice, bob):
        store.committer.archive(owner, ms_to_id(MAY), "bob@x", b"<m/>")
        store.committer.offline(owner, ms_to_id(MAY), b"<m/>")
    await store.committer.flush()
    assert (await store.archive.maintain()).deleted == 2
    assert [await store.archive.count(owner) for owner in (alice, bob)] == [0, 1]
    assert [await store.offline.count(owner) for owner in (alice, bob)] == [0, 1]

"""How long a page of history takes, as the archive grows to millions of messages.

The database copies its own rows (INSERT ... SELECT), 10,000 messages an account; it stops growing when its time is up.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from pathlib import Path

from nestbox.core.ids import ms_to_id
from nestbox.modules.archive_pages import results
from nestbox.modules.archive_query import Query
from nestbox.modules.rsm import PageRequest
from nestbox.store import Store, open_store
from nestbox.store.archive import _where, page_query
from peers.nestbox import MariaDB
from sqlalchemy import text

__all__ = ["print_pages"]

EACH = 10_000  # messages of an account
STEP_MS = 60_000  # between two of them
PEERS = 20
PAGE = 50
PAGES = 300  # that are timed
BODY = "Eighty bytes of text, as the other benchmarks have it; nobody reads it, though.."
# Their own pages, in the order in which clients ask: the newest first, then back, then one conversation.
KINDS = {
    "the last": lambda edge: {"backward": True},
    "before one": lambda edge: {"before": edge, "backward": True},
    "after one": lambda edge: {"after": edge},
    "of a contact, before one": lambda edge: {"with_": "peer7@nestbox.test", "before": edge, "backward": True},
}


async def seed(store: Store, now_ms: int) -> int:
    """One account's archive, over a week until now; its first id."""
    first = ms_to_id(now_ms - EACH * STEP_MS)
    for number in range(EACH):
        peer = f"peer{number % PEERS}@nestbox.test"
        stanza = (
            f'<message type="chat" id="{number}" from="{peer}/phone" to="me@nestbox.test"><body>{BODY}</body></message>'
        )
        store.committer.archive(1, first + (number * STEP_MS << 16), peer, stanza.encode())
        if number % 5_000 == 0:
            await store.committer.flush()
    await store.committer.flush()
    return first


async def grow(store: Store, owners: int, wanted: int, deadline: float) -> int:
    """Copy what is there to more accounts until there are ``wanted`` of them or the time is up; how many there are."""
    while owners < wanted and time.monotonic() < deadline:
        more = min(owners, wanted - owners, 100)
        async with store.database.write() as connection:
            await connection.execute(
                text(
                    "INSERT INTO archive (owner, id, peer, stanza) SELECT owner + :owners, id, peer, stanza FROM archive"
                    " WHERE owner <= :more"
                ),
                {"owners": owners, "more": more},
            )
        owners += more
    return owners


async def measure(store: Store, first: int, owners: int) -> list[str]:
    """A table row for each kind of page."""
    lines = []
    for kind, options in KINDS.items():
        chosen = [
            (random.randint(1, owners), options(first + (random.randrange(2_000, EACH - 1_000) * STEP_MS << 16)))
            for _ in range(PAGES)
        ]
        waits, size = [], 0
        cpu = time.process_time()
        for owner, filters in chosen:
            began = time.perf_counter()
            page = await store.archive.query(owner, limit=PAGE, **filters)
            size += len(list(results(Query(None, PageRequest()), page.rows, "me@nestbox.test", "me@nestbox.test/a")))
            waits.append(time.perf_counter() - began)
        cpu = (time.process_time() - cpu) / PAGES * 1000
        assert size == PAGES * PAGE, "a page was not full"
        waits.sort()
        plan = await explain(store, *chosen[0])
        lines.append(
            f"| {store.database.kind} | {owners * EACH:,} | {kind} | {cpu:.2f} | {waits[PAGES // 2] * 1000:.1f} "
            f"| {waits[PAGES * 99 // 100] * 1000:.1f} | {plan} |"
        )
    return lines


async def explain(store: Store, owner: int, options: dict[str, object]) -> str:
    """How the database reads such a page."""
    options = dict(options)
    backward = bool(options.pop("backward", False))
    filters = (options.get(name) for name in ("with_", "start", "end", "after", "before", "ids"))
    query = page_query(_where(owner, *filters), PAGE, backward)
    async with store.database.read() as connection:
        sql = str(query.compile(connection.sync_connection, compile_kwargs={"literal_binds": True})).replace(":", "\\:")
        if store.database.kind == "sqlite":
            (row,) = (await connection.execute(text(f"EXPLAIN QUERY PLAN {sql}"))).all()
            return row.detail
        (row,) = (await connection.execute(text(f"EXPLAIN {sql}"))).all()
        return f"{row.type} {row.key}" + (", sorted" if "filesort" in (row.Extra or "") else "")


async def run(url: str, rows: int, minutes: float) -> None:
    """Measure at a hundredth, a tenth and the whole of the size, as far as the time goes."""
    deadline = time.monotonic() + minutes * 60
    store = await open_store(url)
    await store.migrate()
    first = await seed(store, time.time_ns() // 1_000_000)
    owners = 1
    for wanted in sorted({max(1, rows // EACH // part) for part in (100, 10, 1)}):
        owners = await grow(store, owners, wanted, deadline)
        for line in await measure(store, first, owners):
            print(line, flush=True)
        if time.monotonic() > deadline:
            print(f"| {store.database.kind} | stopped at {owners * EACH:,} rows: {minutes:g} minutes are over |")
            break
    await store.close()


def print_pages(options: argparse.Namespace) -> None:
    """The table, for both databases."""
    rows, minutes = options.history, options.minutes
    print(f"\n## A page of {PAGE} messages\n\nTime is until it is there, with everything that it runs beside\n")
    print("| database | messages kept | page | worker CPU ms | p50 ms | p99 ms | read by |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="bench.") as folder:
        asyncio.run(run(f"sqlite:///{folder}/nestbox.db", rows, minutes / 2))
        # What is copied need not survive a power cut.
        server = MariaDB(Path(folder), "--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0")
        try:
            asyncio.run(run(server.create(), rows, minutes / 2))
        finally:
            server.stop()

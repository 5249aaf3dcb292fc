"""Pages of an account's or a room's archive (XEP-0313, section 4): read for a query, and written as results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nestbox.core.delay import timestamp
from nestbox.core.errors import StanzaError
from nestbox.core.ids import id_to_ms
from nestbox.modules.rsm import page_result
from nestbox.wire import ns
from nestbox.wire.element import Element, el, escape_attribute

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.modules.archive_query import Query
    from nestbox.store.archive import ArchiveRow

__all__ = ["METADATA", "ends", "fetch", "results"]

PAGE = 50  # messages in a page when the client does not say
MAX_PAGE = 100
MAX_PAGE_BYTES = 1024 * 1024  # a page of the largest stanzas would fill a client's buffer
FRESH_MS = 5_000  # an id this young may be committed by another worker at this moment
METADATA = f"{{{ns.MAM}}}metadata"


async def fetch(server: Server, owner: int, query: Query) -> tuple[list[ArchiveRow], Element]:
    """The rows that answer a query to ``owner``'s archive, and the ``<fin/>``.

    Raises StanzaError item-not-found when an id that the client names is not there (section 4.3.2).
    """
    store = server.store.archive
    await server.store.committer.flush()  # a client finds what it has just sent
    await _check_edges(server, owner, query)
    names = ("with_", "full", "start", "end", "after", "before", "ids")
    filters = {name: getattr(query, name) for name in names}
    if query.page.max == 0:
        count = await store.count(owner, **filters)
        return [], _fin([], count == 0, count)
    filters["after"] = max((edge for edge in (query.after, query.since) if edge is not None), default=None)
    filters["before"] = min((edge for edge in (query.before, query.until) if edge is not None), default=None)
    page = await store.query(
        owner,
        **filters,
        limit=min(query.page.max or PAGE, MAX_PAGE),
        backward=query.page.backward,
    )
    rows = _bounded(page.rows, query.page.backward)
    complete = page.complete and len(rows) == len(page.rows)
    whole = complete and query.page.after is None and query.page.before is None
    return rows, _fin(rows, complete, len(rows) if whole else None)


async def _check_edges(server: Server, owner: int, query: Query) -> None:
    if not query.edges:
        return
    edges = sorted(query.edges)
    deadline = time.time() * 1000 + 1_000
    while True:
        page = await server.store.archive.query(owner, ids=edges, limit=len(edges))
        missing = query.edges.difference(row.id for row in page.rows)
        if not missing:
            return
        now = time.time() * 1000
        # A message may reach us before the worker that took it has committed it.
        if now > deadline or any(id_to_ms(edge) < now - FRESH_MS for edge in missing):
            raise StanzaError("item-not-found", "No message of this archive has that id.")
        await asyncio.sleep(0.02)


def results(query: Query, rows: list[ArchiveRow], from_: str, to: str) -> Iterator[bytes]:
    """The rows as messages from the archive to who asked, in the order that was asked for."""
    address = f'from="{escape_attribute(from_)}" to="{escape_attribute(to)}"'
    query_id = "" if query.query_id is None else f' queryid="{escape_attribute(query.query_id)}"'
    head = f'<message {address}><result xmlns="{ns.MAM}"{query_id} id="%d"><forwarded xmlns="{ns.FORWARD}">'
    start = (head.replace("%", "%%").replace("%%d", "%d") + f'<delay xmlns="{ns.DELAY}" stamp="%s"/>').encode()
    for row in reversed(rows) if query.flip else rows:
        stamp = timestamp(id_to_ms(row.id)).encode()
        yield b'%s<message xmlns="jabber:client"%s</forwarded></result></message>' % (
            start % (row.id, stamp),
            row.stanza.removeprefix(b"<message"),
        )


async def ends(server: Server, owner: int) -> Element:
    """The ``<metadata/>`` of an archive: its first and last message (XEP-0313, section 4.4)."""
    await server.store.committer.flush()
    found = await server.store.archive.ends(owner)
    answer = el(METADATA)
    for name, archive_id in zip(("start", "end"), found or (), strict=False):
        stamp = timestamp(id_to_ms(archive_id))
        answer.append(el(f"{{{ns.MAM}}}{name}", {"id": str(archive_id), "timestamp": stamp}))
    return answer


def _bounded(rows: list[ArchiveRow], backward: bool) -> list[ArchiveRow]:
    """As many rows as fit a page, from the end at which the page begins; at least one."""
    total = 0
    for count, row in enumerate(reversed(rows) if backward else rows):
        total += len(row.stanza)
        if total > MAX_PAGE_BYTES and count:
            return rows[-count:] if backward else rows[:count]
    return rows


def _fin(rows: list[ArchiveRow], complete: bool, count: int | None) -> Element:
    first = str(rows[0].id) if rows else None
    last = str(rows[-1].id) if rows else None
    return el(f"{{{ns.MAM}}}fin", {"complete": "true"} if complete else None, page_result(first, last, count))

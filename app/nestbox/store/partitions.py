"""The archive's monthly partitions on MariaDB: p202611 holds the ids of November 2026 and what is older than it.

``pmax`` takes what comes after the last month. Splitting it while it is empty costs nothing; when maintenance was
late, MariaDB moves its rows.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from nestbox.core.ids import ms_to_id

__all__ = ["drop", "extend", "row_estimate"]

_LIST = text(
    "SELECT partition_name AS name, partition_description AS bound FROM information_schema.partitions"
    " WHERE table_schema = DATABASE() AND table_name = 'archive' AND partition_name <> 'pmax'"
    " ORDER BY partition_ordinal_position"
)
_ROWS = text(
    "SELECT COALESCE(SUM(table_rows), 0) FROM information_schema.partitions"
    " WHERE table_schema = DATABASE() AND table_name = 'archive'"
)


def _month_after(year: int, month: int) -> tuple[int, int]:
    return (year + 1, 1) if month == 12 else (year, month + 1)


def _bound(year: int, month: int) -> int:
    """The first id that comes after a month."""
    return ms_to_id(int(datetime(*_month_after(year, month), 1, tzinfo=UTC).timestamp()) * 1000)


async def extend(connection: AsyncConnection, now_ms: int, months_ahead: int) -> list[str]:
    """Make the partitions of this month and of ``months_ahead`` more, and return the new names."""
    existing = [(row.name, int(row.bound)) for row in await connection.execute(_LIST)]
    last = existing[-1][1] if existing else 0
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    year, month = now.year, now.month
    parts = []
    for _ in range(months_ahead + 1):
        if _bound(year, month) > last:
            parts.append((f"p{year}{month:02}", _bound(year, month)))
        year, month = _month_after(year, month)
    if parts:
        made = ", ".join(f"PARTITION {name} VALUES LESS THAN ({bound})" for name, bound in parts)
        made += ", PARTITION pmax VALUES LESS THAN MAXVALUE"
        await connection.execute(text(f"ALTER TABLE archive REORGANIZE PARTITION pmax INTO ({made})"))
    return [name for name, _ in parts]


async def drop(connection: AsyncConnection, cutoff: int) -> list[str]:
    """Drop the partitions whose every id is below ``cutoff`` and return their names."""
    old = [row.name for row in await connection.execute(_LIST) if int(row.bound) <= cutoff]
    if old:
        await connection.execute(text(f"ALTER TABLE archive DROP PARTITION {', '.join(old)}"))
    return old


async def row_estimate(connection: AsyncConnection) -> int:
    """InnoDB's own estimate; counting would read every row."""
    return int((await connection.execute(_ROWS)).scalar_one())

"""INSERT or replace, which SQLite and MariaDB spell differently."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Executable, Table
from sqlalchemy.dialects import mysql, sqlite

__all__ = ["upsert"]


def upsert(kind: str, table: Table, values: Mapping[str, object]) -> Executable:
    """A statement that writes a row over the one with the same primary key. ``kind`` is sqlite or mariadb."""
    keys = [column.name for column in table.primary_key]
    rest = [name for name in values if name not in keys]
    if kind == "mariadb":
        statement = mysql.insert(table).values(**values)
        return statement.on_duplicate_key_update({name: statement.inserted[name] for name in rest or keys})
    lite = sqlite.insert(table).values(**values)
    if not rest:
        return lite.on_conflict_do_nothing()
    return lite.on_conflict_do_update(index_elements=keys, set_={name: lite.excluded[name] for name in rest})

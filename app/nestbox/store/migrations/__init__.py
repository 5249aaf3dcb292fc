"""The database's revisions, run by Alembic from `nestboxctl migrate`; there is no alembic.ini."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect

__all__ = ["current", "upgrade"]


def current(connection: Connection) -> str | None:
    """The database's revision; None when it is empty."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one_or_none()


def upgrade(connection: Connection) -> None:
    """Bring the database to the newest revision."""
    # Only here: the workers need none of it, and it is 15 MiB.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")

"""The database's revisions, run by Alembic from `nestboxctl migrate`; there is no alembic.ini.

During an upgrade, and after one that was taken back, an older release runs with the newer schema. So a revision only
adds: tables, indexes, and columns that may be NULL or have a default of the server. One with which older releases
cannot run begins the next thousand (1001); before it comes a release that needs nothing any more of what it takes away.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect

__all__ = ["current", "serves", "upgrade"]


def serves(revision: str | None, release: str) -> bool:
    """Whether a database at ``revision`` serves a release that knows revisions up to ``release``."""
    return revision is not None and revision >= release and revision[0] == release[0]


def current(connection: Connection) -> str | None:
    """The database's revision; None when it is empty."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one_or_none()


def upgrade(connection: Connection, to: str = "head") -> None:
    """Bring the database to a revision, the newest by default."""
    # Only here: the workers need none of it, and it is 15 MiB.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)

"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from nestbox.store.schema import Blob, Id, Name

revision = "0001"
down_revision = None

OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_row_format": "DYNAMIC"}
KEY = sa.LargeBinary(64).with_variant(sa.dialects.mysql.VARBINARY(64), "mysql")


def upgrade() -> None:
    _accounts()
    _rosters()
    _messages()
    _personal()


def _account_id() -> sa.Column[int]:
    return sa.Column("user_id", Id, sa.ForeignKey("accounts.id"), primary_key=True, nullable=False)


def _accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", Id, primary_key=True, autoincrement=True),
        sa.Column("username", Name(1023), nullable=False, unique=True),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("last_seen", sa.BigInteger),
        sa.Column("last_status", Name(1024)),
        sa.Column("roster_ver", sa.BigInteger, nullable=False),
        sa.Column("roster_floor", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
        **OPTIONS,
    )
    op.create_table(
        "credentials",
        _account_id(),
        sa.Column("hash", Name(16), primary_key=True),
        sa.Column("salt", KEY, nullable=False),
        sa.Column("iterations", sa.Integer, nullable=False),
        sa.Column("stored_key", KEY, nullable=False),
        sa.Column("server_key", KEY, nullable=False),
        **OPTIONS,
    )


def _rosters() -> None:
    op.create_table(
        "roster",
        _account_id(),
        sa.Column("jid", Name(2047), primary_key=True),
        sa.Column("name", Blob, nullable=False),
        sa.Column("subscription", Name(8), nullable=False),
        sa.Column("ask", sa.Boolean, nullable=False),
        sa.Column("approved", sa.Boolean, nullable=False),
        sa.Column("groups_json", Blob, nullable=False),
        sa.Column("ver", sa.BigInteger, nullable=False),
        **OPTIONS,
    )
    op.create_index("roster_ver", "roster", ["user_id", "ver"])
    op.create_table(
        "roster_requests",
        _account_id(),
        sa.Column("jid", Name(2047), primary_key=True),
        sa.Column("presence", Blob, nullable=False),
        **OPTIONS,
    )


def _messages() -> None:
    sqlite = op.get_bind().dialect.name == "sqlite"
    op.create_table(
        "archive",
        sa.Column("owner", Id, primary_key=not sqlite, nullable=False, autoincrement=False),
        sa.Column("id", Id, primary_key=not sqlite, nullable=False, autoincrement=False),
        sa.Column("peer", Name(2047), nullable=False),
        sa.Column("stanza", Blob, nullable=False),
        **OPTIONS,
    )
    if sqlite:
        op.create_index("archive_time", "archive", ["owner", "id", "peer"], unique=True)
    else:
        op.create_index("archive_peer", "archive", ["owner", "peer", "id"])
        # The months are split off by maintenance, which `nestboxctl migrate` runs as well.
        op.execute("ALTER TABLE archive PARTITION BY RANGE (id) (PARTITION pmax VALUES LESS THAN MAXVALUE)")
    op.create_table(
        "offline",
        sa.Column("user_id", Id, primary_key=True, autoincrement=False),
        sa.Column("id", Id, primary_key=True, autoincrement=False),
        sa.Column("stanza", Blob, nullable=False),
        sqlite_with_rowid=False,
        **OPTIONS,
    )
    op.create_table("archive_prefs", _account_id(), sa.Column("prefs_json", Blob, nullable=False), **OPTIONS)


def _personal() -> None:
    op.create_table("vcards", _account_id(), sa.Column("xml", Blob, nullable=False), **OPTIONS)
    op.create_table(
        "private",
        _account_id(),
        sa.Column("name", Name(512), primary_key=True),
        sa.Column("xml", Blob, nullable=False),
        **OPTIONS,
    )
    op.create_table("blocking", _account_id(), sa.Column("jid", Name(3060), primary_key=True), **OPTIONS)

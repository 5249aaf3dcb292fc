"""Message of the day, welcome message, and how long an account's archive is kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from nestbox.store.schema import Blob, Id, Name

revision = "0007"
down_revision = "0006"

OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_row_format": "DYNAMIC"}


def upgrade() -> None:
    op.add_column("accounts", sa.Column("archive_days", sa.Integer))
    op.create_table(
        "notices",
        sa.Column("name", Name(16), primary_key=True),
        sa.Column("id", sa.BigInteger, nullable=False),
        sa.Column("text", Blob, nullable=False),
        **OPTIONS,
    )
    op.create_table(
        "notices_seen",
        sa.Column("user_id", Id, sa.ForeignKey("accounts.id"), primary_key=True, nullable=False),
        sa.Column("name", Name(16), primary_key=True),
        sa.Column("id", sa.BigInteger, nullable=False),
        **OPTIONS,
    )

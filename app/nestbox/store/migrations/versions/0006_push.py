"""Push registrations (XEP-0357)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from nestbox.store.schema import Blob, Id, Name

revision = "0006"
down_revision = "0005"

OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_row_format": "DYNAMIC"}


def upgrade() -> None:
    op.create_table(
        "push",
        sa.Column("user_id", Id, sa.ForeignKey("accounts.id"), primary_key=True, nullable=False),
        sa.Column("id", sa.LargeBinary(32).with_variant(sa.dialects.mysql.VARBINARY(32), "mysql"), primary_key=True),
        sa.Column("jid", Name(3060), nullable=False),
        sa.Column("node", Name(1024), nullable=False),
        sa.Column("resource", Name(1023), nullable=False),
        sa.Column("options", Blob, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        **OPTIONS,
    )

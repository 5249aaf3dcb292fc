"""Uploaded files (XEP-0363)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from nestbox.store.schema import Id, Name

revision = "0004"
down_revision = "0003"

OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_row_format": "DYNAMIC"}


def upgrade() -> None:
    op.create_table(
        "uploads",
        sa.Column("token", Name(64), primary_key=True),
        sa.Column("user_id", Id, sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("name", Name(255), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("content_type", Name(255), nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("stored", sa.BigInteger),
        **OPTIONS,
    )
    op.create_index("uploads_user", "uploads", ["user_id", "created"])

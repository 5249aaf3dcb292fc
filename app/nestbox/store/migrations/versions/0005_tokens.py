"""Tokens of FAST (XEP-0484)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from nestbox.store.schema import Id, Name

revision = "0005"
down_revision = "0004"

OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_row_format": "DYNAMIC"}


def upgrade() -> None:
    op.create_table(
        "tokens",
        sa.Column("user_id", Id, sa.ForeignKey("accounts.id"), primary_key=True, nullable=False),
        sa.Column("agent", Name(64), primary_key=True),
        sa.Column("fresh", sa.Boolean, primary_key=True),
        sa.Column("mechanism", Name(32), nullable=False),
        sa.Column("nonce", sa.LargeBinary(16).with_variant(sa.dialects.mysql.VARBINARY(16), "mysql"), nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        **OPTIONS,
    )

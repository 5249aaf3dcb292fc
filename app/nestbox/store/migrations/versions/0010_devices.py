"""The devices that an account is used on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from nestbox.store.schema import Id, Name

revision = "0010"
down_revision = "0009"

OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_row_format": "DYNAMIC"}


def upgrade() -> None:
    op.create_table(
        "devices",
        sa.Column("user_id", Id, sa.ForeignKey("accounts.id"), primary_key=True, nullable=False),
        sa.Column("agent", Name(64), primary_key=True),
        sa.Column("client", Name(16), nullable=False),
        sa.Column("name", Name(512), nullable=False),
        sa.Column("seen", sa.BigInteger, nullable=False),
        **OPTIONS,
    )

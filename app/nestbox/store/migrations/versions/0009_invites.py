"""Invitations (XEP-0401)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from nestbox.store.schema import Id, Name

revision = "0009"
down_revision = "0008"

OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_row_format": "DYNAMIC"}


def upgrade() -> None:
    op.create_table(
        "invites",
        sa.Column("token", Name(64), primary_key=True),
        sa.Column("user_id", Id, sa.ForeignKey("accounts.id")),
        sa.Column("username", Name(1023), nullable=False),
        sa.Column("registers", sa.Boolean, nullable=False),
        sa.Column("contact", sa.Boolean, nullable=False),
        sa.Column("uses_left", sa.Integer, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
        **OPTIONS,
    )
    op.create_index("invites_user", "invites", ["user_id"])

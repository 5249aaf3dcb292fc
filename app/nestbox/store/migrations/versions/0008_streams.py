"""How far clients' streams have got."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from nestbox.store.schema import Id, Name

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "streams",
        sa.Column("sm_id", Name(64), primary_key=True),
        sa.Column("user_id", Id, nullable=False, autoincrement=False),
        sa.Column("received", sa.BigInteger, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_row_format="DYNAMIC",
    )
    op.create_index("streams_at", "streams", ["at"])

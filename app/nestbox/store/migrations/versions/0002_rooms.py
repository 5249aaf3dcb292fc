"""Rooms of XEP-0045: configuration, affiliations, subject. Their messages are in the archive."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from nestbox.store.schema import Blob, Id, Name

revision = "0002"
down_revision = "0001"

OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_row_format": "DYNAMIC"}


def upgrade() -> None:
    op.create_table(
        "rooms",
        sa.Column("id", Id, primary_key=True, autoincrement=True),
        sa.Column("name", Name(1023), nullable=False, unique=True),
        sa.Column("listed", sa.Boolean, nullable=False),
        sa.Column("secret", sa.LargeBinary(32).with_variant(sa.dialects.mysql.VARBINARY(32), "mysql"), nullable=False),
        sa.Column("config_json", Blob, nullable=False),
        sa.Column("subject", Blob, nullable=False),
        sa.Column("vcard", Blob),
        sqlite_autoincrement=True,
        **OPTIONS,
    )
    op.create_table(
        "room_affiliations",
        sa.Column("room_id", Id, sa.ForeignKey("rooms.id"), primary_key=True, autoincrement=False),
        sa.Column("jid", Name(2047), primary_key=True),
        sa.Column("affiliation", Name(8), nullable=False),
        sa.Column("nick", Blob),
        sa.Column("reason", Blob),
        sa.Column("user_id", Id, sa.ForeignKey("accounts.id")),
        sa.Index("room_affiliations_user", "user_id", "affiliation"),
        **OPTIONS,
    )

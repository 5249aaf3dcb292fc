"""PEP and pubsub: nodes, items, subscriptions, affiliations; and which picture an account has."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from nestbox.store.schema import Blob, Id, Name

revision = "0003"
down_revision = "0002"

OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_row_format": "DYNAMIC"}


def upgrade() -> None:
    op.add_column("accounts", sa.Column("photo", Name(40)))
    _nodes()
    _items()
    _people()


def _account_id(name: str = "user_id", *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, Id, sa.ForeignKey("accounts.id"), nullable=nullable)


def _node_id() -> sa.Column[int]:
    return sa.Column("node_id", Id, sa.ForeignKey("pubsub_nodes.id"), primary_key=True, nullable=False)


def _nodes() -> None:
    op.create_table(
        "pubsub_nodes",
        sa.Column("id", Id, primary_key=True, autoincrement=True),
        _account_id(),
        sa.Column("home", Name(2047), nullable=False),
        sa.Column("name", Name(1000), nullable=False),
        sa.Column("config_json", Blob, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
        **OPTIONS,
    )
    op.create_index("pubsub_nodes_name", "pubsub_nodes", ["home", "name"], unique=True)
    op.create_index("pubsub_nodes_user", "pubsub_nodes", ["user_id"])


def _items() -> None:
    op.create_table(
        "pubsub_items",
        _node_id(),
        sa.Column("name", Name(1000), primary_key=True),
        _account_id(),
        sa.Column("seq", Id, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("publisher", Name(2047), nullable=False),
        sa.Column("payload", Blob, nullable=False),
        **OPTIONS,
    )
    op.create_index("pubsub_items_seq", "pubsub_items", ["node_id", "seq"])
    op.create_index("pubsub_items_user", "pubsub_items", ["user_id", "size"])


def _people() -> None:
    op.create_table(
        "pubsub_affiliations",
        _node_id(),
        sa.Column("jid", Name(2047), primary_key=True),
        _account_id(),
        _account_id("subject_id", nullable=True),
        sa.Column("affiliation", Name(16), nullable=False),
        **OPTIONS,
    )
    op.create_table(
        "pubsub_subscriptions",
        _node_id(),
        sa.Column("jid", Name(3060), primary_key=True),
        _account_id(),
        _account_id("subject_id", nullable=True),
        sa.Column("bare", Name(2047), nullable=False),
        sa.Column("subid", Name(32), nullable=False),
        sa.Column("state", Name(16), nullable=False),
        **OPTIONS,
    )
    for table in ("affiliations", "subscriptions"):
        op.create_index(f"pubsub_{table}_user", f"pubsub_{table}", ["user_id"])
        op.create_index(f"pubsub_{table}_subject", f"pubsub_{table}", ["subject_id"])

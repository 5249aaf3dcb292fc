"""Tokens of FAST (XEP-0484) and invitations (XEP-0401)."""

from __future__ import annotations

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    pass

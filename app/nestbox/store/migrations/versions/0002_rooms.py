"""Rooms of XEP-0045: configuration, affiliations, subject, messages."""

from __future__ import annotations

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    pass

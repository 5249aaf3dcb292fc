"""What the store raises."""

from __future__ import annotations

__all__ = ["AccountExists", "NoSuchAccount", "StoreBusy", "StoreError", "StoreFull"]


class StoreError(Exception):
    """The store cannot do it now; the message is one sentence for the operator."""


class StoreBusy(StoreError):
    """Too much waits for the database already; the stanza should be refused with resource-constraint."""


class StoreFull(StoreError):
    """The account has as much of this as it may have; ``limit`` is the limit's name in the metrics."""

    def __init__(self, message: str, limit: str) -> None:
        super().__init__(message)
        self.limit = limit


class NoSuchAccount(StoreError):
    """There is no account of that name or id."""


class AccountExists(StoreError):
    """The name is taken."""

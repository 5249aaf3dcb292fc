"""What the server can do, one file per XEP or RFC chapter.

A module says what it implements in ``XEPS`` or ``RFCS`` and joins in by ``setup(server)``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from nestbox import Xep

if TYPE_CHECKING:
    from nestbox.core.server import Server

__all__ = ["MODULES", "Xep", "setup_all"]


# In the order in which they are set up.
MODULES = (
    "roster",
    "presence",
    "offline",
    "archive",
    "archive_preferences",
    "carbons",
    "blocking",
    "stanza_ids",
    "client_state",
    "disco",
    "commands",
    "admin",
    "announce",
    "devices",
    "ping",
    "version",
    "contact",
    "entity_time",
    "last_activity",
    "vcard",
    "private_storage",
    "pubsub",
    "muc",
    "avatars",
    "bookmarks",
    "legacy_session",
    "external_services",
    "uploads",
    "push",
    "invites",
    "preauth",
    "registration",
    "components",  # after all that have hosts of their own
    "caps",  # last: it hashes the features of all the others
)


def setup_all(server: Server) -> None:
    """Set up every module."""
    for name in MODULES:
        import_module(f"nestbox.modules.{name}").setup(server)

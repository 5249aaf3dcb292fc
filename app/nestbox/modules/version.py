"""Software version (XEP-0092). The operating system stays our secret: it would only help an attacker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestbox import __version__
from nestbox.modules import Xep
from nestbox.wire import ns
from nestbox.wire.element import el

if TYPE_CHECKING:
    from nestbox.core.server import Server

__all__ = ["XEPS", "setup"]

XEPS = (Xep(92, "1.1", "without the operating system"),)
QUERY, NAME, VERSION = (f"{{{ns.VERSION}}}{name}" for name in ("query", "name", "version"))


def setup(server: Server) -> None:
    """Answer version queries to the host."""
    server.router.iq(
        "host", "get", QUERY, lambda context: el(QUERY, None, el(NAME, text="Nestbox"), el(VERSION, text=__version__))
    )
    server.host_features.add(ns.VERSION)

"""Rooms (XEP-0045) on rooms.DOMAIN.

A room is owned by one worker at a time (`ownership`), which keeps its state (`room`) and the seats of its occupants'
sessions (`occupants`); the others pass on what comes for it. What must outlive that worker is in the store
(configuration, affiliations, subject, archive) or on the bus (seats). `service` is where stanzas come in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestbox.modules import Xep
from nestbox.modules.muc.service import Service

if TYPE_CHECKING:
    from nestbox.core.server import Server

__all__ = ["XEPS", "setup"]

XEPS = (
    Xep(45, "1.35.1", "no GC 1.0, no unique room names, no approval of registrations by admins"),
    Xep(249, "1.2"),
    Xep(317, "0.3.1", "the list of hats is shown by its command alone"),
    Xep(410, "1.1.0"),
    Xep(421, "1.0.1"),
    Xep(424, "0.4.2"),
    Xep(425, "0.3.0"),
    Xep(486, "0.1.0"),
)


def setup(server: Server) -> None:
    """Open the rooms' host."""
    service = Service(server)
    server.router.hosts[service.host] = service.handle

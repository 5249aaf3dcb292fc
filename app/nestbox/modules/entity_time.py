"""Entity time (XEP-0202): the server's clock in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nestbox.modules import Xep
from nestbox.wire import ns
from nestbox.wire.element import Element, el

if TYPE_CHECKING:
    from nestbox.core.hooks import IqContext
    from nestbox.core.server import Server

__all__ = ["XEPS", "setup"]

XEPS = (Xep(202, "2.0"),)
TIME, ZONE, CLOCK = (f"{{{ns.TIME}}}{name}" for name in ("time", "tzo", "utc"))


def _now(context: IqContext) -> Element:
    text = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return el(TIME, None, el(ZONE, text="+00:00"), el(CLOCK, text=text))


def setup(server: Server) -> None:
    """Answer time queries to the host."""
    server.router.iq("host", "get", TIME, _now)
    server.host_features.add(ns.TIME)

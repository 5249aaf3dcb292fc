"""XMPP ping (XEP-0199): the server and accounts answer, so that a client knows its connection lives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestbox.modules import Xep
from nestbox.modules.disco import check_sees
from nestbox.wire import ns

if TYPE_CHECKING:
    from nestbox.core.hooks import IqContext
    from nestbox.core.server import Server

__all__ = ["XEPS", "setup"]

XEPS = (Xep(199, "2.0.1"),)
PING = f"{{{ns.PING}}}ping"


def setup(server: Server) -> None:
    """Answer pings to the host and to accounts."""

    async def ping_account(context: IqContext) -> None:
        await check_sees(server, context)

    server.router.iq("host", "get", PING, lambda context: None)
    server.router.iq("account", "get", PING, ping_account)
    server.host_features.add(ns.PING)
    server.account_features.add(ns.PING)

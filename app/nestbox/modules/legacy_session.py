"""Session establishment of RFC 3921, section 3, which RFC 6121 made a no-op: old clients still ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.core.hooks import IqContext
from nestbox.wire import ns
from nestbox.wire.element import el, to_bytes

if TYPE_CHECKING:
    from nestbox.core.server import Server

__all__ = ["RFCS", "setup"]

RFCS = ("RFC 3921, section 3",)
SESSION = f"{{{ns.SESSION}}}session"


def _answer(context: IqContext) -> None:
    if context.account is not None and not context.own:
        raise StanzaError("service-unavailable")


def setup(server: Server) -> None:
    """Answer with an empty result, and say that nobody needs to ask."""
    for where in ("host", "account"):
        server.router.iq(where, "set", SESSION, _answer)
    server.stream_features.append(to_bytes(el(SESSION, None, el(f"{{{ns.SESSION}}}optional"))))

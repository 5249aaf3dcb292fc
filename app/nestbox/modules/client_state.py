"""XEP-0352, Client State Indication: what may wait does not wake a phone.

While a client says it is inactive, presence, lone chat states and event notifications are held back; the first stanza
that matters, or the client's return, sends them all, in order, but of each contact's resource only its last presence;
each says since when it has waited.
The state does not outlast a resumption (section 5.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestbox.modules import Xep
from nestbox.modules.content import PUBSUB_EVENT, is_chat_state_only
from nestbox.wire import ns

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.core.session import Session
    from nestbox.wire.element import Element
    from nestbox.wire.stanza import Stanza

__all__ = ["XEPS", "setup", "urgent"]

XEPS = (Xep(352, "1.0.0"),)


def urgent(stanza: Stanza) -> bool:
    """Whether a stanza may not wait for an inactive client."""
    if stanza.kind == "presence":
        return stanza.type not in (None, "unavailable")
    if stanza.kind == "iq":
        return True
    element = stanza.element
    return not is_chat_state_only(element) and element.find(PUBSUB_EVENT) is None


def setup(server: Server) -> None:
    """Offer the feature and listen to what clients say."""
    server.stream_features.append(f'<csi xmlns="{ns.CSI}"/>'.encode())
    for name, handler in (("active", _active), ("inactive", _inactive)):
        server.nonzas[f"{{{ns.CSI}}}{name}"] = server.inline[f"{{{ns.CSI}}}{name}"] = handler
    server.router.urgent = urgent


def _active(session: Session, element: Element) -> None:
    session.release()
    session.held = None


def _inactive(session: Session, element: Element) -> None:
    if session.held is None:
        session.held = {}

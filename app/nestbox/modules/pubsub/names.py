"""The elements of XEP-0060 and its errors."""

from __future__ import annotations

from nestbox.core.errors import StanzaError
from nestbox.core.jid import JID, parse_jid
from nestbox.wire import ns
from nestbox.wire.element import Element, el

__all__ = ["node_of", "of_event", "of_ns", "of_owner", "refuse", "subject"]


def of_ns(name: str) -> str:
    """The tag of an element that clients use."""
    return f"{{{ns.PUBSUB}}}{name}"


def of_owner(name: str) -> str:
    """The tag of an element that owners use."""
    return f"{{{ns.PUBSUB_OWNER}}}{name}"


def of_event(name: str) -> str:
    """The tag of an element in notifications."""
    return f"{{{ns.PUBSUB_EVENT}}}{name}"


def refuse(
    condition: str, specific: str, text: str = "", *, feature: str = "", type: str | None = None, limit: str = ""
) -> StanzaError:
    """The error with its condition of ``pubsub#errors``; ``feature`` says what is not supported."""
    extra = el(f"{{{ns.PUBSUB_ERRORS}}}{specific}", {"feature": feature} if feature else {})
    return StanzaError(condition, text, type=type, extra=extra, limit=limit)


def node_of(element: Element) -> str:
    """The name of the node that a request is about. Raises StanzaError where there is none."""
    name = element.get("node")
    if not name:
        raise refuse("bad-request", "nodeid-required", "Which node?")
    return name


def subject(element: Element) -> JID:
    """The ``jid`` of an element. Raises StanzaError."""
    text = element.get("jid")
    if not text:
        raise refuse("bad-request", "jid-required", "Whose address?")
    try:
        return parse_jid(text)
    except ValueError as error:
        raise refuse("bad-request", "invalid-jid", str(error)) from None

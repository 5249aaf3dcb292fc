"""When a stanza was sent that comes late (XEP-0203), in the form of XEP-0082."""

from __future__ import annotations

from datetime import UTC, datetime

from nestbox.wire import ns
from nestbox.wire.element import Element, el
from nestbox.wire.stanza import Stanza

__all__ = ["DELAY", "add_delay", "timestamp"]

DELAY = f"{{{ns.DELAY}}}delay"


def timestamp(ms: int) -> str:
    """Unix milliseconds as XEP-0082 wants them."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


def add_delay(stanza: Stanza, domain: str, ms: int) -> Element | None:
    """Say that ``domain`` has had a stanza since then (Unix milliseconds); None where it says so already."""
    if any(delay.get("from") == domain for delay in stanza.element.iterfind(DELAY)):
        return None
    delay = el(DELAY, {"from": domain, "stamp": timestamp(ms)})
    stanza.append(delay)
    return delay

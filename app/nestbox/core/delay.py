"""When a stanza was sent that comes late (XEP-0203), in the form of XEP-0082."""

from __future__ import annotations

from datetime import UTC, datetime

from nestbox.wire import ns
from nestbox.wire.element import Element, el, escape_attribute
from nestbox.wire.stanza import Stanza

__all__ = ["DELAY", "add_delay", "delayed", "timestamp"]

DELAY = f"{{{ns.DELAY}}}delay"


def timestamp(ms: int) -> str:
    """Unix milliseconds as XEP-0082 wants them."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


def delayed(data: bytes, by: str, ms: int) -> bytes:
    """A stanza as bytes in canonical form; it says that ``by`` has had it since then (Unix milliseconds)."""
    delay = f'<delay xmlns="{ns.DELAY}" from="{escape_attribute(by)}" stamp="{timestamp(ms)}"/>'.encode()
    if data.endswith(b"/>"):  # it has no children
        return data[:-2] + b">" + delay + b"</" + data[1 : data.index(b" ")] + b">"
    at = data.rindex(b"</")
    return data[:at] + delay + data[at:]


def add_delay(stanza: Stanza, domain: str, ms: int) -> Element | None:
    """Say that ``domain`` has had a stanza since then (Unix milliseconds); None where it says so already."""
    if any(delay.get("from") == domain for delay in stanza.element.iterfind(DELAY)):
        return None
    delay = el(DELAY, {"from": domain, "stamp": timestamp(ms)})
    stanza.append(delay)
    return delay

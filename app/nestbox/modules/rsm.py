"""Paging through results: XEP-0059, Result Set Management."""

from __future__ import annotations

from dataclasses import dataclass

from nestbox.core.errors import StanzaError
from nestbox.modules import Xep
from nestbox.wire import ns
from nestbox.wire.element import Element, el

__all__ = ["SET", "XEPS", "PageRequest", "page_request", "page_result"]

XEPS = (Xep(59, "1.0.1"),)
SET = f"{{{ns.RSM}}}set"


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page is asked for: at most ``max`` items after one; ``backward`` for those before one, or the last.

    ``max`` is None when the client left it to us, 0 when it only wants the count (section 2.7).
    """

    max: int | None = None
    after: str | None = None
    before: str | None = None
    backward: bool = False


def page_request(parent: Element) -> PageRequest:
    """Read the ``<set/>`` in ``parent``, if any. Raises StanzaError for what cannot be answered."""
    request = parent.find(SET)
    if request is None:
        return PageRequest()
    values = {child.tag.rpartition("}")[2]: child.text or "" for child in request}
    if "index" in values:
        raise StanzaError("feature-not-implemented", "Pages are found by the id of an item, not by a number.")
    if "after" in values and "before" in values:
        raise StanzaError("bad-request", "A page is after one item or before one, not both.")
    limit = None
    if "max" in values:
        text = values["max"].strip()
        if not (text.isascii() and text.isdigit()):
            raise StanzaError("bad-request", "max must be a number, 0 or more.")
        limit = int(text[:9])
    return PageRequest(limit, values.get("after") or None, values.get("before") or None, "before" in values)


def page_result(first: str | None, last: str | None, count: int | None) -> Element:
    """The ``<set/>`` of an answer; ``count`` where it is known."""
    answer = el(SET)
    if first is not None and last is not None:
        answer.append(el(f"{{{ns.RSM}}}first", text=first))
        answer.append(el(f"{{{ns.RSM}}}last", text=last))
    if count is not None:
        answer.append(el(f"{{{ns.RSM}}}count", text=str(count)))
    return answer

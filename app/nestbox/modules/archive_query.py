"""What a client asks of its archive: the query of XEP-0313, section 4, read and checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from nestbox.core.errors import StanzaError
from nestbox.core.jid import JID, parse_jid
from nestbox.modules import dataforms, rsm
from nestbox.modules.dataforms import Field
from nestbox.modules.rsm import PageRequest
from nestbox.wire import ns
from nestbox.wire.element import Element, el, escape_attribute

__all__ = ["FLIP_PAGE", "GROUPCHAT", "QUERY", "Query", "milliseconds", "parse_query", "query_form"]

QUERY = f"{{{ns.MAM}}}query"
FLIP_PAGE = f"{{{ns.MAM}}}flip-page"
_VALIDATE = f"{{{ns.VALIDATE}}}validate"
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII).fullmatch
_MAX_IDS = 100
_FIELDS = (
    Field("jid-single", "with"),
    Field("text-single", "start"),
    Field("text-single", "end"),
    Field("text-single", "before-id"),
    Field("text-single", "after-id"),
    Field("list-multi", "ids"),
)
GROUPCHAT = Field("boolean", "include-groupchat")


@dataclass(slots=True)
class Query:
    """A query: filters (``start`` and ``end`` in Unix milliseconds, ids as numbers), the page, and how to send it.

    ``full`` is the full JID of ``with``, escaped as in an attribute, None for a bare one.

    ``edges`` are all ids that must exist: `item-not-found` otherwise (section 4.3.2); ``since`` and ``until`` are those
    that part the page from the rest of what is found (XEP-0059).
    """

    query_id: str | None
    page: PageRequest
    flip: bool = False
    with_: str | None = None
    full: bytes | None = None
    start: int | None = None
    end: int | None = None
    after: int | None = None
    before: int | None = None
    ids: list[int] | None = None
    since: int | None = None
    until: int | None = None
    edges: frozenset[int] = frozenset()


def query_form(*more: Field) -> Element:
    """The answer to a query of type get: which fields there are (section 4.1.5)."""
    form = dataforms.form(ns.MAM, (*_FIELDS, *more))
    ids = next(field for field in form if field.get("var") == "ids")
    ids.append(el(_VALIDATE, {"datatype": "xs:string"}, el(f"{{{ns.VALIDATE}}}open")))  # any id will do
    return el(QUERY, None, form)


def parse_query(query: Element, *, occupants: bool = False) -> Query:
    """Read ``<query/>``; with ``occupants`` an address to filter by is one in a room.

    Raises StanzaError: bad-request, feature-not-implemented (unknown field), item-not-found.
    """
    page = rsm.page_request(query)
    result = Query(query.get("queryid"), page, query.find(FLIP_PAGE) is not None)
    form = query.find(dataforms.FORM)
    fields = dataforms.submitted(form, ns.MAM) if form is not None else {}
    for name, values in fields.items():
        if name == "ids":
            if len(values) > _MAX_IDS:
                raise StanzaError("bad-request", f"At most {_MAX_IDS} ids in one query.", limit="archive_ids")
            result.ids = [_archive_id(value) for value in values]
        elif len(values) != 1:
            raise StanzaError("bad-request", f"The field {name} needs one value.")
        elif name == "with":
            address = _address(values[0])
            result.with_ = str(address) if occupants else address.bare
            if address.is_full and not occupants:
                result.full = escape_attribute(str(address)).encode()
        elif name == "start":
            result.start = milliseconds(values[0])
        elif name == "end":
            result.end = milliseconds(values[0])
        elif name == "after-id":
            result.after = _archive_id(values[0])
        elif name == "before-id":
            result.before = _archive_id(values[0])
        elif name != "include-groupchat":  # rooms keep their own archives, so there is nothing to leave out
            raise StanzaError("feature-not-implemented", f"This archive cannot be searched by {name}.")
    edges = {edge for edge in (result.after, result.before, *(result.ids or ())) if edge is not None}
    if page.after is not None:
        result.since = _archive_id(page.after)
    if page.before is not None:
        result.until = _archive_id(page.before)
    result.edges = frozenset(edges | ({result.since, result.until} - {None}))
    return result


def _archive_id(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or int(text) >= 1 << 63:
        raise StanzaError("item-not-found", "No message of this archive has that id.")
    return int(text)


def _address(text: str) -> JID:
    try:
        return parse_jid(text)
    except ValueError as error:
        raise StanzaError("bad-request", str(error)) from None


def milliseconds(text: str) -> int:
    """A date and time of XEP-0082 as Unix time in milliseconds. Raises StanzaError bad-request."""
    try:
        if not _DATE(text):
            raise ValueError("fromisoformat takes more than that")
        value = datetime.fromisoformat(text)
        return max(0, min(int(value.timestamp() * 1000), (1 << 47) - 1))
    except (ValueError, OverflowError):
        raise StanzaError("bad-request", f"{text[:64]!r} is no date and time of XEP-0082.") from None

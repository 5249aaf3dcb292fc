"""Data forms (XEP-0004), as far as a server reads and offers them."""

from __future__ import annotations

from collections.abc import Iterable

from nestbox.core.errors import StanzaError
from nestbox.wire import ns
from nestbox.wire.element import Element, el

__all__ = ["FORM", "form", "submitted"]

FORM = f"{{{ns.DATA_FORMS}}}x"
_FIELD = f"{{{ns.DATA_FORMS}}}field"
_VALUE = f"{{{ns.DATA_FORMS}}}value"


def form(form_type: str, fields: Iterable[tuple[str, str]]) -> Element:
    """An empty form to fill in, its fields given as (type, name) (section 3.2; FORM_TYPE: XEP-0068)."""
    children = [el(_FIELD, {"type": "hidden", "var": "FORM_TYPE"}, el(_VALUE, text=form_type))]
    children.extend(el(_FIELD, {"type": kind, "var": name}) for kind, name in fields)
    return el(FORM, {"type": "form"}, *children)


def submitted(x: Element, form_type: str) -> dict[str, list[str]]:
    """The values of a submitted form by field, without FORM_TYPE.

    Raises StanzaError bad-request for a form of another kind and for a field that is there twice.
    """
    if x.get("type") != "submit":
        raise StanzaError("bad-request", "The form must be of type submit.")
    values: dict[str, list[str]] = {}
    for field in x.iterfind(_FIELD):
        name = field.get("var")
        if not name or name in values:
            raise StanzaError("bad-request", "Each field of a form needs a name of its own.")
        values[name] = [value.text or "" for value in field.iterfind(_VALUE)]
    if values.pop("FORM_TYPE", None) != [form_type]:
        raise StanzaError("bad-request", f"The form must be a {form_type}.")
    return values

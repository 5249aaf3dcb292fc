"""Data forms (XEP-0004), as far as a server reads and offers them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nestbox import Xep
from nestbox.core.errors import StanzaError
from nestbox.wire import ns
from nestbox.wire.element import Element, el

__all__ = ["FORM", "XEPS", "Field", "form", "submitted", "table"]

XEPS = (Xep(4, "2.13.1"),)

FORM = f"{{{ns.DATA_FORMS}}}x"
_FIELD = f"{{{ns.DATA_FORMS}}}field"
_VALUE = f"{{{ns.DATA_FORMS}}}value"


class Field(NamedTuple):
    """A field: its type and name; ``options`` are (label, value) pairs of a list."""

    kind: str
    name: str
    label: str = ""
    values: Sequence[str] = ()
    required: bool = False
    options: Sequence[tuple[str, str]] = ()


def form(
    form_type: str, fields: Iterable[Field], *, kind: str = "form", title: str = "", instructions: str = ""
) -> Element:
    """A form to fill in, or of ``kind`` result (section 3.2; FORM_TYPE: XEP-0068)."""
    answer = el(FORM, {"type": kind})
    for tag, text in (("title", title), ("instructions", instructions)):
        if text:
            answer.append(el(f"{{{ns.DATA_FORMS}}}{tag}", text=text))
    answer.append(_field(Field("hidden", "FORM_TYPE", values=(form_type,))))
    answer.extend(map(_field, fields))
    return answer


def table(columns: Sequence[Field], rows: Iterable[Sequence[str]]) -> Element:
    """A result of many items with the same fields (section 3.4)."""
    reported = el(f"{{{ns.DATA_FORMS}}}reported", None, *map(_field, columns))
    answer = el(FORM, {"type": "result"}, reported)
    for row in rows:
        item = el(f"{{{ns.DATA_FORMS}}}item")
        for column, value in zip(columns, row, strict=True):
            item.append(el(_FIELD, {"var": column.name}, el(_VALUE, text=value)))
        answer.append(item)
    return answer


def _field(field: Field) -> Element:
    answer = el(_FIELD, {"type": field.kind, "var": field.name})
    if field.label:
        answer.set("label", field.label)
    if field.required:
        answer.append(el(f"{{{ns.DATA_FORMS}}}required"))
    answer.extend(el(_VALUE, text=value) for value in field.values)
    for label, value in field.options:
        answer.append(el(f"{{{ns.DATA_FORMS}}}option", {"label": label}, el(_VALUE, text=value)))
    return answer


def submitted(x: Element, form_type: str | None, *, must_say: bool = True) -> dict[str, list[str]]:
    """The values of a submitted form by field, without FORM_TYPE; ``form_type`` None takes any.

    Where there is only one kind of form, it need not say which it is (``must_say``; XEP-0068, section 4.1).
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
    given = values.pop("FORM_TYPE", None)
    if form_type is not None and given != [form_type] and (must_say or given is not None):
        raise StanzaError("bad-request", f"The form must be a {form_type}.")
    return values

"""A stanza: message, presence or iq (RFC 6120, section 8).

Parsed once and serialised once: as long as nobody changes the children, the bytes that came in go out again and only
the start tag is written anew, so that fan-out changes nothing but the address.
"""

from __future__ import annotations

from xml.etree.ElementTree import XML

from nestbox.wire import ns
from nestbox.wire.element import Element, el, escape, escape_attribute, to_bytes, write_attributes

__all__ = [
    "IQ",
    "MESSAGE",
    "PRESENCE",
    "STANZA_ID",
    "Stanza",
    "id_by",
    "iq_error",
    "iq_result",
    "parse_stanza",
    "readdress",
]

MESSAGE = "{jabber:client}message"
PRESENCE = "{jabber:client}presence"
IQ = "{jabber:client}iq"
STANZA_ID = f"{{{ns.STANZA_ID}}}stanza-id"
_KIND = {MESSAGE: "message", PRESENCE: "presence", IQ: "iq"}


class Stanza:
    """One stanza: its element and, where they can be used again, its children's bytes as they came.

    ``inner`` holds the children as UTF-8, fit for a place whose default namespace is ``jabber:client`` and which
    declares no prefix; None means that they must be serialised from ``element``.
    """

    __slots__ = ("_tail", "element", "inner", "kind")

    def __init__(self, element: Element, inner: bytes | None = None) -> None:
        self.element = element
        self.inner = inner
        self.kind = _KIND[element.tag]
        self._tail: bytes | None = None

    @property
    def type(self) -> str | None:
        """The ``type`` attribute, None when absent."""
        return self.element.get("type")

    @property
    def id(self) -> str | None:
        """The ``id`` attribute, None when absent."""
        return self.element.get("id")

    @property
    def to(self) -> str | None:
        """The ``to`` attribute as it stands, None when absent."""
        return self.element.get("to")

    @property
    def from_(self) -> str | None:
        """The ``from`` attribute as it stands, None when absent."""
        return self.element.get("from")

    @property
    def payload(self) -> Element | None:
        """The first child element, None when there is none (an iq of type get or set has exactly one)."""
        return self.element[0] if len(self.element) else None

    def find(self, tag: str) -> Element | None:
        """The first child with this ``{namespace}local`` tag."""
        return self.element.find(tag)

    def has(self, tag: str) -> bool:
        """Whether a child with this ``{namespace}local`` tag is there."""
        return self.element.find(tag) is not None

    def append(self, child: Element) -> None:
        """Add a child; the bytes of the others stay usable."""
        self.append_bytes(child, to_bytes(child) if self.inner is not None else b"")

    def append_bytes(self, child: Element, data: bytes) -> None:
        """Add a child whose canonical bytes are at hand."""
        self.element.append(child)
        if self.inner is not None:
            self.inner += data
        self._tail = None

    def remove(self, child: Element) -> None:
        """Take a child out; the stanza will be serialised anew."""
        self.element.remove(child)
        self.inner = None
        self._tail = None

    def encode(self, to: str | None = None) -> bytes:
        """The stanza as UTF-8 in canonical form (no ``xmlns`` on its own tag), addressed to ``to`` where given."""
        out = ["<", self.kind]
        attributes = self.element.attrib
        if to is not None:
            attributes = {**attributes, "to": to}
        write_attributes(out, attributes)
        tail = self._tail
        if tail is None:
            tail = self._tail = self._make_tail()
        return "".join(out).encode() + tail

    def _make_tail(self) -> bytes:
        inner = self.inner
        if inner is None:
            text = self.element.text
            parts = [escape(text).encode()] if text else []
            for child in self.element:
                parts.append(to_bytes(child))
                if child.tail:
                    parts.append(escape(child.tail).encode())
            inner = self.inner = b"".join(parts)
        return b">" + inner + b"</" + self.kind.encode() + b">" if inner else b"/>"

    def copy(self) -> Stanza:
        """A copy whose attributes and list of children can be changed without touching this one."""
        element = Element(self.element.tag, dict(self.element.attrib))
        element.text = self.element.text
        element.extend(self.element)
        return Stanza(element, self.inner)


def iq_result(request: Stanza, payload: Element | None = None) -> Stanza:
    """The result of an iq (RFC 6120, section 8.2.3), with the addresses turned round."""
    return _answer(request, "result", payload)


def iq_error(request: Stanza, error: Element) -> Stanza:
    """The error answer to any stanza (RFC 6120, section 8.3), with the addresses turned round."""
    return _answer(request, "error", error)


def _answer(request: Stanza, kind: str, payload: Element | None) -> Stanza:
    attributes = {"type": kind}
    if request.id is not None:
        attributes["id"] = request.id
    if request.to is not None:
        attributes["from"] = request.to
    if request.from_ is not None:
        attributes["to"] = request.from_
    return Stanza(el(f"{{{ns.CLIENT}}}{request.kind}", attributes, *([payload] if payload is not None else [])))


def parse_stanza(data: bytes) -> Stanza:
    """The stanza of bytes that we wrote ourselves (canonical form). Not for what came from outside: no limits here."""
    return Stanza(XML(b'<stream xmlns="jabber:client">' + data + b"</stream>")[0])


def id_by(stanza: Stanza, by: str) -> int | None:
    """The id that the archive of ``by``, a bare JID of ours, gave the stanza (XEP-0359), None where it has none."""
    for child in stanza.element.iterfind(STANZA_ID):
        value = child.get("id", "")
        if child.get("by") == by and value.isascii() and value.isdigit():
            return int(value)
    return None


def readdress(data: bytes, to: str) -> bytes:
    """Canonical bytes of a stanza that has no ``to``, addressed to ``to``: fan-out without serialising again."""
    end = min(at for at in (data.find(b" "), data.find(b">"), data.find(b"/")) if at > 0)
    return b'%s to="%s"%s' % (data[:end], escape_attribute(to).encode(), data[end:])

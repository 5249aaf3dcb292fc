"""The ``<body/>`` of BOSH (XEP-0124): one HTTP request or answer to the XML documents that it wraps, and back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pyexpat import ExpatError

from nestbox.core.errors import StreamError
from nestbox.wire import ns
from nestbox.wire.element import escape_attribute, to_bytes
from nestbox.wire.framing import frame
from nestbox.wire.parser import ReaderLimits, StreamEnd, StreamOpen, explain, return_broken, take_parser
from nestbox.wire.reader import is_document
from nestbox.wire.stanza import Stanza

__all__ = ["XBOSH", "Body", "parse_body", "sid_in", "write_body"]

BODY = f"{{{ns.HTTPBIND}}}body"
XBOSH = f"{{{ns.XBOSH}}}"
_sid = re.compile(rb"""\A[^<]*(?:<\?[^>]*>\s*)?<[^<]*?\ssid\s*=\s*["']([\w-]+)["']""").match
_ATTRIBUTES = (
    f"xmlns='{ns.HTTPBIND}' xmlns:stream='{ns.STREAMS}'",
    f" xmlns:xmpp='{ns.XBOSH}'",
)


@dataclass(slots=True)
class Body:
    """A request: the attributes by ``{namespace}local`` name, and each payload as a document of its own (RFC 7395)."""

    attributes: dict[str, str]
    payloads: list[bytes]

    @property
    def terminates(self) -> bool:
        """Whether it ends the session (XEP-0124, section 13)."""
        return self.attributes.get("type") == "terminate"

    @property
    def restarts(self) -> bool:
        """Whether it begins a new stream in the session (XEP-0206, section 5)."""
        return self.attributes.get(f"{XBOSH}restart") in ("true", "1")

    @property
    def polls(self) -> bool:
        """Whether it says nothing but that the client listens."""
        return not (self.payloads or self.terminates or self.restarts)

    def number(self, name: str, default: int | None = None) -> int:
        """A whole number in an attribute. Raises ValueError when it is none, or missing without a ``default``."""
        text = self.attributes.get(name)
        if text is None and default is not None:
            return default
        if not text or not (text.isascii() and text.isdigit()) or len(text) > 16:
            raise ValueError(f"{name} must be a whole number")
        return int(text)


def sid_in(head: bytes) -> str:
    """The session that the beginning of a request seems to be for, '' when it names none: to choose its limits by."""
    found = _sid(head)
    return found[1].decode() if found else ""


def parse_body(data: bytes, limits: ReaderLimits) -> Body:
    """Read a request whose length was checked before. Raises StreamError, as for any XML, and ValueError."""
    data = data.strip(b" \t\r\n")
    if not data or not is_document(data):
        raise ValueError("no XML")
    parser = take_parser(None, data, limits)
    wrong = None
    try:
        parser.expat.Parse(data, True)
        events = parser.events
    except ExpatError as error:
        wrong = explain(error, parser)
    except StreamError as error:
        wrong = error.with_traceback(None)  # whose frames would hold the parser
    return_broken(parser)
    if wrong is not None:
        raise wrong
    head = events[0]
    if not isinstance(head, StreamOpen) or head.tag != BODY:
        raise ValueError("no body")
    payloads = [
        frame(event.encode()) if isinstance(event, Stanza) else to_bytes(event, "")
        for event in events[1:]
        if not isinstance(event, StreamEnd)
    ]
    return Body(head.attributes, payloads)


def write_body(attributes: dict[str, str], payloads: list[bytes]) -> bytes:
    """An answer. Attributes of XEP-0206 are named with the prefix ``xmpp:``."""
    declared = _ATTRIBUTES[0] + (_ATTRIBUTES[1] if any(name.startswith("xmpp:") for name in attributes) else "")
    written = "".join(f' {name}="{escape_attribute(value)}"' for name, value in attributes.items())
    if not payloads:
        return f"<body {declared}{written}/>".encode()
    return f"<body {declared}{written}>".encode() + b"".join(payloads) + b"</body>"

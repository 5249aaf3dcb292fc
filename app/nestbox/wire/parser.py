"""XML to stanzas with expat, inside a stream or a frame (RFC 6120, sections 4.9.3 and 11).

A parser costs 10 to 15 KiB, so a connection holds one only while an element is unfinished: between elements any parser
that stands behind the same stream header will do, and one for each usual header is kept (`take_parser`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pyexpat import ExpatError, ParserCreate, errors
from xml.etree.ElementTree import Element, TreeBuilder

from nestbox.core.errors import StreamError
from nestbox.wire import ns
from nestbox.wire.stanza import IQ, MESSAGE, PRESENCE, Stanza

__all__ = [
    "Event", "Parser", "ReaderLimits", "StreamEnd", "StreamOpen", "explain", "return_broken", "return_parser",
    "take_parser",
]  # fmt: skip

_STANZAS = frozenset((MESSAGE, PRESENCE, IQ))
_STREAM = f"{ns.STREAMS}}}stream"  # as expat names it
_PARSER_BYTES = 64 * 1024  # a parser remembers every name it saw, so it is replaced after this much input
_READY_PARSERS = 8
_KNOWN_NAMES = 4096

_start_tag = re.compile(rb"<([^\s/>]+)((?:[^\"'>]++|\"[^\"]*+\"|'[^']*+')*+)>").match
_RESTRICTED = (errors.codes[errors.XML_ERROR_UNDEFINED_ENTITY], errors.codes[errors.XML_ERROR_MISPLACED_XML_PI])
_ENCODING = (errors.codes[errors.XML_ERROR_UNKNOWN_ENCODING], errors.codes[errors.XML_ERROR_INCORRECT_ENCODING])


@dataclass(frozen=True, slots=True)
class ReaderLimits:
    """What a peer may send: bytes of one stanza, levels of nesting and elements in it, attributes of one tag.

    ``name`` is what the metrics call the limit of bytes.
    """

    max_stanza_bytes: int = 16 * 1024
    max_depth: int = 64
    max_attributes: int = 64
    max_elements: int = 8192  # each costs far more memory than the 4 bytes it may take on the wire
    name: str = "stanza_bytes"


@dataclass(slots=True)
class StreamOpen:
    """A stream header (RFC 6120, section 4.7), or ``<open/>`` of RFC 7395.

    ``default_ns`` is the default namespace that the header declares, None when it declares none.
    """

    tag: str
    attributes: dict[str, str]
    default_ns: str | None


@dataclass(slots=True)
class StreamEnd:
    """The peer closed its stream (RFC 6120, section 4.4)."""


Event = StreamOpen | StreamEnd | Stanza | Element

_names: dict[str, str] = {}


def _clark(name: str) -> str:
    """expat's ``namespace}local`` as ``{namespace}local``; the usual names are remembered."""
    fixed = "{" + name if "}" in name else name
    if len(_names) < _KNOWN_NAMES and len(name) < 100:
        _names[name] = fixed
    return fixed


def _clark_all(attributes: dict[str, str]) -> dict[str, str]:
    return {_names.get(key) or _clark(key): value for key, value in attributes.items()}


@lru_cache(maxsize=64)
def _header(name: bytes, declarations: tuple[tuple[str, str], ...]) -> bytes:
    """A short stream header that declares what the peer's did."""
    header = b"<" + name
    for prefix, uri in declarations:
        quoted = uri.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
        header += f' {"xmlns:" + prefix if prefix else "xmlns"}="{quoted}"'.encode()
    return header + b">"


class Parser:
    """An expat parser and the elements it is building; ``events`` collects what became complete."""

    __slots__ = (
        "_close", "_declared", "_elements", "_open", "_prefixes", "base", "buffer", "depth", "events", "expat",
        "header", "limits", "start",
    )  # fmt: skip

    def __init__(self, header: bytes | None) -> None:
        self.events: list[Event] = []
        self.header = header
        self.depth = self.start = self.base = self._elements = 0
        expat = self.expat = ParserCreate("utf-8", "}")
        if hasattr(expat, "SetReparseDeferralEnabled"):  # expat >= 2.6 would else sit on complete stanzas
            expat.SetReparseDeferralEnabled(False)
        expat.CommentHandler = expat.ProcessingInstructionHandler = expat.StartDoctypeDeclHandler = self._restricted
        if header is None:
            self._declared: dict[str | None, str | None] = {}
            self._prefixes: tuple[bytes, ...] = ()
            expat.XmlDeclHandler = self._declaration
            expat.StartNamespaceDeclHandler = self._declared.__setitem__
            expat.StartElementHandler = self._stream_open
        else:
            self._prefixes = tuple(name + b":" for name in re.findall(rb" xmlns:([^=]+)=", header))
            expat.Parse(header, False)
            self.depth = 1
            self.base = len(header)
            expat.StartElementHandler = self._start
        expat.EndElementHandler = self._end
        expat.CharacterDataHandler = self._stream_text

    def position(self) -> int:
        """Where in the buffer expat stands: at its end, or where the token begins that is not complete."""
        return max(self.expat.CurrentByteIndex - self.base, 0)  # -1 before the first token

    def _restricted(self, *_: object) -> None:
        raise StreamError("restricted-xml", "comments, processing instructions and DTDs are not allowed")

    def _declaration(self, version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.lower() != "utf-8":
            raise StreamError("unsupported-encoding", "only UTF-8 is understood")
        if version != "1.0":
            raise StreamError("not-well-formed", "only XML 1.0 is understood")

    def _stream_open(self, name: str, attributes: dict[str, str]) -> None:
        if len(attributes) > self.limits.max_attributes:
            raise StreamError("policy-violation", "too many attributes", limit="xml_attributes")
        self.depth = 1
        self.expat.StartElementHandler = self._start
        self.expat.StartNamespaceDeclHandler = None
        raw_name = _start_tag(self.buffer, self.position())[1]
        declared = self._declared
        self._prefixes = tuple(prefix.encode() + b":" for prefix in declared if prefix)
        self.header = _header(raw_name, tuple(sorted((prefix or "", uri or "") for prefix, uri in declared.items())))
        self.events.append(StreamOpen(_clark(name), _clark_all(attributes), declared.get(None)))

    def _stream_text(self, data: str) -> None:
        if data.strip(" \t\r\n"):
            raise StreamError("bad-format", "text outside of an element")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        depth = self.depth = self.depth + 1
        self._elements += 1
        if depth == 2:
            if name == _STREAM:
                raise StreamError("bad-format", "the stream is open already")
            self.start = self.position()
            self._elements = 1
            builder = TreeBuilder()
            self._open = builder.start
            self._close = builder.end
            self.expat.CharacterDataHandler = builder.data
        elif depth > self.limits.max_depth:
            raise StreamError("policy-violation", "nested too deep", limit="xml_depth")
        elif self._elements > self.limits.max_elements:
            raise StreamError("policy-violation", "too many elements", limit="xml_elements")
        if attributes:
            if len(attributes) > self.limits.max_attributes:
                raise StreamError("policy-violation", "too many attributes", limit="xml_attributes")
            for key in attributes:
                if "}" in key:
                    attributes = _clark_all(attributes)
                    break
        self._open(_names.get(name) or _clark(name), attributes)

    def _end(self, name: str) -> None:
        depth = self.depth = self.depth - 1
        if depth > 1:
            self._close(name)
        elif depth == 1:
            element = self._close(name)
            self.expat.CharacterDataHandler = self._stream_text
            self._complete(element)
        else:
            self.events.append(StreamEnd())

    def _complete(self, element: Element) -> None:
        buffer = self.buffer
        start = self.start
        end = self.position()
        # For <a/> expat stands behind the tag here, otherwise before </a>.
        empty = not len(element) and not element.text and buffer.endswith(b"/>", start, end)
        if (end if empty else buffer.index(b">", end) + 1) - start > self.limits.max_stanza_bytes:
            raise StreamError("policy-violation", "stanza too big", limit=self.limits.name)
        if element.tag in _STANZAS:
            self.events.append(Stanza(element, b"" if empty else self._inner(start, end)))
        else:
            self.events.append(element)

    def _inner(self, start: int, end: int) -> bytes | None:
        """The children's bytes, where they mean the same below ``jabber:client`` and without outside prefixes."""
        tag = _start_tag(self.buffer, start)
        if b":" in tag[1] or b"xmlns:" in tag[2]:
            return None
        inner = bytes(self.buffer[tag.end() : end])
        for prefix in self._prefixes:
            if prefix in inner:
                return None
        return inner


_ready: dict[bytes, Parser] = {}


def take_parser(header: bytes, buffer: bytes | bytearray, limits: ReaderLimits) -> Parser:
    """A parser that stands behind ``header`` and is to read ``buffer``, None being a new document."""
    parser = _ready.pop(header, None) or Parser(header)
    parser.buffer = buffer
    parser.limits = limits
    return parser


def return_parser(parser: Parser) -> None:
    """Give back a parser that stands between two elements, having read all that it was given."""
    index = parser.expat.CurrentByteIndex
    if index > _PARSER_BYTES:
        return_broken(parser)
        return
    parser.base = index
    parser.buffer = parser.limits = parser._open = parser._close = None
    _ready[parser.header] = parser
    if len(_ready) > _READY_PARSERS:
        return_broken(_ready.pop(next(iter(_ready))))


def return_broken(parser: Parser) -> None:
    """Free a parser at once: it and its handlers refer to each other, and the garbage collector may come late."""
    parser.expat = None


def explain(error: ExpatError, parser: Parser) -> StreamError:
    """The stream error for what expat could not read (RFC 6120, section 4.9.3)."""
    if error.code in _RESTRICTED:
        return StreamError("restricted-xml", "entities and processing instructions are not allowed")
    if error.code in _ENCODING:
        return StreamError("unsupported-encoding", "only UTF-8 is understood")
    index = max(parser.expat.ErrorByteIndex - parser.base, 0)
    if parser.buffer.endswith(b"<!", 0, index):
        return StreamError("restricted-xml", "DTDs are not allowed")
    try:
        parser.buffer[index : index + 4].decode()
    except UnicodeDecodeError as wrong:
        if wrong.start == 0 and wrong.reason != "unexpected end of data":
            return StreamError("unsupported-encoding", "only UTF-8 is understood")
    return StreamError("not-well-formed", str(error))

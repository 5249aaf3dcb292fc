"""Bytes of a stream to stanzas, bounded in bytes, depth and time (RFC 6120, sections 4 and 11).

expat does the parsing. A parser costs 10 to 15 KiB, so a connection holds one only while an element is unfinished:
between elements any parser that stands behind the same stream header will do, and one for each usual header is kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pyexpat import ExpatError, ParserCreate, errors
from xml.etree.ElementTree import Element, TreeBuilder

from nestbox.core.errors import StreamError
from nestbox.wire.stanza import IQ, MESSAGE, PRESENCE, Stanza

__all__ = ["ReaderLimits", "StreamEnd", "StreamOpen", "StreamReader"]

_STANZAS = frozenset((MESSAGE, PRESENCE, IQ))
_READ_SLACK = 256 * 1024  # what one read of the transport may bring on top of an unfinished stanza
_HOLD = 1024  # an unfinished token longer than this is given to expat only when it is complete
_PARSER_BYTES = 64 * 1024  # a parser remembers every name it saw, so it is replaced after this much input
_READY_PARSERS = 8
_KNOWN_NAMES = 4096

_tag_mark = re.compile(rb"[>\"']").search
_reference_end = re.compile(rb"[^A-Za-z0-9#]").search
_start_tag = re.compile(rb"<([^\s/>]+)((?:[^\"'>]++|\"[^\"]*+\"|'[^']*+')*+)>").match
_RESTRICTED = (errors.codes[errors.XML_ERROR_UNDEFINED_ENTITY], errors.codes[errors.XML_ERROR_MISPLACED_XML_PI])
_ENCODING = (errors.codes[errors.XML_ERROR_UNKNOWN_ENCODING], errors.codes[errors.XML_ERROR_INCORRECT_ENCODING])


@dataclass(frozen=True, slots=True)
class ReaderLimits:
    """What a peer may send: bytes of one element, levels of nesting in it, attributes of one tag."""

    max_stanza_bytes: int = 16 * 1024
    max_depth: int = 64
    max_attributes: int = 64


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
        "_close", "_declared", "_open", "_prefixes", "base", "buffer", "depth", "events", "expat", "header", "limits",
        "start",
    )  # fmt: skip

    def __init__(self, header: bytes | None) -> None:
        self.events: list[Event] = []
        self.header = header
        self.depth = self.start = self.base = 0
        expat = self.expat = ParserCreate("utf-8", "}")
        if hasattr(expat, "SetReparseDeferralEnabled"):  # expat >= 2.6 would else sit on complete stanzas
            expat.SetReparseDeferralEnabled(False)
        expat.CommentHandler = expat.ProcessingInstructionHandler = expat.StartDoctypeDeclHandler = self._restricted
        if header is None:
            self._declared: dict[str | None, str | None] = {}
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
            raise StreamError("policy-violation", "too many attributes")
        self.depth = 1
        self.expat.StartElementHandler = self._start
        self.expat.StartNamespaceDeclHandler = None
        raw_name = _start_tag(self.buffer, self.position())[1]
        declared = self._declared
        self.header = _header(raw_name, tuple(sorted((prefix or "", uri or "") for prefix, uri in declared.items())))
        self.events.append(StreamOpen(_clark(name), _clark_all(attributes), declared.get(None)))

    def _stream_text(self, data: str) -> None:
        if data.strip(" \t\r\n"):
            raise StreamError("bad-format", "text outside of an element")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        depth = self.depth = self.depth + 1
        if depth == 2:
            self.start = self.position()
            builder = TreeBuilder()
            self._open = builder.start
            self._close = builder.end
            self.expat.CharacterDataHandler = builder.data
        elif depth > self.limits.max_depth:
            raise StreamError("policy-violation", "nested too deep")
        if attributes:
            if len(attributes) > self.limits.max_attributes:
                raise StreamError("policy-violation", "too many attributes")
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
            raise StreamError("policy-violation", "stanza too big")
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


class StreamReader:
    """The events of one TCP stream. Feed it bytes, then call ``next`` until it returns None.

    While ``stepwise`` is set (until the peer is authenticated) nothing behind the returned event has been looked at, so
    that TLS or a new stream can begin there. A StreamError from ``feed`` or ``next`` ends the reader for good.
    """

    __slots__ = (
        "_buffer", "_dead", "_events", "_given", "_header", "_parser", "_quote", "_scan", "_token", "limits",
        "stepwise",
    )  # fmt: skip

    def __init__(self, limits: ReaderLimits) -> None:
        self.limits = limits
        self.stepwise = True
        self._buffer = bytearray()
        self._dead: StreamError | bool = False
        self.restart()

    def restart(self) -> None:
        """Expect a new document next (RFC 6120, section 4.3.3); bytes that came already belong to it."""
        self._events: list[Event] | None = None  # last one first
        self._header: bytes | None = None
        self._parser: Parser | None = None
        self._given = 0  # how much of the buffer expat has
        self._token = 0  # where in the buffer its unfinished token begins
        self._scan = 0  # how far we searched for the end of that token
        self._quote = b""  # in which quotes we then were

    @property
    def pending(self) -> int:
        """How many bytes wait behind the last event."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take bytes in. Raises StreamError(policy-violation) when too many wait."""
        if self._dead:
            return
        self._buffer += data
        if len(self._buffer) > self.limits.max_stanza_bytes + (0 if self.stepwise else _READ_SLACK):
            self._end(True)
            raise StreamError("policy-violation", "too many bytes")

    def next(self) -> Event | None:
        """The next event, None when more bytes are needed. Raises StreamError."""
        if not self._events and self._buffer:
            try:
                self._parse()
            except StreamError as error:  # what was complete before it is delivered first, however the bytes were cut
                self._end(error.with_traceback(None))  # whose frames would hold the parser
        if self._events:
            return self._events.pop()
        if isinstance(self._dead, StreamError):
            error, self._dead = self._dead, True
            try:
                raise error
            finally:
                del error
        return None

    def __del__(self) -> None:
        if self._parser is not None:
            return_broken(self._parser)

    def _end(self, reason: StreamError | bool) -> None:
        self._dead = reason
        self._buffer = bytearray()
        parser, self._parser = self._parser, None
        if parser is not None:
            self._events = parser.events[::-1]
            if parser.depth == 0 and self._events:
                self._dead = True  # what stands behind the end of a stream is nobody's business
            return_broken(parser)

    def _parse(self) -> None:
        buffer = self._buffer
        parser = self._parser
        if parser is None:
            if buffer[0] <= 32:  # white space keeps a connection alive (RFC 6120, section 4.6.1)
                del buffer[: len(buffer) - len(buffer.lstrip(b" \t\r\n"))]
            if not buffer or (self._header is None and not is_document(buffer)):
                return
            self._given = self._token = self._scan = 0
            self._quote = b""
            self._parser = parser = take_parser(self._header, buffer, self.limits)
        wrong = None
        try:
            self._give(parser, buffer)
        except ExpatError as error:
            wrong = explain(error, parser)
        if wrong is not None:
            raise wrong
        self._settle(parser, buffer)

    def _give(self, parser: Parser, buffer: bytearray) -> None:
        """Let expat have what is safe and cheap: no long token twice, and stepwise no more than one event."""
        stepwise = self.stepwise or self._header is None
        size = len(buffer)
        while self._given < size and not parser.events:
            end = size
            if stepwise:
                end = self._token_end(buffer)
                # A short unfinished tag is shown to expat for the sake of an early error.
                if end < 0 and size - self._token <= _HOLD and not buffer.startswith((b"<!", b"<?"), self._token):
                    end = size
            elif size - self._token > _HOLD and self._token < self._given and self._token_end(buffer) < 0:
                end = -1
            if end < 0:
                return
            parser.expat.Parse(buffer if end - self._given == size else bytes(buffer[self._given : end]), False)
            self._given = end
            token = parser.position()
            if token < end and buffer[token] not in b"<&":  # the beginning of a character, or of a line's end
                if parser.depth == 0 and buffer[token] != 13:
                    raise StreamError("not-well-formed", "text before the stream")
                token = end
            if token != self._token:
                self._token = self._scan = token
                self._quote = b""

    def _token_end(self, buffer: bytearray) -> int:
        """Where the token that begins at ``_token`` ends, -1 when its end is not there; no byte is searched twice."""
        token, scan, quote = self._token, self._scan, self._quote
        self._scan = size = len(buffer)
        if buffer[token] == 38:  # a reference
            end = _reference_end(buffer, max(scan, token + 1))
            return end.end() if end else -1
        if buffer[token] != 60:  # text
            end = buffer.find(b"<", token)
            return end if end > 0 else size
        if buffer.startswith((b"<!", b"<?"), token):
            begin = bytes(buffer[token : token + 9])
            if b"<![CDATA[".startswith(begin):
                end = buffer.find(b"]]>", max(scan - 2, token))
                return end + 3 if end > 0 else -1
            if self._header is not None or not b"<?xml".startswith(begin[:5]):
                raise StreamError("restricted-xml", "comments, processing instructions and DTDs are not allowed")
        while True:
            if quote:
                scan = buffer.find(quote, scan) + 1
                if not scan:
                    break
                quote = b""
            mark = _tag_mark(buffer, scan)
            if mark is None:
                break
            scan = mark.end()
            if mark[0] == b">":
                return scan
            quote = mark[0]
        self._quote = quote
        return -1

    def _settle(self, parser: Parser, buffer: bytearray) -> None:
        """Drop the bytes of what is complete, and the parser when nothing is unfinished."""
        events, parser.events = parser.events, []
        if events:
            events.reverse()
            self._events = events
            self._header = parser.header
        if parser.depth == 0 and events:
            self._end(True)
            self._events = events  # _end found none left
            return
        whole = parser.depth == 1 and parser.position() == self._given
        if self.stepwise and events and not (whole and len(events) == 1):
            raise StreamError("not-well-formed", "unclear end of an element")
        done = parser.start if parser.depth > 1 else parser.position()
        if whole:
            self._parser = None
            (return_broken if events and isinstance(events[-1], StreamOpen) else return_parser)(parser)
        elif done:
            parser.base += done
            parser.start -= done
            self._given -= done
            self._token -= done
            self._scan -= done
        del buffer[:done]
        if not whole and len(buffer) > self.limits.max_stanza_bytes:
            raise StreamError("policy-violation", "stanza too big")


def is_document(buffer: bytearray) -> bool:
    """Whether this begins an XML document in UTF-8, False when it is too short to tell. Raises StreamError."""
    if buffer[0] == 60:
        if len(buffer) > 1 and buffer[1] == 0:
            raise StreamError("unsupported-encoding", "only UTF-8 is understood")
        return len(buffer) > 1
    if buffer[0] in b"\x00\xfe\xff":  # UTF-16 or UTF-32, which expat would follow
        raise StreamError("unsupported-encoding", "only UTF-8 is understood")
    raise StreamError("not-well-formed", "this is no XML")

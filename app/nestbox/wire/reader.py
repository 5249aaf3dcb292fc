"""Bytes of a TCP stream to its events, bounded in bytes and time (RFC 6120, section 4)."""

from __future__ import annotations

import re
from pyexpat import ExpatError

from nestbox.core.errors import StreamError
from nestbox.wire.parser import (
    Event,
    Parser,
    ReaderLimits,
    StreamEnd,
    StreamOpen,
    explain,
    return_broken,
    return_parser,
    take_parser,
)

__all__ = ["READ_SLACK", "Event", "ReaderLimits", "StreamEnd", "StreamOpen", "StreamReader", "is_document"]

READ_SLACK = 256 * 1024  # what one read of the transport may bring on top of an unfinished stanza
_HOLD = 1024  # an unfinished token longer than this is given to expat only when it is complete
_SLICE = 32 * 1024  # what expat gets at once, so that few events wait at a time
_tag_mark = re.compile(rb"[>\"']").search
_reference_end = re.compile(rb"[^A-Za-z0-9#]").search


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

    @property
    def blank(self) -> bool:
        """Whether nothing but whitespace waits behind the last event."""
        return not self._buffer.strip(b" \t\r\n")

    @property
    def spaced(self) -> bool:
        """Whether white space comes next, between two elements."""
        return self._parser is None and self._buffer[:1].isspace()

    def feed(self, data: bytes) -> None:
        """Take bytes in. Raises StreamError(policy-violation) when too many wait."""
        if self._dead:
            return
        self._buffer += data
        if len(self._buffer) > self.limits.max_stanza_bytes + (0 if self.stepwise else READ_SLACK):
            self._end(True)
            raise StreamError("policy-violation", "too many bytes", limit=self.limits.name)

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
            elif size - self._given > _SLICE:
                end = self._given + _SLICE
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
            raise StreamError("policy-violation", "stanza too big", limit=self.limits.name)


def is_document(buffer: bytearray) -> bool:
    """Whether this begins an XML document in UTF-8, False when it is too short to tell. Raises StreamError."""
    if buffer[0] == 60:
        if len(buffer) > 1 and buffer[1] == 0:
            raise StreamError("unsupported-encoding", "only UTF-8 is understood")
        return len(buffer) > 1
    if buffer[0] in b"\x00\xfe\xff":  # UTF-16 or UTF-32, which expat would follow
        raise StreamError("unsupported-encoding", "only UTF-8 is understood")
    raise StreamError("not-well-formed", "this is no XML")

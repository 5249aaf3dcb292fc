"""XMPP over WebSocket: one XML document per message (RFC 7395)."""

from __future__ import annotations

import re
from collections import deque
from pyexpat import ExpatError

from nestbox.core.errors import StreamError
from nestbox.wire import ns
from nestbox.wire.element import Element
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
from nestbox.wire.reader import READ_SLACK, is_document
from nestbox.wire.stanza import Stanza

__all__ = ["FrameReader", "frame"]

OPEN = f"{{{ns.FRAMING}}}open"
CLOSE = f"{{{ns.FRAMING}}}close"
_HEADER = b"<frame>"  # a parser behind a bare root reads frame after frame
_XML_DECLARATION = re.compile(rb"<\?xml\s+version=['\"]1\.0['\"](\s+encoding=['\"]utf-8['\"])?\s*\?>\s*", re.I).match
_NAMESPACE = b' xmlns="jabber:client"'


def frame(stanza: bytes) -> bytes:
    """A stanza in canonical form, or a nonza that declares its own namespace, as a document of its own."""
    if stanza.startswith(b"<message"):
        return stanza[:8] + _NAMESPACE + stanza[8:]
    if stanza.startswith(b"<presence"):
        return stanza[:9] + _NAMESPACE + stanza[9:]
    if stanza.startswith(b"<iq"):
        return stanza[:3] + _NAMESPACE + stanza[3:]
    return stanza


class FrameReader:
    """The events of one WebSocket connection; to be used like a `StreamReader`, a frame at a time.

    ``<open/>`` and ``<close/>`` come out as StreamOpen and StreamEnd (RFC 7395, sections 3.4 and 3.6).
    """

    __slots__ = ("_frames", "limits", "pending", "stepwise")

    def __init__(self, limits: ReaderLimits) -> None:
        self.limits = limits
        self.stepwise = True  # until login little may wait; a frame is never read before it is asked for
        self.pending = 0
        self._frames: deque[bytes] | None = None

    def restart(self) -> None:
        """Expect a new ``<open/>`` next; every frame is a document of its own, so nothing has to be forgotten."""

    def feed(self, data: bytes) -> None:
        """Take a frame in. Raises StreamError(policy-violation) when too many bytes wait."""
        self.pending += len(data)
        if self.pending > self.limits.max_stanza_bytes + (0 if self.stepwise else READ_SLACK):
            self._frames = None
            self.pending = 0
            raise StreamError("policy-violation", "too many bytes", limit=self.limits.name)
        if self._frames is None:
            self._frames = deque()
        self._frames.append(data)

    def next(self) -> Event | None:
        """The next event, None when a frame is needed. Raises StreamError."""
        while self._frames:
            data = self._frames.popleft()
            self.pending -= len(data)
            event = self.parse(data)
            if event is not None:
                return event
        self._frames = None  # an idle connection holds no queue
        return None

    def parse(self, data: bytes) -> Event | None:
        """Read one frame, None when it holds but white space. Raises StreamError."""
        if len(data) > self.limits.max_stanza_bytes:
            raise StreamError("policy-violation", "stanza too big", limit=self.limits.name)
        data = data.strip(b" \t\r\n")
        if not data:
            return None
        if not is_document(data):
            raise StreamError("not-well-formed", "unclosed element")
        declaration = _XML_DECLARATION(data)
        if declaration:
            data = data[declaration.end() :]
        parser = take_parser(_HEADER, data, self.limits)
        wrong = None
        try:
            parser.expat.Parse(data, False)
            event = _only_event(parser, len(data))
        except ExpatError as error:
            wrong = explain(error, parser)
        except StreamError as error:
            wrong = error.with_traceback(None)  # whose frames would hold the parser
        if wrong is not None:
            return_broken(parser)
            raise wrong
        return_parser(parser)
        if isinstance(event, Stanza):
            return event
        if event.tag == OPEN:
            return StreamOpen(OPEN, dict(event.attrib), ns.CLIENT)
        return StreamEnd() if event.tag == CLOSE else event


def _only_event(parser: Parser, size: int) -> Stanza | Element:
    events, parser.events = parser.events, []
    if parser.depth != 1 or parser.position() != size or len(events) != 1:
        raise StreamError("not-well-formed", "a frame holds exactly one element")
    return events[0]

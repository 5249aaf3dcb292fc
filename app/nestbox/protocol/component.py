"""A component's stream from its header to its handshake, then its stanzas (XEP-0114). Sans-I/O, like `Stream`.

The content of a component's stanzas is in ``jabber:component:accept`` where a client's is in ``jabber:client``; inside
the server all of it is ``jabber:client``, and in canonical form both look the same on the wire.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from nestbox.core.errors import StreamError
from nestbox.core.jid import prepare_domain
from nestbox.protocol.events import Closed, StanzaReceived
from nestbox.wire import ns
from nestbox.wire.element import Element, escape, escape_attribute
from nestbox.wire.parser import ReaderLimits, StreamEnd, StreamOpen
from nestbox.wire.reader import StreamReader
from nestbox.wire.stanza import IQ, MESSAGE, PRESENCE, Stanza

__all__ = ["ComponentStream", "Handshake"]

_STREAM = f"{{{ns.STREAMS}}}stream"
_ACCEPT = f"{{{ns.COMPONENT}}}"
_CLIENT = f"{{{ns.CLIENT}}}"
_STANZAS = frozenset((MESSAGE, PRESENCE, IQ))


@dataclass(slots=True)
class Handshake:
    """The component of this host knows its secret. Answer `ComponentStream.accept`, or close."""

    host: str


class ComponentStream:
    """The server's side of one stream. ``components`` are the secrets by host; ``host`` is set by the header."""

    def __init__(self, components: Mapping[str, str], max_bytes_before: int, max_bytes: int) -> None:
        self._components = components
        self._reader = StreamReader(ReaderLimits(max_bytes_before, name="stanza_bytes_before_login"))
        self._max_bytes = max_bytes
        self._out: list[bytes] = []
        self._id = secrets.token_hex(16)
        self._error: StreamError | None = None
        self._asked = self._ready = self._greeted = self._closed = False
        self.host = ""

    def feed(self, data: bytes) -> None:
        """Take bytes in. Never raises."""
        if self._closed:
            return
        try:
            self._reader.feed(data)
        except StreamError as error:
            self._error = error

    def next_event(self) -> Handshake | StanzaReceived | Closed | None:
        """What happened next; None when more bytes, or an answer, are needed. Never raises."""
        try:
            if self._error is not None and not self._closed:
                raise self._error
            while not self._closed and (self._ready or not self._asked):
                item = self._reader.next()
                if item is None:
                    return None
                event = self._take(item)
                if event is not None:
                    return event
        except StreamError as error:
            self.close(error)
            return Closed(error)
        return None

    def data_to_send(self) -> bytes:
        """What the negotiation wants to send."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def _take(self, item: StreamOpen | StreamEnd | Stanza | Element) -> Handshake | StanzaReceived | Closed | None:
        if isinstance(item, StreamOpen):
            self._open(item)
            return None
        if isinstance(item, StreamEnd):
            self.close(None)
            return Closed(None)
        if not self._ready:
            return self._handshake(item)
        element = item.element if isinstance(item, Stanza) else item
        for part in element.iter():
            if part.tag.startswith(_ACCEPT):
                part.tag = _CLIENT + part.tag[len(_ACCEPT) :]
        if element.tag not in _STANZAS:
            raise StreamError("unsupported-stanza-type")
        return StanzaReceived(Stanza(element))

    def _open(self, header: StreamOpen) -> None:
        if header.tag != _STREAM or header.default_ns != ns.COMPONENT:
            raise StreamError("invalid-namespace", "only components are served here")
        to = header.attributes.get("to", "")
        try:
            host = prepare_domain(to) if len(to) < 256 else ""
        except ValueError:
            host = ""
        if host not in self._components:
            raise StreamError("host-unknown", "no component of that name is expected")
        self.host = host
        self._greet()

    def _greet(self) -> None:
        self._greeted = True
        sender = f' from="{escape_attribute(self.host)}"' if self.host else ""
        names = f"xmlns='{ns.COMPONENT}' xmlns:stream='{ns.STREAMS}'"
        self._out.append(f"<?xml version='1.0'?><stream:stream {names} id='{self._id}'{sender}>".encode())

    def _handshake(self, item: Stanza | Element) -> Handshake:
        if isinstance(item, Stanza) or item.tag != f"{_ACCEPT}handshake":
            raise StreamError("not-authorized", "the handshake comes first")
        secret = self._components[self.host]
        expected = hashlib.sha1((self._id + secret).encode(), usedforsecurity=False).hexdigest()
        if not hmac.compare_digest(expected.encode(), (item.text or "").strip().lower().encode()):
            raise StreamError("not-authorized", "the handshake is wrong")
        self._asked = True
        return Handshake(self.host)

    def accept(self) -> None:
        """Answer `Handshake`: from now on stanzas come and go."""
        self._ready = True
        self._reader.limits = ReaderLimits(self._max_bytes)
        self._reader.stepwise = False
        self._out.append(b"<handshake/>")

    def close(self, error: StreamError | None) -> None:
        """End the stream, with an error where given."""
        if self._closed:
            return
        self._closed = True
        if not self._greeted:
            self._greet()
        if error is not None:
            text = f"<text xmlns='{ns.STREAM_ERRORS}'>{escape(error.text)}</text>" if error.text else ""
            condition = f"<{error.condition} xmlns='{ns.STREAM_ERRORS}'/>"
            self._out.append(f"<stream:error>{condition}{text}</stream:error>".encode())
        self._out.append(b"</stream:stream>")

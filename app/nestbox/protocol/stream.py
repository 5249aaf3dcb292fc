"""A client's stream from its first byte to its last: TLS, login, binding, stream management (RFC 6120, 7395, XEP-0198).

Sans-I/O: bytes go in with `Stream.feed`, events come out of `Stream.next_event`, and what is to be sent of
`Stream.data_to_send`. The stream negotiates and parses; who gets a resource and what a stanza means is for others.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

from nestbox.core.errors import SaslError, StanzaError, StreamError
from nestbox.core.jid import JID
from nestbox.protocol import features, sm
from nestbox.protocol.bind import BIND, requested
from nestbox.protocol.events import (
    Ack,
    AckRequest,
    Authenticated,
    BindRequest,
    Closed,
    EnableSm,
    Establish,
    Established,
    Event,
    LoginFailed,
    Lookup,
    Nonza,
    ResumeRequest,
    StanzaReceived,
    StartTls,
    StoreKeys,
    TokenLookup,
    VisitorIq,
)
from nestbox.protocol.fast import Token
from nestbox.protocol.features import StreamOptions
from nestbox.protocol.header import LANG, check, is_here, lang_of, peer_of, write
from nestbox.protocol.sasl import Credentials
from nestbox.protocol.sasl1 import Login, Sasl1
from nestbox.protocol.sasl2 import Sasl2
from nestbox.wire import ns
from nestbox.wire.element import Element, el, escape, local_name, namespace
from nestbox.wire.framing import FrameReader, frame
from nestbox.wire.reader import ReaderLimits, StreamEnd, StreamOpen, StreamReader
from nestbox.wire.stanza import Stanza, iq_error, iq_result

__all__ = [
    "Ack", "AckRequest", "Authenticated", "BindRequest", "Closed", "Credentials", "EnableSm", "Establish",
    "Established", "Event", "LoginFailed", "Lookup", "Nonza", "ResumeRequest", "StanzaReceived", "StartTls",
    "StoreKeys", "Stream", "StreamOptions", "TokenLookup", "VisitorIq",
]  # fmt: skip

RFCS = ("RFC 6120",)

TRIED = 0.25  # of an attempt: a client may go through every -PLUS that is offered, but not for ever
_STREAM_ERROR = f"{{{ns.STREAMS}}}error"
_STARTTLS = f"{{{ns.TLS}}}starttls"
_NOTHING_ELSE = "first the login has to end"  # XEP-0388, section 2.4: not even white space
_LOGINS: dict[str, type[Login]] = {ns.SASL: Sasl1, ns.SASL2: Sasl2}


@lru_cache(maxsize=8)
def _limits(max_bytes: int, name: str = "stanza_bytes") -> ReaderLimits:
    return ReaderLimits(max_bytes, name=name)


class Stream:
    """The server's side of one stream.

    ``secure`` says that the way to the client is encrypted already; ``bindings`` are the channel bindings there are
    (RFC 5929), by type. ``username`` is set once the client is authenticated, ``ready`` once it has a resource, ``sm``
    once it has stream management; ``lang`` is the xml:lang it asked for, ``peer`` who it said it is in the last stream
    header.
    """

    __slots__ = (
        "_closed", "_error", "_failures", "_greeted", "_login", "_out", "_queued", "_reader", "_request", "_tcp",
        "_waiting", "bindings", "lang", "options", "peer", "ready", "secure", "sm", "username",
    )  # fmt: skip

    def __init__(
        self,
        options: StreamOptions,
        *,
        framing: Literal["tcp", "websocket", "bosh"],
        secure: bool,
        bindings: Mapping[str, bytes],
    ) -> None:
        self.options = options
        self._tcp = framing == "tcp"
        self.secure = secure
        self.bindings = bindings
        limits = _limits(options.max_bytes_before_auth, "stanza_bytes_before_login")
        self._reader = (StreamReader if self._tcp else FrameReader)(limits)
        self._out: list[bytes] = []
        self._greeted = False  # the stream header of this stream was sent
        self._closed = False
        self._error: StreamError | None = None  # to be told next
        self._queued: Event | None = None  # to be told next
        self._waiting = ""  # for which answer
        self._login: Login | None = None
        self._failures = 0.0
        self._request: Stanza | None = None  # the iq that wants to bind
        self.username: str | None = None
        self.ready = False
        self.sm = False
        self.lang: str | None = None
        self.peer: JID | None = None

    # bytes in, events out, bytes out

    def feed(self, data: bytes) -> None:
        """Take in what came: bytes of the TCP stream, or one WebSocket message. Never raises."""
        if self._closed:
            return
        if self._waiting == "tls":
            self._error = StreamError("policy-violation", "the handshake has to come next")
            return
        try:
            self._reader.feed(data)
        except StreamError as error:
            self._error = error

    def next_event(self) -> Event | None:
        """What happened next; None when more bytes, or an answer, are needed. Never raises."""
        if self._queued is not None:
            event, self._queued = self._queued, None
            return event
        try:
            if self._error is not None and not self._closed:
                raise self._error
            while not self._waiting and not self._closed:
                if self._login is not None and self._tcp and type(self._login) is Sasl2 and self._reader.spaced:
                    raise StreamError("policy-violation", _NOTHING_ELSE)
                item = self._reader.next()
                if item is None:
                    return None
                if self.ready and type(item) is Stanza:
                    if self.lang is not None:
                        item.element.attrib.setdefault(LANG, self.lang)  # RFC 6120, section 8.1.5
                    return StanzaReceived(item)
                event = self._take(item)
                if event is not None:
                    return event
        except StreamError as error:
            self.close(error)
            return Closed(error)
        return None

    def data_to_send(self) -> bytes:
        """What the negotiation wants to send: over TCP all of it, over WebSocket one message a call; b"" at the end."""
        out = self._out
        if not out:
            return b""
        if not self._tcp:
            return out.pop(0)
        data = b"".join(out)
        out.clear()
        return data

    def frame(self, data: bytes) -> bytes:
        """A stanza in canonical form, or an element that declares its namespace, as this transport carries it."""
        return data if self._tcp else frame(data)

    def close(self, error: StreamError | None) -> None:
        """End the stream, with an error where given (RFC 6120, sections 4.4 and 4.9)."""
        if self._closed:
            return
        self._closed = True
        self._reader = self._login = None  # with what they hold
        if self._waiting == "tls":
            return  # after <proceed/> nothing goes out in the clear
        if not self._greeted:
            self._greet()
        if error is not None:
            text = escape(error.text)
            detail = text if error.condition == "see-other-host" else ""
            xml = f"<{error.condition} xmlns='{ns.STREAM_ERRORS}'>{detail}</{error.condition}>"
            if text and not detail:
                xml += f"<text xmlns='{ns.STREAM_ERRORS}' xml:lang='en'>{text}</text>"
            self.send_stream("error", xml.encode() + getattr(error, "extra", b""))
        self._out.append(b"</stream:stream>" if self._tcp else f"<close xmlns='{ns.FRAMING}'/>".encode())

    def send(self, data: bytes) -> None:
        """Queue one element of the negotiation."""
        self._out.append(data)

    def send_stream(self, name: str, children: bytes) -> None:
        """Queue one element in the namespace of streams."""
        declared = "" if self._tcp else f" xmlns:stream='{ns.STREAMS}'"
        self._out.append(f"<stream:{name}{declared}>".encode() + children + f"</stream:{name}>".encode())

    def wait(self, question: str) -> None:
        """Go on when the driver has answered."""
        self._waiting = question

    def _answers(self, question: str) -> bool:
        """Whether this answer was asked for and still matters."""
        if self._closed or self._waiting != question:
            return False
        self._waiting = ""
        return True

    # the way to a session

    def _take(self, item: StreamOpen | StreamEnd | Stanza | Element) -> Event | None:
        if isinstance(item, StreamOpen):
            return self._open(item)
        if isinstance(item, StreamEnd) or getattr(item, "tag", None) == _STREAM_ERROR:
            self.close(None)
            return Closed(None)
        if not self._greeted:
            raise StreamError("bad-format", "a stream begins with <open/>")
        uri = ns.CLIENT if isinstance(item, Stanza) else namespace(item.tag)
        if uri != ns.SASL2 and type(self._login) is Sasl2:
            raise StreamError("policy-violation", _NOTHING_ELSE)
        if isinstance(item, Stanza):
            return self._bind(item) if self.username is not None else self._visitor(item)
        if uri == ns.SM:
            return self._stream_management(item)
        if self.username is None:
            if uri in _LOGINS:
                return self._authenticate(item, uri)
            if item.tag == _STARTTLS:
                return self._start_tls()
            raise StreamError("not-authorized", "log in first")
        if not self.ready or uri in (ns.SASL, ns.SASL2, ns.TLS, ns.CLIENT, ns.STREAMS):
            raise StreamError("unsupported-stanza-type", "not here, not now")
        return Nonza(item)

    def _open(self, header: StreamOpen) -> None:
        """Check a stream header (RFC 6120, section 4.7) and answer with ours and the features."""
        if self._greeted:
            raise StreamError("bad-format", "the stream is open already")
        self.lang = lang_of(header)
        check(header, self.options.domain, tcp=self._tcp)
        peer = peer_of(header)
        self._greet(peer)
        if self.username is None:
            self.peer = peer
            children = features.before_authentication(
                self.options,
                secure=self.secure,
                starttls=self._may_start_tls(),
                bindings=self.bindings,
            )
        else:
            children = features.after_authentication(self.options)
        self.send_stream("features", children)

    def _greet(self, peer: JID | None = None) -> None:
        """Send our stream header; it goes before everything, even an error (RFC 6120, section 4.9.1.2)."""
        self._greeted = True
        self._out.append(write(self.options, peer, tcp=self._tcp))

    # TLS (RFC 6120, section 5)

    def _may_start_tls(self) -> bool:
        return self.options.starttls and self._tcp and not self.secure  # over WebSocket: RFC 7395, section 3.9

    def _start_tls(self) -> Event:
        if not self._may_start_tls():
            self._out.append(f"<failure xmlns='{ns.TLS}'/>".encode())
            self.close(None)
            return Closed(None)
        # What follows would be taken for something that came encrypted. A line end, which some clients send though
        # RFC 6120, section 5.3.3, forbids it, goes with the old stream.
        if not self._reader.blank:
            raise StreamError("policy-violation", "the handshake has to come next")
        self._out.append(f"<proceed xmlns='{ns.TLS}'/>".encode())
        self._waiting = "tls"
        return StartTls()

    def tls_established(self, bindings: Mapping[str, bytes]) -> None:
        """Answer `StartTls`: what is fed from now on comes out of TLS."""
        if not self._answers("tls"):
            return
        self.secure = True
        self.bindings = bindings
        self._login = None
        self._new_stream()

    def _new_stream(self) -> None:
        self._reader.restart()
        self._greeted = False

    # login (RFC 6120, section 6; XEP-0388)

    def check_secure(self) -> None:
        """Raise SaslError where nobody may log in before TLS."""
        if not self.secure and self.options.require_tls:
            raise SaslError("encryption-required", "start TLS first")

    def _authenticate(self, item: Element, uri: str) -> Event | None:
        login = self._login
        if login is None:
            login = self._login = _LOGINS[uri](self)
        try:
            return login.take(item)
        except SaslError as error:
            return self._login_failed(error)

    def _login_failed(self, error: SaslError) -> Event:
        login, self._login = self._login, None
        self._waiting = ""
        self._failures += 1 if error.counts else TRIED
        self._out.append(login.failure(error))
        if self._failures >= self.options.max_attempts:
            self._error = StreamError("policy-violation", "too many failed logins", limit="login_attempts")
        return LoginFailed(error.condition)

    def _login_goes_on(self, question: str, answer: str, *arguments: object) -> None:
        """Hand an answer of the driver to the login."""
        if self._answers(question):
            try:
                self._queued = getattr(self._login, answer)(*arguments)
            except SaslError as error:
                self._queued = self._login_failed(error)

    def credentials(self, credentials: Credentials | None) -> None:
        """Answer `Lookup`; None: there is no such account."""
        self._login_goes_on("credentials", "credentials", credentials)

    def tokens(self, tokens: list[Token]) -> None:
        """Answer `TokenLookup`."""
        self._login_goes_on("tokens", "tokens", tokens)

    def keys_stored(self) -> None:
        """Answer `StoreKeys`."""
        self._login_goes_on("keys", "keys_stored")

    def established(self, outcome: Established) -> None:
        """Answer `Establish`."""
        self._login_goes_on("establish", "established", outcome)

    def refused(self, error: SaslError) -> None:
        """Answer `Establish`: the client must log in in another way."""
        if self._answers("establish"):
            self._queued = self._login_failed(error)

    def logged_in(self, username: str, data: str) -> Event:
        """The client is this account; a new stream begins (RFC 6120, section 6.4.6)."""
        self._out.append(f"<success xmlns='{ns.SASL}'>{data}</success>".encode())
        self.known(username)
        self._new_stream()
        return Authenticated(username)

    def known(self, username: str) -> None:
        """The client is this account."""
        self.username = username
        self._login = self.peer = None
        self._reader.limits = _limits(self.options.max_bytes)
        self._reader.stepwise = False

    # visitors (XEP-0077, section 3.1.1)

    def _visitor(self, stanza: Stanza) -> Event:
        payload, to = stanza.payload, stanza.to
        protected = self.secure or not self.options.require_tls
        asks = stanza.kind == "iq" and stanza.type in ("get", "set") and len(stanza.element) == 1 and bool(stanza.id)
        here = to is None or is_here(to, self.options.domain)
        if not (protected and asks and here and payload.tag in self.options.visitor_iqs and self._login is None):
            raise StreamError("not-authorized", "log in first")
        stanza.element.attrib.pop("from", None)
        self._request = stanza
        self._waiting = "visitor"
        return VisitorIq(stanza)

    def visitor_answered(self, answer: Element | StanzaError | None) -> None:
        """Answer `VisitorIq` with the payload of the result, or with an error."""
        if self._answers("visitor"):
            request, self._request = self._request, None
            failed = isinstance(answer, StanzaError)
            answered = iq_error(request, answer.element()) if failed else iq_result(request, answer)
            answered.element.set("from", self.options.domain)
            self._out.append(self.frame(answered.encode()))

    # resource binding (RFC 6120, section 7)

    def _bind(self, stanza: Stanza) -> Event | None:
        payload = stanza.payload
        if stanza.kind != "iq" or payload is None or payload.tag != BIND:
            raise StreamError("not-authorized", "bind a resource first")
        for name in ("to", "from"):  # the client has no address yet
            stanza.element.attrib.pop(name, None)
        self._request = stanza
        try:
            resource = requested(stanza)
        except ValueError:
            self._refuse_bind(StanzaError("bad-request", "that is no resource"))
            return None
        self._waiting = "bind"
        return BindRequest(resource)

    def bound(self, jid: JID) -> None:
        """Answer `BindRequest` with the full address."""
        if not self._answers("bind"):
            return
        self.ready = True
        address = el(f"{{{ns.BIND}}}jid", text=str(jid))
        self._out.append(self.frame(iq_result(self._request, el(BIND, None, address)).encode()))
        self._request = None

    def bind_failed(self, error: StanzaError) -> None:
        """Answer `BindRequest` with a refusal; the client may try again."""
        if self._answers("bind"):
            self._refuse_bind(error)

    def _refuse_bind(self, error: StanzaError) -> None:
        self._out.append(self.frame(iq_error(self._request, error.element()).encode()))

    # stream management (XEP-0198)

    def _stream_management(self, item: Element) -> Event | None:
        name = local_name(item.tag)
        if name == "r" and self.sm:
            return AckRequest()
        if name == "a" and self.sm:
            h = sm.unsigned(item.get("h"))
            if h is None:
                raise StreamError("bad-format", "<a/> needs a number")
            return Ack(h)
        if name == "enable" and self.sm:  # XEP-0198, section 3
            raise StreamError("policy-violation", "stream management is enabled already")
        if not self.options.sm_available:
            self._out.append(sm.failed("feature-not-implemented"))
        elif name == "enable" and self.ready and not self.sm:
            self._waiting = "sm"
            return EnableSm(sm.wants_resumption(item), sm.unsigned(item.get("max")))
        elif name == "resume" and self.username is not None and not self.ready:
            previd, h = item.get("previd"), sm.unsigned(item.get("h"))
            if previd and h is not None:
                self._waiting = "resume"
                return ResumeRequest(previd, h)
            self._out.append(sm.failed("bad-request"))
        else:
            self._out.append(sm.failed("unexpected-request"))
        return None

    def sm_enabled(self, id: str | None, max: int | None, location: str | None = None) -> None:
        """Answer `EnableSm`: ``id`` to resume by, None: not to be resumed; ``max`` in seconds."""
        if self._answers("sm"):
            self.sm = True
            self._out.append(sm.enabled(id, max, location))

    def resumed(self, previd: str, h: int) -> None:
        """Answer `ResumeRequest`: the session goes on; what the client has not handled is to be sent again."""
        if self._answers("resume"):
            self.ready = self.sm = True
            self._out.append(sm.resumed(previd, h))

    def resume_failed(self, condition: str, h: int | None = None) -> None:
        """Answer `ResumeRequest`: the client may bind instead. ``h`` counts what its lost session handled."""
        if self._answers("resume"):
            self._out.append(sm.failed(condition, h))

"""What a `Stream` tells its driver. Those that name an answer wait for it: until then there is no next event."""

from __future__ import annotations

from dataclasses import dataclass

from nestbox.core.errors import StreamError
from nestbox.core.jid import JID
from nestbox.protocol.bind import Bind2
from nestbox.protocol.fast import Token
from nestbox.protocol.scram import ScramKeys
from nestbox.wire.element import Element
from nestbox.wire.stanza import Stanza

__all__ = [
    "Ack", "AckRequest", "Authenticated", "BindRequest", "Closed", "EnableSm", "Establish", "Established", "Event",
    "LoginFailed", "Lookup", "Nonza", "ResumeRequest", "StanzaReceived", "StartTls", "StoreKeys", "TokenLookup",
    "VisitorIq",
]  # fmt: skip


@dataclass(slots=True)
class StartTls:
    """Send what is to be sent, wrap the transport, and answer `Stream.tls_established`."""


@dataclass(slots=True)
class Lookup:
    """Whose keys are needed: a localpart, perhaps of no account. Answer `Stream.credentials`."""

    username: str


@dataclass(slots=True)
class TokenLookup:
    """The tokens of an account's client are needed (XEP-0484). Answer `Stream.tokens`."""

    username: str
    agent: str


@dataclass(slots=True)
class StoreKeys:
    """The peer is this account and has brought keys that it lacked (XEP-0480). Answer `Stream.keys_stored`."""

    username: str
    hash: str
    keys: ScramKeys


@dataclass(slots=True)
class Establish:
    """The peer is this account, and wants all this at once (XEP-0388): answer `Stream.established`, or
    `Stream.refused` where the token cannot be used after all.

    In this order: ``token`` was used, with this ``count``, and is to be made invalid where ``invalidate`` says so;
    ``new_token`` is the mechanism for which one is wanted; ``resume`` (previd, h) a session, or else ``bind`` one.
    ``device`` is what the client calls itself and what it runs on, '' where it does not say.
    """

    username: str
    agent: str | None
    token: Token | None = None
    count: int | None = None
    invalidate: bool = False
    new_token: str | None = None
    resume: tuple[str, int] | None = None
    bind: Bind2 | None = None
    device: str = ""


@dataclass(slots=True)
class Established:
    """What became of an `Establish`. ``jid`` is the full one of a session, None without.

    ``resumed`` is the count of handled stanzas, None where nothing was resumed, ``handled`` that of a session that was
    lost, None where nobody knows it; ``sm`` says that stream management is on; ``bound`` are the serialised answers to
    the features asked for; ``token`` a new one and when it expires, as XEP-0082 writes it.
    """

    jid: JID | None = None
    resumed: int | None = None
    handled: int | None = None
    sm: bool = False
    bound: bytes = b""
    token: tuple[str, str] | None = None


@dataclass(slots=True)
class Authenticated:
    """The peer is this account."""

    username: str


@dataclass(slots=True)
class LoginFailed:
    """The peer was told that it is nobody, with this condition (RFC 6120, section 6.5)."""

    condition: str


@dataclass(slots=True)
class VisitorIq:
    """A peer that has not logged in asks the server something that visitors may (XEP-0077).

    Answer `Stream.visitor_answered`.
    """

    stanza: Stanza


@dataclass(slots=True)
class BindRequest:
    """A resource is wanted, prepared; None: any. Answer `Stream.bound` or `Stream.bind_failed`."""

    resource: str | None


@dataclass(slots=True)
class ResumeRequest:
    """A former session is wanted (XEP-0198, section 5). Answer `Stream.resumed` or `Stream.resume_failed`."""

    previd: str
    h: int


@dataclass(slots=True)
class EnableSm:
    """Stream management is wanted; ``max`` in seconds. Answer `Stream.sm_enabled`."""

    resume: bool
    max: int | None


@dataclass(slots=True)
class AckRequest:
    """The peer asks how many stanzas we handled."""


@dataclass(slots=True)
class Ack:
    """The peer handled this many stanzas, modulo 2**32."""

    h: int


@dataclass(slots=True)
class StanzaReceived:
    """A stanza of a bound peer; its ``from`` has not been looked at."""

    stanza: Stanza


@dataclass(slots=True)
class Nonza:
    """Another element at the top of the stream of a bound peer."""

    element: Element


@dataclass(slots=True)
class Closed:
    """The stream is over; send what is to be sent and close. The error is ours, None when the peer ended it."""

    error: StreamError | None


Event = (
    StartTls | Lookup | TokenLookup | StoreKeys | Establish | Authenticated | LoginFailed | BindRequest | ResumeRequest
    | EnableSm | AckRequest | Ack | StanzaReceived | Nonza | VisitorIq | Closed
)  # fmt: skip

"""What a `Stream` tells its driver. Those that name an answer wait for it: until then there is no next event."""

from __future__ import annotations

from dataclasses import dataclass

from nestbox.core.errors import StreamError
from nestbox.wire.element import Element
from nestbox.wire.stanza import Stanza

__all__ = [
    "Ack", "AckRequest", "Authenticated", "BindRequest", "Closed", "EnableSm", "Event", "Lookup", "Nonza",
    "ResumeRequest", "StanzaReceived", "StartTls",
]  # fmt: skip


@dataclass(slots=True)
class StartTls:
    """Send what is to be sent, wrap the transport, and answer `Stream.tls_established`."""


@dataclass(slots=True)
class Lookup:
    """Whose keys are needed: a localpart, perhaps of no account. Answer `Stream.credentials`."""

    username: str


@dataclass(slots=True)
class Authenticated:
    """The peer is this account."""

    username: str


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
    StartTls | Lookup | Authenticated | BindRequest | ResumeRequest | EnableSm | AckRequest | Ack | StanzaReceived
    | Nonza | Closed
)  # fmt: skip

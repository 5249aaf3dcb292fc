"""What a stream offers (RFC 6120, section 4.3.2), and what all streams of a worker share."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from nestbox import Xep
from nestbox.wire import ns

__all__ = ["StreamOptions", "after_authentication", "before_authentication", "mechanisms"]

XEPS = (Xep(440, "1.0.0"), Xep(478, "0.2.0"))


@dataclass(slots=True)
class StreamOptions:
    """What all streams of a worker share. Sizes in bytes.

    ``secret`` makes up salts for names that have no account: every worker needs the same, or the names can be told
    apart. ``iterations`` are those of new passwords, by hash name. ``features_after_auth`` are elements, serialised.
    ``idle_seconds`` is announced where given (XEP-0478).
    """

    domain: str
    starttls: bool = False
    require_tls: bool = True
    mechanisms: tuple[str, ...] = ("SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1")
    plain_allowed: bool = False
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    iterations: Mapping[str, int] = field(default_factory=lambda: {"SHA-1": 10_000, "SHA-256": 5_000, "SHA-512": 4_096})
    max_attempts: int = 3
    features_after_auth: list[bytes] = field(default_factory=list)
    sm_available: bool = True
    max_bytes_before_auth: int = 16 * 1024
    max_bytes: int = 256 * 1024
    idle_seconds: int | None = None
    lang: str = "en"


def mechanisms(options: StreamOptions, certificate_hash: bytes | None) -> list[str]:
    """The SASL mechanisms on a protected stream, best first; -PLUS needs the hash of the certificate in use."""
    plus = [name + "-PLUS" for name in options.mechanisms] if certificate_hash else []
    return [*plus, *options.mechanisms, *(["PLAIN"] if options.plain_allowed else [])]


def before_authentication(
    options: StreamOptions, *, secure: bool, starttls: bool, certificate_hash: bytes | None
) -> bytes:
    """The children of ``<stream:features/>`` for a peer that has not logged in."""
    features = b""
    if starttls:
        required = "<required/>" if options.require_tls else ""
        features += f"<starttls xmlns='{ns.TLS}'>{required}</starttls>".encode()
    if secure or not options.require_tls:
        names = "".join(f"<mechanism>{name}</mechanism>" for name in mechanisms(options, certificate_hash))
        features += f"<mechanisms xmlns='{ns.SASL}'>{names}</mechanisms>".encode()
        if certificate_hash:
            features += (  # XEP-0440
                f"<sasl-channel-binding xmlns='{ns.CHANNEL_BINDING}'>"
                "<channel-binding type='tls-server-end-point'/></sasl-channel-binding>"
            ).encode()
    return features + _limits(options, options.max_bytes_before_auth)


def after_authentication(options: StreamOptions) -> bytes:
    """The children of ``<stream:features/>`` for a peer that has logged in."""
    sm = f"<sm xmlns='{ns.SM}'/>" if options.sm_available else ""
    return (
        f"<bind xmlns='{ns.BIND}'/>{sm}".encode()
        + b"".join(options.features_after_auth)
        + _limits(options, options.max_bytes)
    )


def _limits(options: StreamOptions, max_bytes: int) -> bytes:
    idle = f"<idle-seconds>{options.idle_seconds}</idle-seconds>" if options.idle_seconds else ""
    return f"<limits xmlns='{ns.LIMITS}'><max-bytes>{max_bytes}</max-bytes>{idle}</limits>".encode()

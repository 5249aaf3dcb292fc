"""What a stream offers (RFC 6120, section 4.3.2), and what all streams of a worker share."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from nestbox import Xep
from nestbox.protocol.scram import ENDPOINT
from nestbox.wire import ns

__all__ = [
    "StreamOptions", "after_authentication", "before_authentication", "mechanisms", "token_mechanisms",
    "upgrades",
]  # fmt: skip

XEPS = (Xep(440, "1.0.0"), Xep(478, "0.2.0"))

_TOKEN_MECHANISMS = ("HT-SHA-256-ENDP", "HT-SHA-256-NONE")


@dataclass(slots=True)
class StreamOptions:
    """What all streams of a worker share, not to be changed once a stream was opened. Sizes in bytes.

    ``secret`` makes up salts for names that have no account, and the stable part of resources: every worker needs the
    same. ``iterations`` are those of new passwords, by hash name. ``features_after_auth`` and ``visitor_features`` are
    elements, serialised; ``visitor_iqs`` are the payloads that those who have not logged in may send.
    ``inline`` are the features that Bind 2 can switch on (XEP-0386, section 3.1). ``idle_seconds`` is announced where
    given (XEP-0478).
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
    visitor_features: list[bytes] = field(default_factory=list)
    visitor_iqs: frozenset[str] = frozenset()
    inline: list[str] = field(default_factory=list)
    sm_available: bool = True
    max_bytes_before_auth: int = 16 * 1024
    max_bytes: int = 256 * 1024
    idle_seconds: int | None = None
    lang: str = "en"
    made: dict[object, bytes | tuple[str, ...]] = field(default_factory=dict)  # what was put together before


def mechanisms(options: StreamOptions, bindings: Mapping[str, bytes]) -> tuple[str, ...]:
    """The SASL mechanisms on a protected stream, best first; -PLUS needs a channel binding."""
    key = ("mechanisms", bool(bindings))
    made = options.made.get(key)
    if made is None:
        plus = [name + "-PLUS" for name in options.mechanisms] if bindings else []
        made = (*plus, *options.mechanisms, *(["PLAIN"] if options.plain_allowed else []))
        options.made[key] = made
    return made


def token_mechanisms(bindings: Mapping[str, bytes], secure: bool) -> tuple[str, ...]:
    """The SASL mechanisms for tokens (XEP-0484), best first; never on a stream that others can read (section 6)."""
    if not secure:
        return ()
    return _TOKEN_MECHANISMS if ENDPOINT in bindings else _TOKEN_MECHANISMS[1:]


def upgrades(options: StreamOptions) -> dict[str, str]:
    """The tasks that complete an account's keys (XEP-0480), with the hashes they are for."""
    names = [name.removeprefix("SCRAM-") for name in options.mechanisms]
    return {f"UPGR-SCRAM-{name}": name for name in names if name != "SHA-1"}


def before_authentication(
    options: StreamOptions, *, secure: bool, starttls: bool, bindings: Mapping[str, bytes]
) -> bytes:
    """The children of ``<stream:features/>`` for a peer that has not logged in."""
    key = (secure, starttls, *bindings)
    made = options.made.get(key)
    if made is None:
        made = options.made[key] = _before(options, secure, starttls, bindings)
    return made


def _before(options: StreamOptions, secure: bool, starttls: bool, bindings: Mapping[str, bytes]) -> bytes:
    features = ""
    if starttls:
        required = "<required/>" if options.require_tls else ""
        features += f"<starttls xmlns='{ns.TLS}'>{required}</starttls>"
    if secure or not options.require_tls:
        names = _mechanisms(mechanisms(options, bindings))
        features += f"<mechanisms xmlns='{ns.SASL}'>{names}</mechanisms>"
        features += f"<authentication xmlns='{ns.SASL2}'>{names}{_inline(options, bindings, secure)}</authentication>"
        types = "".join(f"<channel-binding type='{name}'/>" for name in bindings)  # XEP-0440
        if types:
            features += f"<sasl-channel-binding xmlns='{ns.CHANNEL_BINDING}'>{types}</sasl-channel-binding>"
        features += b"".join(options.visitor_features).decode()
    return features.encode() + _limits(options, options.max_bytes_before_auth)


def _mechanisms(names: tuple[str, ...]) -> str:
    return "".join(f"<mechanism>{name}</mechanism>" for name in names)


def _inline(options: StreamOptions, bindings: Mapping[str, bytes], secure: bool) -> str:
    """What can be had in the same round trip (XEP-0388, section 2.1), and the tasks of XEP-0480."""
    names = [*options.inline, *([ns.SM] if options.sm_available else [])]
    bind = "".join(f"<feature var='{name}'/>" for name in names)
    sm = f"<sm xmlns='{ns.SM}'/>" if options.sm_available else ""
    tokens = token_mechanisms(bindings, secure)
    fast = f"<fast xmlns='{ns.FAST}'>{_mechanisms(tokens)}</fast>" if tokens else ""
    tasks = "".join(f"<upgrade xmlns='{ns.SASL_UPGRADE}'>{task}</upgrade>" for task in upgrades(options))
    return f"<inline><bind xmlns='{ns.BIND2}'><inline>{bind}</inline></bind>{sm}{fast}</inline>{tasks}"


def after_authentication(options: StreamOptions, *, bind: bool = True, sm: bool = True) -> bytes:
    """The children of ``<stream:features/>`` for a peer that has logged in; what it has already is left out."""
    key = ("after", bind, sm)
    made = options.made.get(key)
    if made is None:
        features = f"<bind xmlns='{ns.BIND}'/>" if bind else ""
        features += f"<sm xmlns='{ns.SM}'/>" if sm and options.sm_available else ""
        made = features.encode() + b"".join(options.features_after_auth) + _limits(options, options.max_bytes)
        options.made[key] = made
    return made


def _limits(options: StreamOptions, max_bytes: int) -> bytes:
    idle = f"<idle-seconds>{options.idle_seconds}</idle-seconds>" if options.idle_seconds else ""
    return f"<limits xmlns='{ns.LIMITS}'><max-bytes>{max_bytes}</max-bytes>{idle}</limits>".encode()

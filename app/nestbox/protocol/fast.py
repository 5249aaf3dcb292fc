"""FAST: logging in with a token (XEP-0484) by the mechanisms HT-SHA-256-* (draft-schmaus-kitten-sasl-ht-08).

A token is the key of two HMACs, so the server must be able to tell it. It is kept as a random number only, of which the
token is an HMAC under the workers' secret: who steals the database has no token.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass

from nestbox import Xep
from nestbox.core.errors import SaslError
from nestbox.protocol.scram import ENDPOINT

__all__ = ["Token", "agent_key", "make_token", "parse", "verify"]

XEPS = (Xep(484, "0.1.0", "no TLS 0-RTT"),)

_SIZE = 32


@dataclass(slots=True)
class Token:
    """A token of one client of an account. ``expires`` is Unix time in seconds, ``count`` the highest that was used.

    ``fresh`` says that the client has not used it yet; then an older one may still be valid beside it.
    """

    mechanism: str
    nonce: bytes
    secret: bytes
    expires: int
    count: int
    fresh: bool


def agent_key(agent: str) -> str:
    """What is stored in place of a client's id, which it shows to nobody else (XEP-0388, section 2.3)."""
    return hashlib.sha256(agent.encode()).hexdigest()


def make_token(secret: bytes, username: str, agent: str, mechanism: str, nonce: bytes) -> bytes:
    """The token that ``nonce`` stands for, in base64; ``agent`` is an `agent_key`."""
    text = b"\0".join((b"token", username.encode(), agent.encode(), mechanism.encode(), nonce))
    return base64.urlsafe_b64encode(hmac.digest(secret, text, "sha256"))


def parse(data: bytes) -> tuple[str, bytes]:
    """The name and the proof of an initiator-message. Raises SaslError."""
    name, zero, proof = data.partition(b"\0")
    try:
        text = name.decode()
    except UnicodeDecodeError as error:
        raise SaslError("malformed-request", "that is not UTF-8") from error
    if not text or not zero or len(proof) != _SIZE or len(text) > 1023:
        raise SaslError("malformed-request", "that is no initiator-message")
    return text, proof


def verify(
    tokens: list[Token], mechanism: str, proof: bytes, count: int | None, bindings: Mapping[str, bytes]
) -> tuple[Token, bytes]:
    """The token that was meant, and the responder-message. Raises SaslError.

    Once a client has counted, it must go on (section 3.4): else a replay would only have to leave the count out.
    """
    binding = bindings[ENDPOINT] if mechanism.endswith("-ENDP") else b""
    for token in tokens:
        expected = hmac.digest(token.secret, b"Initiator" + binding, "sha256")
        if token.mechanism == mechanism and hmac.compare_digest(expected, proof):
            if token.expires <= time.time():
                raise SaslError("credentials-expired", "that token is not valid any more")
            if (token.count or count is not None) and (count or 0) <= token.count:
                raise SaslError("not-authorized", "that count was used before")
            return token, hmac.digest(token.secret, b"Responder" + binding, "sha256")
    raise SaslError("not-authorized", "that token is not valid")

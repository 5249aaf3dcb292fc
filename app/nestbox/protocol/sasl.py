"""SASL mechanisms for passwords: SCRAM with and without channel binding (RFC 5802, 7677, 5929), PLAIN where allowed.

An account that does not exist, or lacks the keys, is asked for its proof like any other and fails like a wrong
password, so that nobody learns which names exist.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from scramp import ScramException
from scramp.utils import saslprep

from nestbox.core.errors import SaslError
from nestbox.core.jid import parse_jid, prepare_localpart
from nestbox.protocol.features import StreamOptions, mechanisms
from nestbox.protocol.scram import DIGESTS, ScramKeys, ScramServer, keys_of, protection

__all__ = ["Credentials", "Exchange", "decode", "named"]

_MAX_MESSAGE = 2048  # characters; SASLprep takes microseconds for each


@dataclass(slots=True)
class Credentials:
    """An account's keys by hash name (``SHA-1``, ``SHA-256``, ``SHA-512``), and whether it may log in."""

    keys: Mapping[str, ScramKeys] = field(default_factory=dict)
    enabled: bool = True


@dataclass(slots=True)
class _Keys:
    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes


def decode(text: str) -> bytes:
    """The data of a SASL element. Raises SaslError."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SaslError("incorrect-encoding", "that is not base64") from error


def named(authzid: str, name: str, options: StreamOptions) -> str:
    """The account's localpart, as far as there can be one. Raises SaslError for who wants to act for another."""
    try:
        username = prepare_localpart(name) if len(name) < 1024 else name
    except ValueError:
        username = name  # no account has this name, and the exchange will find that out
    if authzid not in ("", name) and _prepared(authzid) != f"{username}@{options.domain}":
        raise SaslError("invalid-authzid", "you can only act for yourself")
    return username


def _prepared(jid: str) -> str:
    """An address as it is compared (XEP-0388, section 4.4); '' for what is none."""
    try:
        return str(parse_jid(jid)) if len(jid) < 1024 else ""
    except ValueError:
        return ""


class Exchange:
    """One authentication: `receive` the client's messages, and `answer` the first one with the account's keys.

    ``authzid`` is the authorisation identity, '' where the client gave none.
    """

    __slots__ = ("_answered", "_enabled", "_options", "_password", "_scram", "authzid", "mechanism", "username")

    def __init__(self, mechanism: str, options: StreamOptions, bindings: Mapping[str, bytes]) -> None:
        offered = mechanisms(options, bindings)
        if mechanism not in offered:
            raise SaslError("invalid-mechanism", "that mechanism is not offered")
        self.mechanism = mechanism
        self.username = self.authzid = ""
        self._options = options
        self._answered = self._enabled = False
        self._password = ""
        self._scram: ScramServer | None = None
        if mechanism != "PLAIN":
            name = mechanism.removeprefix("SCRAM-")
            plus = name.endswith("-PLUS")
            name = name.removesuffix("-PLUS")
            protected = protection(offered, tuple(bindings), DIGESTS[name])
            self._scram = ScramServer(name, plus, bindings, protected)

    def receive(self, data: bytes) -> bytes | None:
        """Take a message. None: look ``username`` up and call `answer`; bytes: success, and they go with it.

        Raises SaslError.
        """
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise SaslError("malformed-request", "that is not UTF-8") from error
        if len(text) > _MAX_MESSAGE:
            raise SaslError("malformed-request", "that is too long")
        if self._answered:
            reply = self._scram.final(text)
            self._check_enabled()
            return reply
        self.authzid, name = self._scram.first(text) if self._scram is not None else self._plain(text)
        self.username = named(self.authzid, name, self._options)
        return None

    def answer(self, credentials: Credentials | None) -> bytes | None:
        """Go on with the keys of ``username``, None: there is no such account. Returns the challenge, None: success.

        Raises SaslError.
        """
        self._enabled = credentials is not None and credentials.enabled
        if self._scram is None:
            self._check_password(credentials)
            return None
        self._answered = True
        return self._scram.challenge(self._keys(self._scram.hash, credentials))

    def _keys(self, name: str, credentials: Credentials | None) -> ScramKeys:
        """The account's keys, or some that no password fits but that look the same each time."""
        found = credentials.keys.get(name) if credentials is not None else None
        if found is not None:
            return found
        digest = DIGESTS[name]
        label = f"{name} {self.username}".encode()
        nothing = hmac.digest(self._options.secret, b"key " + label, digest)
        salt = hmac.digest(self._options.secret, b"salt " + label, "sha256")[:16]
        return _Keys(salt, self._options.iterations[name], nothing, nothing)

    def _check_enabled(self) -> None:
        if not self._enabled:  # said only to who knows the password
            raise SaslError("account-disabled", "this account is disabled")

    def _plain(self, text: str) -> tuple[str, str]:
        """The authorisation identity and the name in a PLAIN message (RFC 4616, section 2)."""
        parts = text.split("\0")
        if len(parts) != 3 or not parts[1] or not parts[2]:
            raise SaslError("malformed-request", "that is no PLAIN message")
        authzid, name, self._password = parts
        return authzid, name

    def _check_password(self, credentials: Credentials | None) -> None:
        """Costs the milliseconds of PBKDF2 on the spot, which is one reason why PLAIN is off by default."""
        name = next((name for name in DIGESTS if credentials is not None and name in credentials.keys), "SHA-1")
        keys, digest = self._keys(name, credentials), DIGESTS[name]
        try:
            password = saslprep(self._password).encode()
        except ScramException as error:
            raise SaslError("not-authorized", "wrong name or password") from error
        salted = hashlib.pbkdf2_hmac(digest, password, keys.salt, keys.iterations)
        if not hmac.compare_digest(keys_of(digest, salted)[0], keys.stored_key):
            raise SaslError("not-authorized", "wrong name or password")
        self._check_enabled()

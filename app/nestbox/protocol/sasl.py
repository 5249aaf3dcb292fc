"""SASL: SCRAM with and without channel binding (RFC 5802, 7677, 5929), and PLAIN (RFC 4616) where allowed.

scramp does the mathematics. An account that does not exist, or lacks the keys, is asked for its proof like any other
and fails like a wrong password, so that nobody learns which names exist.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from scramp import ScramException, ScramMechanism
from scramp.core import ScramServer
from scramp.utils import ServerError, saslprep

from nestbox.core.errors import SaslError
from nestbox.core.jid import prepare_localpart
from nestbox.protocol.features import StreamOptions, mechanisms

__all__ = ["Credentials", "Exchange", "decode"]

_DIGESTS = {"SHA-1": "sha1", "SHA-256": "sha256", "SHA-512": "sha512"}
_BINDING = "tls-server-end-point"
_MAX_MESSAGE = 2048  # characters; SASLprep takes microseconds for each


class ScramKeys(Protocol):
    """What one hash function needs of an account (RFC 5802, section 3)."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes


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


def decode(text: str | None) -> bytes | None:
    """The data of a SASL element, None when it has none (RFC 6120, section 6.4.2). Raises SaslError."""
    if not text:
        return None
    if text == "=":
        return b""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SaslError("incorrect-encoding", "that is not base64") from error


class _Header:
    """A gs2-header with an authorisation identity, which scramp cannot make (RFC 5802, section 7)."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def make_cbind_input(self, binding: object) -> bytes:
        return self._raw + (bytes(binding.data) if self._raw.startswith(b"p=") else b"")


class Exchange:
    """One authentication: `receive` the client's messages, and `answer` the first one with the account's keys."""

    __slots__ = ("_binding", "_enabled", "_first", "_hash", "_header", "_options", "_password", "_server", "mechanism",
                 "username")  # fmt: skip

    def __init__(self, mechanism: str, options: StreamOptions, certificate_hash: bytes | None) -> None:
        if mechanism not in mechanisms(options, certificate_hash):
            raise SaslError("invalid-mechanism", "that mechanism is not offered")
        self.mechanism = mechanism
        self.username = ""
        self._options = options
        self._binding = (_BINDING, certificate_hash) if certificate_hash else None
        self._hash = mechanism.removeprefix("SCRAM-").removesuffix("-PLUS")
        self._enabled = False
        self._first = self._password = ""
        self._header: _Header | None = None
        self._server: ScramServer | None = None

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
        if self._server is not None:
            return self._final(text)
        authzid, name = self._plain(text) if self.mechanism == "PLAIN" else self._client_first(text)
        try:
            self.username = prepare_localpart(name) if len(name) < 1024 else name
        except ValueError:
            self.username = name  # no account has this name, and the exchange will find that out
        if authzid and authzid not in (name, f"{name}@{self._options.domain}"):
            raise SaslError("invalid-authzid", "you can only act for yourself")
        return None

    def answer(self, credentials: Credentials | None) -> bytes | None:
        """Go on with the keys of ``username``, None: there is no such account. Returns the challenge, None: success.

        Raises SaslError.
        """
        self._enabled = credentials is not None and credentials.enabled
        if self.mechanism == "PLAIN":
            self._check_password(credentials)
            return None
        keys = self._keys(credentials)
        self._server = self._start(lambda _: (keys.salt, keys.stored_key, keys.server_key, keys.iterations))
        if self._header is not None:
            self._server.gs2_header = self._header
        return self._server.get_server_first().encode()

    def _keys(self, credentials: Credentials | None) -> ScramKeys:
        """The account's keys, or some that no password fits but that look the same each time."""
        found = credentials.keys.get(self._hash) if credentials is not None else None
        if found is not None:
            return found
        digest = _DIGESTS[self._hash]
        name = f"{self._hash} {self.username}".encode()
        nothing = hmac.digest(self._options.secret, b"key " + name, digest)
        salt = hmac.digest(self._options.secret, b"salt " + name, "sha256")[:16]
        return _Keys(salt, self._options.iterations[self._hash], nothing, nothing)

    def _check_enabled(self) -> None:
        if not self._enabled:  # said only to who knows the password
            raise SaslError("account-disabled", "this account is disabled")

    # SCRAM

    def _client_first(self, text: str) -> tuple[str, str]:
        """The authorisation identity and the name in a client-first-message (RFC 5802, section 7)."""
        flag, _, rest = text.partition(",")
        authzid, _, bare = rest.partition(",")
        if flag.startswith("p=") != self.mechanism.endswith("-PLUS"):
            raise SaslError("malformed-request", "channel binding and mechanism do not fit")  # RFC 5802, section 6
        if authzid and not authzid.startswith("a="):
            raise SaslError("malformed-request", "that is no client-first-message")
        self._header = _Header(f"{flag},{authzid},".encode()) if authzid else None
        self._first = f"{flag},,{bare}"
        names: list[str] = []
        try:
            self._start(names.append)  # scramp wants the keys at once, so this run only finds out whose
        except SaslError:
            if not names:
                raise
        return authzid[2:].replace("=2C", ",").replace("=3D", "="), names[0]

    def _start(self, find_keys: Callable[[str], object]) -> ScramServer:
        server = ScramMechanism(self.mechanism).make_server(find_keys, channel_binding=self._binding)
        try:
            server.set_client_first(self._first)
        except ScramException as error:
            if error.server_error is ServerError.SERVER_DOES_SUPPORT_CHANNEL_BINDING:
                # The client was not shown the -PLUS that we offer: somebody is in between (RFC 5802, section 6).
                raise SaslError("not-authorized", "channel binding is offered here") from error
            raise SaslError("malformed-request", str(error)) from error
        return server

    def _final(self, text: str) -> bytes:
        try:
            self._server.set_client_final(text)
            reply = self._server.get_server_final().encode()
        except ScramException as error:
            raise SaslError("not-authorized", "wrong name or password") from error
        self._check_enabled()
        return reply

    # PLAIN

    def _plain(self, text: str) -> tuple[str, str]:
        """The authorisation identity and the name in a PLAIN message (RFC 4616, section 2)."""
        parts = text.split("\0")
        if len(parts) != 3 or not parts[1] or not parts[2]:
            raise SaslError("malformed-request", "that is no PLAIN message")
        authzid, name, self._password = parts
        return authzid, name

    def _check_password(self, credentials: Credentials | None) -> None:
        """Costs the milliseconds of PBKDF2 on the spot, which is one reason why PLAIN is off by default."""
        known = [name for name in _DIGESTS if credentials is not None and name in credentials.keys]
        self._hash = known[0] if known else next(iter(_DIGESTS))
        keys, digest = self._keys(credentials), _DIGESTS[self._hash]
        try:
            password = saslprep(self._password).encode()
        except ScramException as error:
            raise SaslError("not-authorized", "wrong name or password") from error
        salted = hashlib.pbkdf2_hmac(digest, password, keys.salt, keys.iterations)
        stored_key = hashlib.new(digest, hmac.digest(salted, b"Client Key", digest)).digest()
        if not hmac.compare_digest(stored_key, keys.stored_key):
            raise SaslError("not-authorized", "wrong name or password")
        self._check_enabled()

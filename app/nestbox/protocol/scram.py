"""SCRAM, the server's side (RFC 5802, 7677), with the downgrade protection of XEP-0474.

The mathematics are three HMACs, so they stand here: a library that checks every part of every message in objects of
its own took five times as long, and none knows the attribute ``h``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Protocol

from scramp import ScramException
from scramp.utils import saslprep

from nestbox import Xep
from nestbox.core.errors import SaslError

__all__ = ["DIGESTS", "ScramKeys", "ScramServer", "keys_of", "prepare", "protection"]

XEPS = (Xep(474, "0.5.0"),)

DIGESTS = {"SHA-1": "sha1", "SHA-256": "sha256", "SHA-512": "sha512"}
ENDPOINT, UNIQUE, EXPORTER = "tls-server-end-point", "tls-unique", "tls-exporter"
# RFC 5802, section 7; what is not in the grammar, such as a mandatory extension ("m="), does not match.
_FIRST = re.compile(
    r"(?P<header>(?P<flag>[ny]|p=(?P<binding>[A-Za-z0-9.\-]+)),(?:a=(?P<authzid>[^,\0]+))?,)"
    r"(?P<bare>n=(?P<name>[^,\0]+),r=(?P<nonce>[\x21-\x2b\x2d-\x7e]+)(?:,[A-Za-z]=[^,\0]+)*)"
).fullmatch
_FINAL = re.compile(
    r"(?P<signed>c=(?P<binding>[A-Za-z0-9+/=]+),r=(?P<nonce>[\x21-\x2b\x2d-\x7e]+)(?:,[A-Za-z]=[^,\0]+)*)"
    r",p=(?P<proof>[A-Za-z0-9+/=]+)"
).fullmatch
_ESCAPE = re.compile(r"=(?!2C|3D)").search


class ScramKeys(Protocol):
    """What one hash function needs of an account (RFC 5802, section 3)."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes


def prepare(text: str) -> str:
    """SASLprep (RFC 4013). Raises SaslError."""
    if text.isascii() and text.isprintable():
        return text
    try:
        return saslprep(text)
    except ScramException as error:
        raise SaslError("malformed-request", "that has forbidden characters") from error


def keys_of(digest: str, salted: bytes) -> tuple[bytes, bytes]:
    """StoredKey and ServerKey of a SaltedPassword (RFC 5802, section 3); ``digest`` is a name of hashlib."""
    stored = hashlib.new(digest, hmac.digest(salted, b"Client Key", digest)).digest()
    return stored, hmac.digest(salted, b"Server Key", digest)


@lru_cache(maxsize=64)
def protection(mechanisms: tuple[str, ...], bindings: tuple[str, ...], digest: str) -> str:
    """What a client compares with what it was offered (XEP-0474, section 5.1), in base64."""
    text = "\x1e".join(_sorted(mechanisms))
    if bindings:
        text += "\x1f" + "\x1e".join(_sorted(bindings))
    return base64.b64encode(hashlib.new(digest, text.encode()).digest()).decode()


def _sorted(names: Iterable[str]) -> list[str]:
    return sorted(names, key=str.encode)  # i;octet


class ScramServer:
    """One exchange: `first` names the account, `challenge` takes its keys, `final` checks the proof.

    ``hash`` is SHA-1, SHA-256 or SHA-512; ``plus`` says that the mechanism is the one with channel binding, and
    ``offered`` that it was offered; ``bindings`` are the channel bindings that there are, by type; ``protected`` is the
    attribute of XEP-0474.
    """

    __slots__ = ("_binding", "_bindings", "_digest", "_first", "_keys", "_nonce", "_protected", "hash", "plus")

    def __init__(self, hash: str, plus: bool, bindings: Mapping[str, bytes], protected: str) -> None:
        self.hash = hash
        self.plus = plus
        self._digest = DIGESTS[hash]
        self._bindings = bindings
        self._protected = protected
        self._binding = b""
        self._first = self._nonce = ""
        self._keys: ScramKeys | None = None

    def first(self, text: str) -> tuple[str, str]:
        """Take the client-first-message: the authorisation identity ('' for none) and the name. Raises SaslError."""
        match = _FIRST(text)
        if match is None:
            raise SaslError("malformed-request", "that is no client-first-message")
        flag, binding, authzid, name = match["flag"], match["binding"], match["authzid"] or "", match["name"]
        if (binding is not None) != self.plus or (self.plus and binding not in self._bindings):
            # RFC 5802, section 6. A client that binds in another way goes through all the -PLUS before it does without.
            raise SaslError("malformed-request", "channel binding and mechanism do not fit", counts=False)
        if flag == "y" and self._bindings:
            # The client was not shown the -PLUS that we offer: somebody is in between (RFC 5802, section 6).
            raise SaslError("not-authorized", "channel binding is offered here")
        self._binding = match["header"].encode() + (self._bindings[binding] if self.plus else b"")
        self._first = match["bare"]
        self._nonce = match["nonce"] + secrets.token_urlsafe(18)
        return _name(authzid), prepare(_name(name))

    def challenge(self, keys: ScramKeys) -> bytes:
        """The server-first-message."""
        self._keys = keys
        salt = base64.b64encode(keys.salt).decode()
        message = f"r={self._nonce},s={salt},i={keys.iterations},h={self._protected}"
        self._first = f"{self._first},{message}"
        return message.encode()

    def final(self, text: str) -> bytes:
        """Check the client-final-message; the server-final-message. Raises SaslError."""
        match = _FINAL(text)
        if match is None:
            raise SaslError("not-authorized", "that is no client-final-message")
        try:
            binding = base64.b64decode(match["binding"], validate=True)
            proof = base64.b64decode(match["proof"], validate=True)
        except binascii.Error:
            raise SaslError("not-authorized", "that is no client-final-message") from None
        signed = f"{self._first},{match['signed']}".encode()
        keys, digest = self._keys, self._digest
        signature = hmac.digest(keys.stored_key, signed, digest)
        size = len(signature)
        key = int.from_bytes(proof[:size], "big") ^ int.from_bytes(signature, "big")
        right = hmac.compare_digest(hashlib.new(digest, key.to_bytes(size, "big")).digest(), keys.stored_key)
        if not (right and len(proof) == size and binding == self._binding and match["nonce"] == self._nonce):
            raise SaslError("not-authorized", "wrong name or password")
        return b"v=" + base64.b64encode(hmac.digest(keys.server_key, signed, digest))


def _name(text: str) -> str:
    """A saslname without its escapes (RFC 5802, section 5.1). Raises SaslError."""
    if "=" not in text:
        return text
    if _ESCAPE(text):
        raise SaslError("malformed-request", "that is no client-first-message")
    return text.replace("=2C", ",").replace("=3D", "=")

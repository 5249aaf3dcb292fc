"""Keys that an account lacks, brought by its client (XEP-0480, section 3)."""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import NamedTuple

from nestbox import Xep
from nestbox.core.errors import SaslError
from nestbox.protocol.features import StreamOptions
from nestbox.protocol.sasl import decode
from nestbox.protocol.scram import DIGESTS, keys_of
from nestbox.wire import ns
from nestbox.wire.element import Element

__all__ = ["Upgrade"]

XEPS = (Xep(480, "0.1.0"),)

_HASH = f"{{{ns.SCRAM_UPGRADE}}}hash"


class _Keys(NamedTuple):
    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes


class Upgrade:
    """The task for one hash: a question with a new salt, and the SaltedPassword as its answer."""

    __slots__ = ("_hash", "_iterations", "_salt")

    def __init__(self, hash: str, options: StreamOptions) -> None:
        self._hash = hash
        self._salt = secrets.token_bytes(16)
        self._iterations = options.iterations[hash]

    def question(self) -> str:
        """The content of the server's ``<task-data/>``."""
        salt = base64.b64encode(self._salt).decode()
        return f"<salt xmlns='{ns.SCRAM_UPGRADE}' iterations='{self._iterations}'>{salt}</salt>"

    def answer(self, data: Element) -> _Keys:
        """The keys, from the client's ``<task-data/>``. Raises SaslError."""
        digest = DIGESTS[self._hash]
        salted = decode((data.findtext(_HASH) or "").strip())
        if len(salted) != hashlib.new(digest).digest_size:
            raise SaslError("malformed-request", "that is no salted password")
        return _Keys(self._salt, self._iterations, *keys_of(digest, salted))

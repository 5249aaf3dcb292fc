"""Passwords become SCRAM keys (RFC 5802, section 3) and are then forgotten."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

from scramp import ScramException
from scramp.utils import saslprep

__all__ = ["ITERATIONS", "PasswordError", "ScramKeys", "check_password", "derive", "derive_many", "generate_password"]

# A thief of the table attacks the cheapest hash, so each gets about the cost of 10,000 rounds of SHA-1 on a graphics
# card, where SHA-256 takes two times and SHA-512 six times as long; 4,096 is the least that RFC 7677 allows. The same
# 10,000 for all would double the work (4,000 users in a minute must fit a Pi's cores) and strengthen nothing.
ITERATIONS = {"SHA-1": 10_000, "SHA-256": 5_000, "SHA-512": 4_096}
_DIGESTS = {"SHA-1": "sha1", "SHA-256": "sha256", "SHA-512": "sha512"}
_MAX_BYTES = 1023
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"  # nothing that is misread on paper


class PasswordError(ValueError):
    """No account may have this password; the message says why."""


class ScramKeys(NamedTuple):
    """What one SCRAM mechanism needs of an account."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes


def check_password(password: str) -> bytes:
    """The prepared password (SASLprep, RFC 4013). Raises PasswordError."""
    try:
        prepared = saslprep(password).encode()
    except (ScramException, UnicodeError) as error:
        raise PasswordError("the password has characters that no password may have") from error
    if not prepared:
        raise PasswordError("the password is empty")
    if len(prepared) > _MAX_BYTES:
        raise PasswordError(f"the password is longer than {_MAX_BYTES} bytes")
    return prepared


def generate_password() -> str:
    """A random password of 80 bits, in groups that can be read out."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(4)) for _ in range(4))


def _derive(prepared: bytes) -> dict[str, ScramKeys]:
    keys = {}
    for name, iterations in ITERATIONS.items():
        digest = _DIGESTS[name]
        salt = os.urandom(16)
        salted = hashlib.pbkdf2_hmac(digest, prepared, salt, iterations)
        client_key = hmac.digest(salted, b"Client Key", digest)
        stored_key = hashlib.new(digest, client_key).digest()
        keys[name] = ScramKeys(salt, iterations, stored_key, hmac.digest(salted, b"Server Key", digest))
    return keys


@cache
def _pool() -> ThreadPoolExecutor:
    # pbkdf2_hmac lets go of the GIL, so threads use all cores.
    return ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="pbkdf2")


async def derive(password: str) -> dict[str, ScramKeys]:
    """The keys of every mechanism, by hash name. Raises PasswordError. Takes 10 to 40 ms of another thread."""
    prepared = check_password(password)
    return await asyncio.get_running_loop().run_in_executor(_pool(), _derive, prepared)


async def derive_many(passwords: Iterable[str]) -> list[dict[str, ScramKeys]]:
    """`derive` for many, on all cores."""
    return await asyncio.gather(*map(derive, passwords))

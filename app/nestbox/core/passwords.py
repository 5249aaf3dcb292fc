"""Which passwords people may choose: long ones that nobody tries first (NIST SP 800-63B, section 5.1.1.2).

``leaked_passwords.txt`` has the most frequent ones of published leaks that are long enough by default. What an account
has already, and what is brought as keys, is not looked at.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from nestbox.config import Config
from nestbox.store.passwords import PasswordError, check_password

__all__ = ["check_choice"]

_LEAKED = Path(__file__).with_name("leaked_passwords.txt")


@cache
def _leaked() -> frozenset[str]:
    return frozenset(_LEAKED.read_text().split())


def check_choice(password: str, config: Config) -> None:
    """Raise PasswordError, which says why, for a password that nobody may choose."""
    prepared = check_password(password).decode()
    least = config.passwords.min_length
    if len(prepared) < least:
        raise PasswordError(f"the password is too short: it needs at least {least} characters")
    if prepared.lower() in _leaked():
        raise PasswordError("the password is among those that leaked most often and that everybody tries first")

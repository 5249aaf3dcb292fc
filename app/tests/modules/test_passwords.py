"""What nobody may choose as a password, in-band and by an administrator."""

from __future__ import annotations

import pytest

from nestbox.config import Config, Passwords
from nestbox.core.passwords import check_choice
from nestbox.store import PasswordError

CONFIG = Config("nestbox.test")


@pytest.mark.parametrize("password", ["correct-horse-7", "schrödinger", "12 34 56 78", "pässwört", "x" * 1023])
def test_good(password: str) -> None:
    check_choice(password, CONFIG)


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("", "empty"),
        ("secret", "at least 8"),
        ("7 chars", "at least 8"),
        ("password", "leaked"),
        ("PassWord", "leaked"),
        ("12345678", "leaked"),
        ("qwertyuiop", "leaked"),
        ("pass\u00adword", "leaked"),  # what SASLprep leaves out does not count
        ("x" * 1024, "longer"),
        ("bell\u0007bell", "characters"),
    ],
)
def test_bad(password: str, why: str) -> None:
    with pytest.raises(PasswordError, match=why):
        check_choice(password, CONFIG)


def test_the_length_is_the_operators() -> None:
    with pytest.raises(PasswordError, match="at least 20"):
        check_choice("correct-horse-7", Config("nestbox.test", passwords=Passwords(min_length=20)))

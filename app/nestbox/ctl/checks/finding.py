"""What a check of the self-check found, the same for all of them."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

__all__ = ["Finding", "fault", "fine", "warning"]

State = Literal["ok", "warning", "fault"]


class Finding(Struct, frozen=True):
    """``what`` is one sentence for the operator, ``cure`` another that says what to do, '' when all is well.

    A warning leaves the exit status of ``nestboxctl status`` at 0, a fault makes it 1.
    """

    check: str
    state: State
    what: str
    cure: str = ""


def fine(check: str, what: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", what)


def warning(check: str, what: str, cure: str) -> Finding:
    """It works, but something has to be done soon, or cannot be seen from here."""
    return Finding(check, "warning", what, cure)


def fault(check: str, what: str, cure: str) -> Finding:
    """People notice it, or will within days."""
    return Finding(check, "fault", what, cure)

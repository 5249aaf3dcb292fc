"""The Nestbox IM server."""

from __future__ import annotations

from typing import NamedTuple

__version__ = "0.1.0"


class Xep(NamedTuple):
    """A XEP that a module implements: its number, the version read, and what is left out, if anything.

    Whoever implements one says so in ``XEPS``, and RFCs as text in ``RFCS``; `nestbox.compliance` collects them.
    """

    number: int
    version: str
    note: str = ""

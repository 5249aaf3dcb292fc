"""Somebody on a stream who has not logged in, as far as modules need to know (XEP-0077, XEP-0445)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nestbox.store.invites import Invite
    from nestbox.wire.element import Element
    from nestbox.wire.stanza import Stanza

__all__ = ["Visitor", "VisitorHandler"]


@dataclass(slots=True)
class Visitor:
    """``address`` is the client's IP address; ``invite`` is what it brought, ``registered`` that it made an account.

    ``welcome`` says that something was answered, ``failures`` how much was refused.
    """

    address: str
    invite: Invite | None = None
    registered: bool = False
    welcome: bool = False
    failures: int = 0


# Answers an iq of a visitor with the payload of the result; raises StanzaError, StoreError.
VisitorHandler = Callable[[Visitor, "Stanza"], "Awaitable[Element | None]"]

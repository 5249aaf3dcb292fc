"""The points at which modules join in, each with the types that it passes.

A hook is a list of plain functions in order of priority (low first). They are synchronous, since they sit on a stanza's
way; what must wait for the store is an iq handler or a task of its own. A handler that fails with anything but a
`StanzaError` is logged and skipped: one module's fault must not lose another's stanza.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, ParamSpec

from nestbox.core.errors import StanzaError

if TYPE_CHECKING:
    from nestbox.core.jid import JID
    from nestbox.core.registry import Entry
    from nestbox.core.session import Session
    from nestbox.core.users import User
    from nestbox.wire.element import Element
    from nestbox.wire.stanza import Stanza

__all__ = ["AsyncHook", "Hook", "Hooks", "MessageContext"]

P = ParamSpec("P")
_log = logging.getLogger("nestbox.hooks")


class Hook(Generic[P]):
    """One extension point. A handler that returns True ends the run: what it was asked is dealt with."""

    def __init__(self) -> None:
        self._ranked: list[tuple[int, Callable[P, bool | None]]] = []
        self.handlers: tuple[Callable[P, bool | None], ...] = ()

    def add(self, handler: Callable[P, bool | None], priority: int = 50) -> None:
        """Add a handler; the lower ``priority``, the earlier it runs."""
        self._ranked.append((priority, handler))
        self._ranked.sort(key=lambda pair: pair[0])
        self.handlers = tuple(handler for _, handler in self._ranked)

    def run(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Call the handlers; True when one of them dealt with it. Passes on `StanzaError`."""
        for handler in self.handlers:
            try:
                if handler(*args, **kwargs):
                    return True
            except StanzaError:
                raise
            except Exception:
                _log.exception("handler %s failed", handler.__qualname__)
        return False


class AsyncHook(Generic[P]):
    """Coroutines that belong to an iq's work: they are awaited before it is answered, and what they raise fails it."""

    def __init__(self) -> None:
        self._handlers: list[Callable[P, Awaitable[None]]] = []

    def add(self, handler: Callable[P, Awaitable[None]]) -> None:
        """Add a handler; they run in the order in which they came."""
        self._handlers.append(handler)

    async def run(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Await the handlers, one after the other."""
        for handler in self._handlers:
            await handler(*args, **kwargs)


@dataclass(slots=True)
class MessageContext:
    """A message on its way (design, section 4).

    ``recipient`` is None when ``to`` is not an account of ours; ``batch`` is the commit that the sender's
    acknowledgement waits for; ``targets`` are the sessions that have been given the message itself; ``private`` says
    that no others may have a copy; ``stored`` that it was through all this before and only looks for another way;
    ``work`` is what a handler that took the message has yet to do before it may be acknowledged.
    """

    stanza: Stanza
    sender: JID
    to: JID
    session: Session | None
    owner: User | None
    recipient: User | None
    archive_id: int | None = None
    batch: int = 0
    stored: bool = False
    private: bool = False
    targets: list[Entry] = field(default_factory=list)
    work: Awaitable[int] | None = None


@dataclass(slots=True)
class Hooks:
    """All extension points of the server."""

    # A message from a client or a service, before anything else; StanzaError bounces it, True drops it.
    message: Hook[[MessageContext]] = field(default_factory=Hook)
    # A message that will be delivered or kept: archives give it an id and store it.
    message_archive: Hook[[MessageContext]] = field(default_factory=Hook)
    # After it was given to ``context.targets`` (possibly none): carbons.
    message_delivered: Hook[[MessageContext]] = field(default_factory=Hook)
    # No session took it: return True when it was kept (offline messages), else the sender is told.
    message_undelivered: Hook[[MessageContext]] = field(default_factory=Hook)
    # Any stanza towards an account (recipient, sender, stanza): return True to drop it, raise to bounce (blocking).
    inbound: Hook[[User, JID, Stanza]] = field(default_factory=Hook)
    # Any stanza an account sends (session, to, stanza): return True to drop it, raise to bounce (blocking).
    outbound: Hook[[Session, JID, Stanza]] = field(default_factory=Hook)
    # A session of this worker was bound, may be sent messages from now on (others hear of it next), resumed, or ended.
    session_bound: Hook[[Session]] = field(default_factory=Hook)
    session_available: Hook[[Session]] = field(default_factory=Hook)
    session_resumed: Hook[[Session]] = field(default_factory=Hook)
    # A session that may be resumed has lost its connection, or its client does not acknowledge what it was sent.
    session_away: Hook[[Session]] = field(default_factory=Hook)
    session_ended: Hook[[Session]] = field(default_factory=Hook)
    # A client's available presence, before it is kept and goes out: what the server adds to it.
    presence_out: Hook[[Session, Stanza]] = field(default_factory=Hook)
    # A client's undirected presence, after it went out: available, or unavailable.
    presence_sent: Hook[[Session, Stanza]] = field(default_factory=Hook)
    # What a session asks to be notified of: the nodes that it had not asked for before (XEP-0163, section 4.2).
    interests: Hook[[Session, frozenset[str]]] = field(default_factory=Hook)
    # A contact may see an account's presence from now on (bare JIDs of the account and of the contact).
    contact_approved: Hook[[str, str]] = field(default_factory=Hook)
    # The account has stored its vCard; or an element in its private storage; or changed what a node of its own has.
    vcard_stored: AsyncHook[[User, Element]] = field(default_factory=AsyncHook)
    private_stored: AsyncHook[[User, Element]] = field(default_factory=AsyncHook)
    pep_changed: AsyncHook[[User, str]] = field(default_factory=AsyncHook)
    # An account (its username) was made, changed, disabled or deleted, on any worker.
    account_changed: Hook[[str]] = field(default_factory=Hook)
    # An account is gone (bare JID, username); its rows are erased already.
    account_deleted: Hook[[str]] = field(default_factory=Hook)


IqHandler = Callable[["IqContext"], "Awaitable[object] | object"]


@dataclass(slots=True)
class IqContext:
    """An iq of type get or set for the server to answer.

    ``account`` is the username whose bare JID it was addressed to, None for a host; ``own`` says that the sender
    asks about itself; ``payload`` is the one child (RFC 6120, section 8.2.3).
    """

    stanza: Stanza
    payload: object
    sender: JID
    to: JID
    session: Session | None
    account: str | None
    own: bool

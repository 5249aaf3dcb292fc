"""What a client sends reaches others once it is stored, and in the order in which it was sent.

Were a message handed out before its commit, a crash in between would let its client send it again: the recipient would
have it twice, once under an id that no archive knows (design, section 4). What causes no row, such as a typing
notification, waits for what was sent before it (RFC 6120, section 10.1).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError

if TYPE_CHECKING:
    from nestbox.core.session import Session
    from nestbox.store.committer import Committer
    from nestbox.wire.stanza import Stanza

__all__ = ["Deliveries"]


class Deliveries:
    """``bounce`` returns to its sender what could not be stored, where nobody will send it again."""

    def __init__(self, committer: Committer, bounce: Callable[[Stanza, StanzaError], None]) -> None:
        self._committer = committer
        self._bounce = bounce

    def when_stored(self, session: Session | None, batch: int, stanza: Stanza, deliver: Callable[[], None]) -> None:
        """Call ``deliver`` when ``batch`` (0: none) is durable, and what ``session`` sent before was delivered."""
        if session is not None:
            batch = session.behind = max(batch, session.behind)
        if batch <= self._committer.committed:
            deliver()
        else:
            self._committer.when(batch, partial(self._settled, session, batch, stanza, deliver))

    def _settled(
        self, session: Session | None, batch: int, stanza: Stanza, deliver: Callable[[], None], durable: bool
    ) -> None:
        if durable or not self._committer.gave_up(batch):
            deliver()
        elif session is None or session.sm is None:  # the others send it again, as nobody has acknowledged it
            self._bounce(stanza, StanzaError("internal-server-error", "The server could not store this."))

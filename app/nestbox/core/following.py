"""What is sent to a session that moves to another worker stays in order (RFC 6120, section 10.1).

What is on its way to the old place follows the session, and may come after what goes straight to the new one. So each
worker, when it hears of the move, sends a `Follow` by the way over the old place: behind it nothing more comes from
there. Until those of all workers have come, the session waits with what comes straight.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nestbox.core import registry as reg
from nestbox.core.session import MOVED

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.core.session import Session

__all__ = ["Following"]

FOLLOW_SECONDS = 1.0  # then stanzas are given as they come: a worker that has not said anything may be dead


class Following:
    """The sessions that have come to this worker, and those that have left it, as far as stanzas follow them."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._missing: dict[int, set[int]] = {}  # uid of one that has come -> workers that may use its old way
        server.registry.on(reg.Follow, self._follow)
        server.registry.left = self.left

    def come(self, session: Session) -> None:
        """A session has come from another worker, and the others are about to hear of it."""
        bus = self._server.bus
        missing = bus.workers() - {bus.worker}
        if missing:
            self._missing[session.entry.uid] = missing
            session.wait_for(MOVED)
            asyncio.get_running_loop().call_later(FOLLOW_SECONDS, self._done, session)

    def left(self, entry: reg.Entry, old: int) -> None:
        """We hear that a session has left worker ``old``: from now on we send straight to its new place."""
        registry = self._server.registry
        op = reg.Follow(entry.bare, entry.resource, entry.uid, registry.worker)
        registry.tell(entry.worker if old == registry.worker else old, op)

    def _follow(self, op: reg.Follow) -> None:
        registry = self._server.registry
        session = registry.sessions.get(f"{op.bare}/{op.resource}")
        if session is None:
            entry = registry.of(op.bare).get(op.resource)
            if entry is not None and entry.worker != registry.worker:
                registry.tell(entry.worker, op)
        elif session.entry.uid == op.uid and op.uid in self._missing:
            self._missing[op.uid].discard(op.worker)
            if not self._missing[op.uid]:
                self._done(session)

    def _done(self, session: Session) -> None:
        if self._missing.pop(session.entry.uid, None) is not None and not session.ended:
            session.caught_up(MOVED)

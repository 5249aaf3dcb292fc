"""Whether HAProxy may send clients to this worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from nestbox.http.page import Page

if TYPE_CHECKING:
    from nestbox.core.server import Server

__all__ = ["Health", "HealthHandler"]

_log = logging.getLogger("nestbox.health")

PING_EVERY = 5.0
PING_SECONDS = 5.0
# HAProxy ends the connections of a worker that fails, so a database that is only restarted must not make it fail:
# those who are connected go on chatting meanwhile, and what they send waits in memory.
STORE_GRACE = 30.0


class Health:
    """The state of a worker: its own, and that of its store, which is asked now and then. Times are in seconds."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._store_down_since: float | None = None

    async def watch_store(self) -> None:
        """Ask the store until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout(PING_SECONDS):  # wait_for may swallow a cancellation before Python 3.12
                    await self._server.store.ping()
            except Exception as error:
                if self._store_down_since is None:
                    self._store_down_since = loop.time()
                    _log.error("the database does not answer: %s", str(error) or type(error).__name__)
            else:
                if self._store_down_since is not None:
                    _log.info("the database answers again")
                self._store_down_since = None
            await asyncio.sleep(PING_EVERY)

    def problem(self) -> str | None:
        """Why no clients should come here, None when all is well."""
        if self._server.draining:
            return "draining"
        down = self._store_down_since
        if down is not None and asyncio.get_running_loop().time() - down > STORE_GRACE:
            return "database down"
        return None


class HealthHandler(Page):
    """GET /healthz: 200 when clients may come, else 503."""

    def initialize(self, worker: int, problem: Callable[[], str | None]) -> None:
        """Tornado's constructor."""
        self._worker = worker
        self._problem = problem

    def get(self) -> None:
        """Costs nothing: HAProxy asks every two seconds."""
        problem = self._problem()
        self.set_status(200 if problem is None else 503)
        self.finish({"status": problem or "ok", "worker": self._worker})

    head = get

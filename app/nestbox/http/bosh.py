"""POST /http-bind: the HTTP side of BOSH (XEP-0124)."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from tornado.web import stream_request_body

from nestbox import Xep
from nestbox.http.page import Page
from nestbox.net.bosh import Bosh
from nestbox.net.bosh_session import Answer
from nestbox.net.websocket import client_address, is_https, origin_allowed

__all__ = ["BoshHandler"]

XEPS = (Xep(124, "1.11.2"), Xep(206, "1.4"))

_HEAD = 4096  # bytes of a request in which its session must be named


@stream_request_body
class BoshHandler(Page):
    """One request of a session. ``origins`` are the pages of other hosts whose scripts may connect."""

    def initialize(self, bosh: Bosh, trusted: bool, origins: Collection[str]) -> None:
        """Tornado's constructor."""
        self._bosh = bosh
        self._trusted = trusted
        self._origins = origins
        self._body = bytearray()
        self._limit: int | None = None
        self._answer: asyncio.Future[Answer] | None = None

    def prepare(self) -> None:
        """Before the body comes: may this page ask, and how much may it send."""
        origin = self.request.headers.get("Origin")
        if not origin_allowed(self.request, self._origins):
            self.send_error(403)
            return
        if origin is not None:
            self.set_header("Access-Control-Allow-Origin", origin)
            self.set_header("Vary", "Origin")
        # More than we keep, so that one who sends too much is told in BOSH's own words.
        self.request.connection.set_max_body_size(4 * self._bosh.max_request)

    def data_received(self, chunk: bytes) -> None:
        """Keep as much as the session may send, and one byte more, which tells that it was too much."""
        body = self._body
        room = self._bosh.max_request if self._limit is None else self._limit + 1 - len(body)
        body += chunk[: max(room, 0)]
        if self._limit is None and (b">" in body or len(body) > _HEAD):
            self._limit = self._bosh.limit(bytes(body[:_HEAD]))
            del body[self._limit + 1 :]

    async def post(self) -> None:
        """Answer when there is something to say, or when the client asked to be answered."""
        request = self.request
        self._answer = self._bosh.request(
            bytes(self._body), client_address(request, self._trusted), is_https(request, self._trusted)
        )
        try:
            answer = await self._answer
        except asyncio.CancelledError:
            return  # the client has gone
        self.set_header("Content-Type", answer.content)
        self.finish(answer.data)

    def on_connection_close(self) -> None:
        """Tornado's hook: the client has closed the connection."""
        if self._answer is not None:
            self._answer.cancel()

    def options(self) -> None:
        """A browser asks before it lets a page of another host post XML (CORS)."""
        self.set_header("Access-Control-Allow-Methods", "POST, OPTIONS")
        self.set_header("Access-Control-Allow-Headers", "Content-Type")
        self.set_header("Access-Control-Max-Age", "7200")
        self.set_status(204)

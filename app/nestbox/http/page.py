"""What every answer over HTTP has in common."""

from __future__ import annotations

from http.client import responses
from typing import Any

from tornado.web import RequestHandler

__all__ = ["NotFoundHandler", "Page"]

_HEADERS = {
    "Server": "Nestbox",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Nothing but the web chat's own pages needs more (nestbox.http.webchat).
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class Page(RequestHandler):
    """A handler with safe headers and small error pages."""

    def set_default_headers(self) -> None:
        """Tornado's hook; also called for errors."""
        for name, value in _HEADERS.items():
            self.set_header(name, value)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """One line of text, without the reason inside."""
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code} {responses.get(status_code, 'Error')}\n")


class NotFoundHandler(Page):
    """Every path that is nobody's."""

    def prepare(self) -> None:
        """Refuse before the method is looked at."""
        self.send_error(404)

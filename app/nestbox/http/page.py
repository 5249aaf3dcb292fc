"""What every answer over HTTP has in common."""

from __future__ import annotations

import logging
from http.client import responses
from types import TracebackType
from typing import Any

from tornado.web import HTTPError, RequestHandler

__all__ = ["NotFoundHandler", "Page", "log_request"]

_log = logging.getLogger("nestbox.http")

_HEADERS = {
    "Server": "Nestbox",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    # Nothing but the web chat's own pages needs more (nestbox.http.webchat).
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class Page(RequestHandler):
    """A handler with safe headers and small error pages."""

    def set_default_headers(self) -> None:
        """Tornado's hook; also called for errors."""
        for name, value in _HEADERS.items():
            self.set_header(name, value)

    def log_exception(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tornado's hook: as it does, without the request, whose path may be a secret."""
        if not isinstance(error, HTTPError):
            _log.error("%s failed", _summary(self), exc_info=(kind, error, trace))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """One line of text, without the reason inside."""
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code} {responses.get(status_code, 'Error')}\n")


class NotFoundHandler(Page):
    """Every path that is nobody's."""

    def prepare(self) -> None:
        """Refuse before the method is looked at."""
        self.send_error(404)


def log_request(handler: RequestHandler) -> None:
    """Log what we could not answer. The rest of a path may be an invitation or the address of a file."""
    if handler.get_status() >= 500:
        _log.error("%s was answered with %d", _summary(handler), handler.get_status())


def _summary(handler: RequestHandler) -> str:
    method, path = handler.request.method, handler.request.path or ""
    section = path.split("/")[1] if path.count("/") > 1 else ""
    return f"{method} /{section}/..." if section in ("invite", "upload") else f"{method} {path[:200]!a}"

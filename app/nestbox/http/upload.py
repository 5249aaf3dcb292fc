"""Uploaded files over HTTP (XEP-0363, section 6): written once to the address of a slot, read by whoever knows it.

Bodies are streamed to and from the disk, so memory stays flat; what blocks for long runs in a thread. What people
upload comes from the same origin as the web chat, so no answer here can be a page, a style or a script of that origin.
"""

from __future__ import annotations

import asyncio
import logging
import time
from http.client import responses
from typing import TYPE_CHECKING
from urllib.parse import quote

from tornado.web import StaticFileHandler, stream_request_body

from nestbox.http.page import Page
from nestbox.store.errors import StoreError
from nestbox.store.upload_files import PUT_SECONDS, SLOT_SECONDS, Incoming, UploadFiles

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.store.uploads import Upload

__all__ = ["PATH", "UploadHandler"]

PATH = r"/upload/([A-Za-z0-9_-]{16,64})/([^/]+)"
DRAIN_SECONDS = 60  # for the body of a refused upload

_log = logging.getLogger("nestbox.upload")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; media-src 'self'; sandbox; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "cross-origin",
    # Web chats of other origins may put and get; there is nothing here that a browser knows and they do not.
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, HEAD, PUT, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-None-Match, Range",
    "Access-Control-Expose-Headers": "Accept-Ranges, Content-Disposition, Content-Length, Content-Range, ETag",
    "Access-Control-Max-Age": "7200",
}
# Shown in place; everything else is saved. A picture in SVG can hold scripts.
_SHOWN = frozenset(("image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "image/bmp", "image/heic"))
_SHOWN_KINDS = ("audio/", "video/")
# Told as the uploader said it; everything else is told as bytes, so that it cannot be a page, a style or a script.
_TOLD = frozenset(("application/pdf", "application/zip", "application/gzip", "text/plain", "text/csv", "image/svg+xml"))
_TOLD_KINDS = ("application/vnd.", "image/", "audio/", "video/", "font/")
_BYTES = "application/octet-stream"


@stream_request_body
class UploadHandler(Page, StaticFileHandler):
    """PUT, GET, HEAD and OPTIONS of one file."""

    def initialize(self, server: Server, files: UploadFiles) -> None:
        """Tornado's constructor."""
        super().initialize(str(files.folder))
        self._server = server
        self._files = files
        self._incoming: Incoming | None = None
        self._refused = 0

    def set_default_headers(self) -> None:
        """See Page."""
        super().set_default_headers()
        for name, value in _HEADERS.items():
            self.set_header(name, value)

    def options(self, token: str, name: str) -> None:
        """What a browser asks before a web chat may put a file here."""
        self.set_status(204)

    # putting

    async def prepare(self) -> None:
        """Look at the head of a PUT before its body is read; nobody else may send one."""
        if self.request.method != "PUT":
            return
        try:
            status = await self._begin(*self.path_args)
        except StoreError as error:
            _log.error("an upload could not begin: %s", error)
            status = 503
        except OSError as error:
            _log.error("an upload could not begin: %s", error)
            status = 507
        if status:
            self._refuse(status)

    async def _begin(self, token: str, name: str) -> int:
        """Open the file for a slot; the status to refuse with, 0 to go on."""
        upload = await self._server.store.uploads.get(token)
        if upload is None or upload.name != name:
            return 404
        if upload.stored is not None:
            return 409
        if time.time() > upload.created + SLOT_SECONDS:
            return 410
        length = self._length()
        if length is None:
            return 411
        if length != upload.size:
            return 413 if length > upload.size else 400
        if not self._type_matches(upload):
            return 415
        if self._files.free_bytes() - upload.size < self._server.config.uploads.min_free_bytes:
            self._server.counts.limits_hit["upload_free_bytes"] += 1
            return 507
        try:
            self._incoming = await asyncio.to_thread(self._files.begin, upload.user_id, token)
        except FileExistsError:
            return 409  # another upload to this slot is under way
        connection = self.request.connection
        connection.set_max_body_size(upload.size)
        connection.set_body_timeout(PUT_SECONDS)
        self._upload = upload
        return 0

    def _length(self) -> int | None:
        text = self.request.headers.get("Content-Length", "")
        chunked = "Transfer-Encoding" in self.request.headers
        return int(text) if not chunked and text.isascii() and text.isdigit() else None

    def _type_matches(self, upload: Upload) -> bool:
        """Section 6: a Content-Type, where both were told one, is the slot's."""
        given = self.request.headers.get("Content-Type", "")
        return not given or not upload.content_type or _essence(given) == _essence(upload.content_type)

    def _refuse(self, status: int) -> None:
        """Refuse once the body was read: a client whose connection is cut while it sends does not get to read why."""
        length, connection = self._length() or 0, self.request.connection
        most = self._server.config.uploads.max_bytes
        connection.set_max_body_size(max(length, most))
        connection.set_body_timeout(DRAIN_SECONDS)
        if length > most or "Expect" in self.request.headers:
            self.send_error(status)  # and the connection is closed
        else:
            self._refused = status

    async def data_received(self, chunk: bytes) -> None:
        """Write a piece; the next one is read when this one is written."""
        if self._incoming is None:
            return
        try:
            await asyncio.to_thread(self._incoming.write, chunk)
        except OSError as error:
            _log.error("an upload could not be written: %s", error)
            self._discard()
            self._refused = 507

    async def put(self, token: str, name: str) -> None:
        """The body is complete: make the file durable, then answer."""
        if self._incoming is None:
            self.send_error(self._refused)
            return
        try:
            await asyncio.to_thread(self._incoming.finish)
            stored = await self._server.store.uploads.complete(token, int(time.time()))
        except FileNotFoundError:
            stored = False
        except OSError as error:
            _log.error("an upload could not be made durable: %s", error)
            self.send_error(507)
            return
        if not stored:  # the account was deleted meanwhile
            self._files.remove(self._upload.user_id, token)
            self.send_error(404)
            return
        self._server.counts.uploads += 1
        self._server.counts.upload_bytes += self._upload.size
        self.set_status(201)

    def on_connection_close(self) -> None:
        """The client went away: what it sent of the body is discarded."""
        super().on_connection_close()
        self._discard()

    def on_finish(self) -> None:
        """Tornado's hook, after every answer: whatever went wrong, nothing half-written stays."""
        self._discard()

    def _discard(self) -> None:
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            self._server.spawn(asyncio.to_thread(incoming.discard))

    # getting

    async def get(self, token: str, name: str, include_body: bool = True) -> None:
        """The file, or a range of it."""
        upload = await self._server.store.uploads.get(token)
        if upload is None or upload.stored is None or upload.name != name:
            self.send_error(404)
            return
        self._upload = upload
        await super().get(f"{upload.user_id}/{token}", include_body)

    async def head(self, token: str, name: str) -> None:
        """As GET, without the body."""
        await self.get(token, name, include_body=False)

    def get_content_type(self) -> str:
        """Tornado's hook: what the uploader said, as far as that is harmless."""
        kind = _essence(self._upload.content_type)
        if kind in _TOLD or kind.startswith(_TOLD_KINDS):
            return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
        return _BYTES

    def set_extra_headers(self, path: str) -> None:
        """Tornado's hook: the name to save it under; a file never changes."""
        kind = _essence(self._upload.content_type)
        shown = kind in _SHOWN or kind.startswith(_SHOWN_KINDS) or kind == "text/plain"
        name = quote(self._upload.name, safe="")
        self.set_header("Content-Disposition", f"{'inline' if shown else 'attachment'}; filename*=UTF-8''{name}")
        self.set_header("Cache-Control", "private, max-age=31536000, immutable")

    def compute_etag(self) -> str | None:
        """Tornado's hook: the token, since nothing is ever written twice under it."""
        return f'"{self._upload.token}"' if self._status_code in (200, 206, 304) and self._has_upload() else None

    def _has_upload(self) -> bool:
        return getattr(self, "_upload", None) is not None

    def write_error(self, status_code: int, **kwargs: object) -> None:
        """See Page; nothing about a file that is not sent. A store that is away is told as such."""
        if isinstance(kwargs.get("exc_info", (None, None, None))[1], StoreError):
            status_code = 503
            self.set_status(status_code)
        self.set_header("Cache-Control", "no-store")
        self.clear_header("Content-Disposition")
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code} {responses.get(status_code, 'Error')}\n")


def _essence(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()

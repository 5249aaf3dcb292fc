"""The web chat: the files below ``web.root`` of the configuration, as they are."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime

from tornado.web import HTTPError, StaticFileHandler

from nestbox.http.page import Page

__all__ = ["WebChatHandler"]

# Converse.js sets styles inline, shows pictures from memory, and its OMEMO needs WebAssembly.
_POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HASHED = re.compile(r"[.-][0-9a-f]{8,64}\.\w+$")


class WebChatHandler(Page, StaticFileHandler):
    """GET / and below. Files that begin with a dot are not served; ``name.gz`` beside ``name`` is its compressed form.

    The root may be a link that an upgrade moves: nothing of a file is remembered.
    """

    def set_default_headers(self) -> None:
        """See Page."""
        super().set_default_headers()
        self.set_header("Content-Security-Policy", _POLICY)

    def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
        """Tornado's hook: refuse what is hidden, choose the compressed form."""
        parts = [part for part in os.path.relpath(absolute_path, root).split(os.sep) if part != "."]
        if "\0" in absolute_path or any(part.startswith(".") for part in parts):
            raise HTTPError(404)
        if parts and os.path.isdir(absolute_path):  # only the root has an index
            raise HTTPError(404)
        self._gzip = False
        path = super().validate_absolute_path(root, absolute_path)
        if path is None:  # redirected
            return None
        self._plain_path = path
        if os.path.isfile(path + ".gz"):
            self.set_header("Vary", "Accept-Encoding")
            self._gzip = "gzip" in self.request.headers.get("Accept-Encoding", "")
        path = path + ".gz" if self._gzip else path
        self._found = os.stat(path)
        return path

    def get_content_size(self) -> int:
        """Tornado's hook: bytes of the form that is sent."""
        return self._found.st_size

    def get_modified_time(self) -> datetime:
        """Tornado's hook."""
        return datetime.fromtimestamp(int(self._found.st_mtime), UTC)

    def get_content_type(self) -> str:
        """Of the file itself, compressed or not; text is UTF-8."""
        compressed, self.absolute_path = self.absolute_path, self._plain_path
        kind = super().get_content_type()
        self.absolute_path = compressed
        return f"{kind}; charset=utf-8" if kind.startswith("text/") or kind.endswith("javascript") else kind

    def set_extra_headers(self, path: str) -> None:
        """Names with a hash, and addresses with ``?v=``, never change; all else is asked for again each time."""
        if self._gzip:
            self.set_header("Content-Encoding", "gzip")
        lasting = _HASHED.search(path) or "v" in self.request.query_arguments
        self.set_header("Cache-Control", "public, max-age=31536000, immutable" if lasting else "no-cache")

    def should_return_304(self) -> bool:
        """By the ETag alone: packages carry times that do not change with their content."""
        return self.check_etag_header()

    def compute_etag(self) -> str | None:
        """Tornado hashes whole files and remembers the result by name, which an upgrade would outdate."""
        found = self._found
        return f'"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}"'

"""Slots for files (XEP-0363): ``upload.DOMAIN`` says where a client may put a file; the rest is HTTP.

The address of a slot has a random part of 144 bits. Whoever knows it may read the file, and may write it once.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from nestbox.core.errors import StanzaError
from nestbox.modules import Xep
from nestbox.modules.dataforms import Field, form
from nestbox.modules.disco import FEATURE, IDENTITY, INFO, ITEMS
from nestbox.store.errors import NoSuchAccount
from nestbox.store.upload_files import SLOT_SECONDS, UploadFiles
from nestbox.store.uploads import Quota, Upload, UploadRefused
from nestbox.wire import ns
from nestbox.wire.element import Element, el
from nestbox.wire.stanza import Stanza, iq_result

if TYPE_CHECKING:
    from nestbox.core.jid import JID
    from nestbox.core.server import Server
    from nestbox.core.session import Session

__all__ = ["XEPS", "setup"]

XEPS = (Xep(363, "1.1.0", "purposes of section 4 are taken and make no difference"),)
REQUEST = f"{{{ns.HTTP_UPLOAD}}}request"
NAME_BYTES = 255
TYPE_BYTES = 127
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f/]").search
RETRY_SECONDS = 3600  # when the disk is full, somebody must look after it first


class _Uploads:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._config = server.config.uploads
        self._files = UploadFiles(server.config.state_dir)
        config = self._config
        self._quota = Quota(
            config.user_quota_bytes,
            config.user_daily_bytes,
            server.config.limits.uploaded_files,
            config.days,
            SLOT_SECONDS,
        )

    def handle(self, sender: JID, to: JID, stanza: Stanza, session: Session | None) -> int | Awaitable[int]:
        """Any stanza to the host (a `HostHandler`)."""
        if stanza.kind == "presence" or stanza.type in ("error", "result"):
            return 0
        if stanza.kind == "message" or to.local or to.resource:
            raise StanzaError("service-unavailable")
        tag = stanza.payload.tag
        if stanza.type != "get":
            raise StanzaError("not-allowed" if tag == REQUEST else "service-unavailable")
        if tag == REQUEST:
            return self._slot(sender, stanza)
        if tag == INFO:
            payload = self._info(stanza.payload)
        elif tag == ITEMS and not stanza.payload.get("node"):
            payload = el(ITEMS)
        else:
            raise StanzaError("item-not-found" if tag == ITEMS else "service-unavailable")
        self._server.router.send(iq_result(stanza, payload))
        return 0

    def _info(self, query: Element) -> Element:
        if query.get("node"):
            raise StanzaError("item-not-found")
        name, most = f"Files of {self._server.config.name}", str(self._config.max_bytes)
        return el(
            INFO,
            None,
            el(IDENTITY, {"category": "store", "type": "file", "name": name}),
            *(el(FEATURE, {"var": feature}) for feature in (ns.DISCO_INFO, ns.DISCO_ITEMS, ns.HTTP_UPLOAD)),
            form(ns.HTTP_UPLOAD, [Field("text-single", "max-file-size", values=[most])], kind="result"),
        )

    async def _slot(self, sender: JID, stanza: Stanza) -> int:
        server = self._server
        local = sender.local if sender.domain == server.config.domain else ""
        user = await server.users.load(local) if local else None
        if user is None or not user.enabled:
            raise StanzaError("not-allowed", "Only accounts of this server may upload files.")
        upload = self._read(stanza.payload, user.id)
        free = self._files.free_bytes() - upload.size - self._config.min_free_bytes
        try:
            if free < 0:
                text, retry = "The server has no room for files.", upload.created + RETRY_SECONDS
                raise UploadRefused(text, retry, limit="upload_free_bytes")
            await server.store.uploads.reserve(upload, self._quota)
        except UploadRefused as error:
            retry = _retry(error.retry)
            raise StanzaError("resource-constraint", str(error), extra=retry, limit=error.limit) from None
        except NoSuchAccount:
            raise StanzaError("not-allowed") from None
        url = f"{server.config.https_url}/upload/{upload.token}/{quote(upload.name, safe='')}"
        slot = (el(f"{{{ns.HTTP_UPLOAD}}}{which}", {"url": url}) for which in ("put", "get"))
        server.router.send(iq_result(stanza, el(f"{{{ns.HTTP_UPLOAD}}}slot", None, *slot)))
        return 0

    def _read(self, request: Element, user_id: int) -> Upload:
        """The slot that is asked for. Raises StanzaError as section 5 has it."""
        name, size = request.get("filename", ""), request.get("size", "")
        kind = request.get("content-type", "")
        if not name or name in (".", "..") or _FORBIDDEN(name):
            raise StanzaError("bad-request", "A file needs a name, without slashes.")
        if len(name.encode()) > NAME_BYTES:
            raise StanzaError("bad-request", f"A name has at most {NAME_BYTES} bytes.", limit="upload_name_bytes")
        if not (size.isascii() and size.isdigit() and len(size) < 19):
            raise StanzaError("bad-request", "A file needs a size in bytes.")
        if not kind.isascii() or not kind.isprintable():
            raise StanzaError("bad-request", "That is no content type.")
        if len(kind) > TYPE_BYTES:
            text = f"A content type has at most {TYPE_BYTES} bytes."
            raise StanzaError("bad-request", text, limit="upload_type_bytes")
        if int(size) > self._config.max_bytes:
            most = el(f"{{{ns.HTTP_UPLOAD}}}max-file-size", text=str(self._config.max_bytes))
            too_large = el(f"{{{ns.HTTP_UPLOAD}}}file-too-large", None, most)
            text = f"A file has at most {self._config.max_bytes} bytes."
            raise StanzaError("not-acceptable", text, extra=too_large, limit="upload_bytes")
        return Upload(secrets.token_urlsafe(18), user_id, name, int(size), kind, int(time.time()))


def _retry(seconds: int | None) -> Element | None:
    if seconds is None:
        return None
    stamp = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return el(f"{{{ns.HTTP_UPLOAD}}}retry", {"stamp": stamp})


def setup(server: Server) -> None:
    """Serve the host of files."""
    if server.config.uploads.enabled:
        server.router.hosts[f"upload.{server.config.domain}"] = _Uploads(server).handle

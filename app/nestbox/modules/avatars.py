"""Pictures of people, the same whichever way a client looks (XEP-0398): PEP (XEP-0084), vCard and presence (XEP-0153).

What is published to an account's nodes goes into its vCard, the photo of a new vCard into the nodes; the picture is not
changed on the way. Its hash is kept with the account, so that it is at hand for each presence without asking the store.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING
from xml.etree.ElementTree import XML

from nestbox.core.errors import StanzaError
from nestbox.core.registry import Part
from nestbox.modules import Xep
from nestbox.modules.pubsub.publish import Publisher
from nestbox.modules.vcard import CARD_BYTES, VCARD
from nestbox.wire import ns
from nestbox.wire.element import Element, el, to_bytes
from nestbox.wire.stanza import Stanza, parse_stanza

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.core.session import Session
    from nestbox.core.users import User

__all__ = ["XEPS", "photo_hash", "setup"]

XEPS = (Xep(84, "1.1.4"), Xep(153, "1.1.1"), Xep(398, "1.0.0"))
FEATURE = "urn:xmpp:pep-vcard-conversion:0"
DATA = f"{{{ns.AVATAR_DATA}}}data"
METADATA = f"{{{ns.AVATAR_METADATA}}}metadata"
INFO = f"{{{ns.AVATAR_METADATA}}}info"
PHOTO = f"{{{ns.VCARD}}}PHOTO"
TYPE = f"{{{ns.VCARD}}}TYPE"
BINVAL = f"{{{ns.VCARD}}}BINVAL"
UPDATE = f"{{{ns.VCARD_UPDATE}}}x"
UPDATE_PHOTO = f"{{{ns.VCARD_UPDATE}}}photo"
PART = "avatars"


class _Avatars:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._store = server.store
        self._publisher = Publisher(server)

    # from PEP to the vCard (XEP-0398, section 3.1)

    async def published(self, user: User, node: str) -> None:
        """An account has changed one of its nodes."""
        if node not in (ns.AVATAR_DATA, ns.AVATAR_METADATA):
            return
        page = await self._publisher.own_items(user, ns.AVATAR_METADATA, 1, 0)
        metadata = page.items if page is not None else []
        infos = list(XML(metadata[0].payload).iterfind(INFO)) if metadata else []
        if not infos:
            if user.photo and node == ns.AVATAR_METADATA:
                await self._into_vcard(user, "", None)
            return
        info = next((each for each in infos if each.get("url") is None), None)
        sha1 = info.get("id", "") if info is not None else ""
        if sha1 in ("", user.photo):
            return
        data = await self._publisher.own_item(user, ns.AVATAR_DATA, sha1)
        picture = _decode(XML(data.payload).text) if data is not None else None
        if picture is not None and hashlib.sha1(picture, usedforsecurity=False).hexdigest() == sha1:
            photo = el(PHOTO, None, el(TYPE, text=info.get("type", "")), el(BINVAL, text=_encode(picture)))
            await self._into_vcard(user, sha1, photo)

    async def _into_vcard(self, user: User, sha1: str, photo: Element | None) -> None:
        stored = await self._store.vcards.get(user.id)
        vcard = el(VCARD) if stored is None else XML(stored)
        for old in vcard.findall(PHOTO):
            vcard.remove(old)
        if photo is not None:
            vcard.append(photo)
        data = to_bytes(vcard)
        if len(data) <= CARD_BYTES:  # else the picture is for clients that look into the nodes
            await self._store.vcards.put(user.id, data)
            await self._changed(user, sha1)

    # from the vCard to PEP (section 3.2)

    async def stored(self, user: User, vcard: Element) -> None:
        """An account has stored its vCard."""
        picture, sha1 = _picture(vcard), photo_hash(vcard)
        if sha1 == user.photo:
            return
        metadata = el(METADATA)
        if picture is not None:
            data = el(DATA, text=_encode(picture))
            await self._publisher.put_own(user, ns.AVATAR_DATA, sha1, data, {})
            kind = vcard.findtext(f"{PHOTO}/{TYPE}") or "image/png"
            metadata.append(el(INFO, {"bytes": str(len(picture)), "id": sha1, "type": kind}))
        await self._publisher.put_own(user, ns.AVATAR_METADATA, sha1 or "none", metadata, {})
        await self._changed(user, sha1)

    # in presence (section 4; XEP-0153, section 3)

    async def _changed(self, user: User, sha1: str) -> None:
        await self._store.accounts.set_photo(user.id, sha1)
        user.photo = sha1
        registry = self._server.registry
        registry.tell_all(Part(PART, registry.worker, user.username.encode()))

    def told(self, worker: int, data: bytes) -> None:
        """An account has another picture: its sessions here send their presence again."""
        self._server.spawn(self._renew(data.decode()))

    async def _renew(self, username: str) -> None:
        await self._server.users.changed(username)
        bare = f"{username}@{self._server.config.domain}"
        registry = self._server.registry
        for entry in list(registry.of(bare).values()):
            session = registry.sessions.get(entry.jid)
            if session is None or session.presence is None:
                continue
            stanza = parse_stanza(session.presence)
            if session.user.photo or not _opted_out(stanza):
                await self._send_again(session, stanza)

    async def _send_again(self, session: Session, stanza: Stanza) -> None:
        before = _without_update(stanza).encode()
        if not session.user.photo:
            stanza.append(el(UPDATE, None, el(UPDATE_PHOTO)))
        with suppress(StanzaError):  # with the hash it may be too long
            outcome = self._server.router.presence(session, stanza, None)
            if not isinstance(outcome, int):
                await outcome
        if not session.user.photo and session.presence is not None:
            session.presence = before  # the client did not say that it wants no picture

    def add_hash(self, session: Session, stanza: Stanza) -> None:
        """Put the hash of the account's picture into an available presence, unless it says that there is none."""
        photo = session.user.photo
        update = stanza.find(UPDATE)
        if _opted_out(stanza) or (update is None and not photo):
            return
        if not photo and update is not None and update.findtext(UPDATE_PHOTO):
            return
        _without_update(stanza).append(el(UPDATE, None, el(UPDATE_PHOTO, text=photo or None)))


def photo_hash(vcard: Element) -> str:
    """The SHA-1 of the picture in a vCard in hex, '' for none."""
    picture = _picture(vcard)
    return "" if picture is None else hashlib.sha1(picture, usedforsecurity=False).hexdigest()


def _picture(vcard: Element) -> bytes | None:
    return _decode(vcard.findtext(f"{PHOTO}/{BINVAL}"))


def _opted_out(stanza: Stanza) -> bool:
    """Whether a presence says that its client shows no picture."""
    update = stanza.find(UPDATE)
    photo = None if update is None else update.find(UPDATE_PHOTO)
    return photo is not None and not (photo.text or "").strip()


def _without_update(stanza: Stanza) -> Stanza:
    for update in stanza.element.findall(UPDATE):
        stanza.remove(update)
    return stanza


def _decode(text: str | None) -> bytes | None:
    """A picture in base64, which may have white space; None when it is none."""
    try:
        return base64.b64decode("".join((text or "").split()), validate=True) or None
    except (binascii.Error, ValueError):
        return None


def _encode(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def setup(server: Server) -> None:
    """Keep nodes, vCard and presence in step."""
    avatars = _Avatars(server)
    server.hooks.pep_changed.add(avatars.published)
    server.hooks.vcard_stored.add(avatars.stored)
    server.hooks.presence_out.add(avatars.add_hash)
    server.registry.part(PART, avatars.told)
    server.account_features.add(FEATURE)

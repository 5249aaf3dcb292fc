"""The room's vCard with its picture (XEP-0486, XEP-0153): owners set it, everybody who knows the room may read it."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING
from xml.etree.ElementTree import XML

import msgspec

from nestbox.core.errors import StanzaError
from nestbox.modules.muc.stanzas import presence
from nestbox.modules.vcard import CARD_BYTES
from nestbox.wire import ns
from nestbox.wire.element import Element, to_bytes

if TYPE_CHECKING:
    from nestbox.core.jid import JID
    from nestbox.modules.muc.room import Room

__all__ = ["avatar_presence", "get_vcard", "set_vcard"]

_PHOTO = f"{{{ns.VCARD}}}PHOTO/{{{ns.VCARD}}}BINVAL"
MAX_PICTURES = 4


def avatar_presence(room: Room) -> bytes:
    """The presence of the room itself, which says that it has a picture (XEP-0486, section 6.2)."""
    photo = f"<photo>{room.config.avatar[0] if room.config.avatar else ''}</photo>"
    return presence(room.address, f'<x xmlns="{ns.VCARD_UPDATE}">{photo}</x>'.encode())


async def get_vcard(room: Room, sender: JID) -> Element:
    """The room's vCard. Raises StanzaError item-not-found where there is none."""
    if room.affiliation(sender) == "outcast":
        raise StanzaError("forbidden", "You are banned from this room.")
    data = await room.server.store.rooms.vcard(room.id)
    if data is None:
        raise StanzaError("item-not-found", "The room has no vCard.")
    return XML(data)


async def set_vcard(room: Room, sender: JID, card: Element) -> None:
    """Replace the vCard; an empty one has no picture. Raises StanzaError."""
    room.require(sender, "owner")
    data = to_bytes(card)
    if len(data) > CARD_BYTES:
        text = f"A vCard has at most {CARD_BYTES} bytes; use a smaller picture."
        raise StanzaError("policy-violation", text, limit="room_vcard_bytes")
    try:
        pictures = [
            base64.b64decode("".join((each.text or "").split()), validate=True) for each in card.iterfind(_PHOTO)
        ]
    except binascii.Error:
        raise StanzaError("bad-request", "A picture is in base64.") from None
    hashes = [
        hashlib.sha1(picture, usedforsecurity=False).hexdigest() for picture in pictures[:MAX_PICTURES] if picture
    ]
    config = msgspec.structs.replace(room.config, avatar=hashes)
    await room.server.store.rooms.set_vcard(room.id, msgspec.json.encode(config), data)
    room.config = config
    room.tell_all((104,))
    room.send(room.seats.values(), avatar_presence(room))

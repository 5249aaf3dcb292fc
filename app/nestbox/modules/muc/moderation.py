"""Taking messages back: one's own (XEP-0424) or, by moderators, anybody's (XEP-0425); a tombstone stays."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

from nestbox.core.delay import timestamp
from nestbox.core.errors import StanzaError
from nestbox.modules.muc import messages
from nestbox.modules.muc.history import without_jid
from nestbox.modules.muc.room import OCCUPANT_ID
from nestbox.wire import ns
from nestbox.wire.element import Element, el
from nestbox.wire.stanza import MESSAGE, STANZA_ID, Stanza, parse_stanza

if TYPE_CHECKING:
    from nestbox.core.jid import JID
    from nestbox.modules.muc.occupants import Occupant
    from nestbox.modules.muc.room import Room
    from nestbox.store.archive import ArchiveRow

__all__ = ["MODERATE", "RETRACT", "moderate", "retract_own"]

MODERATE = f"{{{ns.MODERATE}}}moderate"
MODERATED = f"{{{ns.MODERATE}}}moderated"
RETRACT = f"{{{ns.RETRACT}}}retract"
RETRACTED = f"{{{ns.RETRACT}}}retracted"
REASON_BYTES = 1024
_REASON = f"{{{ns.MODERATE}}}reason"
_KEPT = frozenset((OCCUPANT_ID, STANZA_ID, f"{{{ns.STANZA_ID}}}origin-id", f"{{{ns.MUC_USER}}}x"))


async def retract_own(room: Room, occupant: Occupant, stanza: Stanza, sender: JID) -> int:
    """Somebody takes a message of his own back. Raises StanzaError forbidden for somebody else's."""
    row = await _row(room, stanza.find(RETRACT).get("id", ""))
    if row is not None:
        found = parse_stanza(row.stanza).find(OCCUPANT_ID)
        if found is None or found.get("id") != occupant.id_element.get("id"):
            raise StanzaError("forbidden", "That is somebody else's message.")
    batch = messages.publish(room, stanza, occupant.jid, sender.bare)
    if row is not None:
        await _bury(room, row, stanza.id, [])
    return batch


async def moderate(room: Room, sender: JID, request: Element) -> None:
    """A moderator takes a message back. Raises StanzaError: forbidden, item-not-found, bad-request."""
    occupant = room.occupant(sender)
    if occupant.role != "moderator":
        raise StanzaError("forbidden", "Only moderators take others' messages back.")
    if request.find(RETRACT) is None:
        raise StanzaError("feature-not-implemented", "Messages can be retracted, nothing else.")
    message_id = request.get("id", "")
    row = await _row(room, message_id)
    if row is None:
        raise StanzaError("item-not-found", "No message of this room has that id.")
    about = [el(MODERATED, {"by": occupant.jid}, occupant.id_element)]
    reason = request.findtext(_REASON)
    if reason:
        if len(reason.encode()) > REASON_BYTES:
            raise StanzaError(
                "policy-violation", f"A reason has at most {REASON_BYTES} bytes.", limit="room_reason_bytes"
            )
        about.append(el(f"{{{ns.RETRACT}}}reason", text=reason))
    retraction_id = secrets.token_urlsafe(12)
    attributes = {"from": room.address, "type": "groupchat", "id": retraction_id}
    retract = el(RETRACT, {"id": message_id}, *about)
    messages.publish(room, Stanza(el(MESSAGE, attributes, retract)), room.address, None)
    await _bury(room, row, retraction_id, about)
    await room.server.store.committer.flush()


async def _row(room: Room, message_id: str) -> ArchiveRow | None:
    if not (message_id.isascii() and message_id.isdigit()) or len(message_id) > 19 or int(message_id) >= 1 << 63:
        return None
    await room.server.store.committer.flush()
    page = await room.server.store.archive.query(room.archive_owner, ids=[int(message_id)], limit=1)
    return page.rows[0] if page.rows else None


async def _bury(room: Room, row: ArchiveRow, retraction_id: str | None, about: list[Element]) -> None:
    """Leave of a message only who sent it and when it was taken back."""
    stanza = parse_stanza(row.stanza)
    stamp = timestamp(int(time.time() * 1000))
    attributes = {"stamp": stamp} if retraction_id is None else {"stamp": stamp, "id": retraction_id}
    real = row.stanza[len(without_jid(row.stanza)) - len(b"</message>") :]
    kept = [child for child in stanza.element if child.tag in _KEPT and child.tag != f"{{{ns.MUC_USER}}}x"]
    tombstone = Stanza(el(MESSAGE, dict(stanza.element.attrib), *kept, el(RETRACTED, attributes, *about)))
    data = tombstone.encode()
    if real != b"</message>":
        data = data.removesuffix(b"</message>") + real
    await room.server.store.archive.replace(room.archive_owner, row.id, data)
    room.history.forget(row.id)

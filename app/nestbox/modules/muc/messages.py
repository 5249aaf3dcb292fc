"""Messages to everybody, the subject, private messages (XEP-0045, sections 7.4, 7.5 and 8.1).

A message is archived before anybody gets it, under the id that all see as its ``<stanza-id/>``; the sender's
acknowledgement waits for the commit. The row has the sender's real address at its end, for those who may see it.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from nestbox.core.delay import DELAY, delayed
from nestbox.core.errors import StanzaError
from nestbox.core.jid import JID, parse_jid
from nestbox.modules.content import archivable
from nestbox.modules.muc import moderation, requests
from nestbox.modules.muc.history import is_subject, worth_showing
from nestbox.modules.muc.presence import remove
from nestbox.modules.muc.room import OCCUPANT_ID
from nestbox.modules.muc.stanzas import USER_X, item, user_x
from nestbox.modules.stanza_ids import stanza_id_bytes
from nestbox.store.errors import StoreBusy
from nestbox.wire import ns
from nestbox.wire.element import Element
from nestbox.wire.stanza import STANZA_ID, Stanza

if TYPE_CHECKING:
    from nestbox.modules.muc.occupants import Occupant
    from nestbox.modules.muc.room import Room

__all__ = ["handle", "publish"]

SUBJECT_BYTES = 4 * 1024
_FORGED = frozenset((USER_X, OCCUPANT_ID, f"{{{ns.HATS}}}hats"))
_MAYBE_FORGED = frozenset((STANZA_ID, DELAY))
_END = b"</message>"
# Errors of a client that say that it will not be there for the next stanza either (section 18.4).
_FATAL = (
    "gone",
    "internal-server-error",
    "item-not-found",
    "jid-malformed",
    "recipient-unavailable",
    "redirect",
    "remote-server-not-found",
    "remote-server-timeout",
    "service-unavailable",
)


def handle(room: Room, sender: JID, to: JID, stanza: Stanza, client: bool) -> int | Awaitable[int]:
    """A message for the room or a nick in it. Raises StanzaError."""
    kind = stanza.type
    if kind == "error":
        return _error(room, sender, to, stanza, client)
    room.check_exists(sender)
    if to.resource:
        return _private(room, sender, to, stanza)
    if kind == "groupchat":
        return _groupchat(room, sender, stanza)
    return requests.handle(room, sender, stanza)


def _error(room: Room, sender: JID, to: JID, stanza: Stanza, client: bool) -> int:
    seat = room.seats.get(str(sender))
    if seat is None:
        return 0
    error = f"{{{ns.CLIENT}}}error/{{{ns.STANZA_ERRORS}}}"
    own = client or not seat.uid  # what our own server sends back for a session is no news of it
    if own and any(stanza.find(error + name) is not None for name in _FATAL):
        remove(room, seat.occupant, (333,))
    other = room.occupants.get(to.resource)
    if other is not None:  # a private message came back
        back = _from(room, seat.occupant, stanza, "error")
        room.send(other.seats.values(), back.encode(), True, seat.occupant.jid)
    return 0


def _from(room: Room, occupant: Occupant, stanza: Stanza, kind: str | None) -> Stanza:
    """A message as its receivers get it, without ``to`` and without what only the room may say."""
    copy = stanza.copy()
    attributes = copy.element.attrib
    attributes["from"] = occupant.jid
    attributes.pop("to", None)
    if kind is not None:
        attributes["type"] = kind
    for child in stanza.element:
        tag = child.tag
        if tag in _FORGED or (tag in _MAYBE_FORGED and _is_ours(room, child)):
            copy.remove(child)
    copy.append_bytes(occupant.id_element, occupant.id_bytes)
    return copy


def _is_ours(room: Room, child: Element) -> bool:
    """Whether an element claims to come from the room or an account of ours (XEP-0359, section 5; XEP-0203)."""
    try:
        by = parse_jid(child.get("by") or child.get("from") or "")
    except ValueError:
        return True
    return by.bare == room.address or by.domain == room.server.config.domain


# to everybody


def _groupchat(room: Room, sender: JID, stanza: Stanza) -> int | Awaitable[int]:
    occupant = room.occupant(sender)
    if is_subject(stanza.element):
        return _subject(room, occupant, stanza)
    if occupant.role == "visitor":
        raise StanzaError("forbidden", "Visitors may not send messages to everybody.")
    if stanza.has(moderation.RETRACT):
        return moderation.retract_own(room, occupant, _from(room, occupant, stanza, "groupchat"), sender)
    return publish(room, _from(room, occupant, stanza, "groupchat"), occupant.jid, sender.bare)


def publish(room: Room, stanza: Stanza, sender: str, real: str | None) -> int:
    """Archive a message and send it to everybody; its batch. Raises StanzaError.

    ``sender`` is an address of the room; ``real`` the bare JID behind it, None for the room's own messages.
    """
    server = room.server
    element = stanza.element
    if not archivable(element):
        room.send(room.seats.values(), stanza.encode(), server.router.urgent(stanza), sender)
        return 0
    message_id = server.ids.next()
    child = Element(STANZA_ID, {"by": room.address, "id": str(message_id)})
    stanza.append_bytes(child, stanza_id_bytes(room.address, message_id))
    data = stanza.encode()
    batch = 0
    if room.archived:
        try:
            row = data if real is None else data[: -len(_END)] + _real(room, real) + _END
            batch = server.store.committer.archive(room.archive_owner, message_id, sender, row)
        except StoreBusy:
            raise StanzaError("resource-constraint", "The server cannot store messages now; try again.") from None
    if worth_showing(element):
        room.history.add(message_id, data)
    room.send(room.seats.values(), data, server.router.urgent(stanza), sender)
    return batch


def _real(room: Room, bare: str) -> bytes:
    return user_x(item(room.affiliation(bare), jid=bare))


async def _subject(room: Room, occupant: Occupant, stanza: Stanza) -> int:
    allowed = ("moderator", "participant") if room.config.change_subject else ("moderator",)
    if occupant.role not in allowed:
        raise StanzaError("forbidden", "You may not change the subject.")
    told = _from(room, occupant, stanza, "groupchat")
    data = told.encode()
    if len(data) > SUBJECT_BYTES:
        text = f"A subject has at most {SUBJECT_BYTES} bytes."
        raise StanzaError("policy-violation", text, limit="room_subject_bytes")
    stamp = room.server.ids.next() >> 16
    subject = delayed(data, room.address, stamp)
    await room.server.store.rooms.set_subject(room.id, subject)
    room.subject = subject
    return publish(room, told, occupant.jid, occupant.bare)


# to one


def _private(room: Room, sender: JID, to: JID, stanza: Stanza) -> int | Awaitable[int]:
    occupant = room.occupant(sender)
    if stanza.type == "groupchat":
        raise StanzaError("bad-request", "A message to one occupant is not of type groupchat.")
    other = room.named(to.resource)
    config = room.config
    allowed = {
        "anyone": ("visitor", "participant", "moderator"),
        "participants": ("participant", "moderator"),
        "moderators": ("moderator",),
        "none": (),
    }[config.allow_pm]
    if occupant.role not in allowed:
        raise StanzaError("forbidden", "You may not send private messages here.")
    private = _from(room, occupant, stanza, None)
    private.append(Element(USER_X))
    # The first session's way is that of every message, with block list and archive; the others get a copy.
    seats = [seat for seat in reversed(other.seats.values()) if not seat.away_since]
    if not seats:
        raise StanzaError("recipient-unavailable", "That one's connection is interrupted; try again.")
    first, *others = seats
    if others:
        room.send(others, private.encode(), True, occupant.jid)
    private.element.set("to", first.full)
    return room.server.router.route(parse_jid(occupant.jid), parse_jid(first.full), private)

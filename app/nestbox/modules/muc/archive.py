"""The archive of a room (XEP-0313), for those who may enter it; real addresses for those who may see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.core.jid import JID
from nestbox.modules.archive_pages import ends, fetch, results
from nestbox.modules.archive_query import parse_query
from nestbox.modules.muc.history import without_jid
from nestbox.modules.muc.privileges import rank
from nestbox.store.archive import ArchiveRow
from nestbox.wire.element import Element, escape_attribute
from nestbox.wire.stanza import parse_stanza

if TYPE_CHECKING:
    from nestbox.modules.muc.room import Room

__all__ = ["check_access", "metadata", "query"]


def check_access(room: Room, sender: JID) -> None:
    """Raise StanzaError forbidden for one who may not enter; a password is known to occupants and members only."""
    room.check_exists(sender)
    if not room.archived:
        raise StanzaError("service-unavailable", "This room keeps no archive.")
    inside = any(occupant.bare == sender.bare for occupant in room.occupants.values())
    stranger = not inside and room.affiliation(sender) == "none"
    if not room.may_enter(sender) or (room.config.password and stranger):
        raise StanzaError("forbidden", "You may not read this room's archive.")


async def query(room: Room, sender: JID, payload: Element) -> Element:
    """Send a page of the archive and answer with the ``<fin/>``. Raises StanzaError."""
    check_access(room, sender)
    asked = parse_query(payload, occupants=True)
    rows, fin = await fetch(room.server, room.archive_owner, asked)
    seat = room.seats.get(str(sender))
    is_moderator = seat is not None and seat.occupant.role == "moderator"
    if room.config.anonymous and not is_moderator and rank(room.affiliation(sender)) < rank("admin"):
        own = f' jid="{escape_attribute(sender.bare)}"/></x></message>'.encode()  # one's own address is no secret
        rows = [row if row.stanza.endswith(own) else ArchiveRow(row.id, without_jid(row.stanza)) for row in rows]
    registry = room.server.registry
    entry = registry.of(sender.bare).get(sender.resource)
    for data in results(asked, rows, room.address, str(sender)):
        if entry is not None:
            registry.deliver(entry, data)
        elif sender.domain != room.server.config.domain:
            room.server.router.send(parse_stanza(data))
    return fin


async def metadata(room: Room, sender: JID) -> Element:
    """The ends of the archive. Raises StanzaError."""
    check_access(room, sender)
    return await ends(room.server, room.archive_owner)

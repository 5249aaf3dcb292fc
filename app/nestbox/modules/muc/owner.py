"""Configuring and destroying a room (muc#owner; XEP-0045, sections 10.1, 10.2 and 10.9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from nestbox.core.errors import StanzaError
from nestbox.core.jid import JID, parse_jid
from nestbox.modules import dataforms
from nestbox.modules.muc import affiliations
from nestbox.modules.muc.admin import change_role
from nestbox.modules.muc.config import ROOM_CONFIG, RoomConfig, config_form, read_config, read_jids
from nestbox.modules.muc.presence import left_empty, remove
from nestbox.store.rooms import Affiliate
from nestbox.wire import ns
from nestbox.wire.element import Element, el, escape, escape_attribute

if TYPE_CHECKING:
    from nestbox.modules.muc.room import Room

__all__ = ["QUERY", "get_form", "set_form"]

QUERY = f"{{{ns.MUC_OWNER}}}query"
DESTROY = f"{{{ns.MUC_OWNER}}}destroy"
REASON_BYTES = 1024


def get_form(room: Room, sender: JID) -> Element:
    """The configuration form. Raises StanzaError forbidden for all but owners."""
    room.require(sender, "owner")
    form = config_form(room.config, room.jids("owner"), room.jids("admin"), room.server.config.limits)
    return el(QUERY, None, form)


async def set_form(room: Room, sender: JID, query: Element) -> None:
    """Configure or destroy the room. Raises StanzaError."""
    room.require(sender, "owner")
    destroy, form = query.find(DESTROY), query.find(dataforms.FORM)
    if destroy is not None:
        await _destroy(room, destroy)
    elif form is None:
        raise StanzaError("bad-request", "There is no form.")
    elif form.get("type") == "cancel":
        if room.config.locked:  # section 10.1.3: a room that was never set up goes
            await _end(room, "<destroy/>")
    else:
        # An empty form takes the room as it is: an instant room (section 10.1.2).
        await _configure(room, sender, dataforms.submitted(form, ROOM_CONFIG, must_say=False) if len(form) else {})


async def _configure(room: Room, sender: JID, values: dict[str, list[str]]) -> None:
    old = room.config
    new = read_config(old, values, room.server.config.limits)
    new.locked = False
    changes = _people(room, values)
    if changes:
        affiliations.check(room, sender.bare, changes)
    await room.server.store.rooms.set_config(room.id, msgspec.json.encode(new), listed=new.listed)
    room.config = new
    for occupant in room.occupants.values():
        occupant.told.clear()
    if changes:
        seat = room.seats.get(str(sender))
        await affiliations.change(room, changes, seat.occupant.nick if seat is not None else None, 322)
    if new.members_only:
        for occupant in list(room.occupants.values()):
            if room.affiliation(occupant.bare) == "none":
                remove(room, occupant, (322,))
    if old.moderated and not new.moderated:  # everybody may talk now (section 4.2)
        for occupant in list(room.occupants.values()):
            if occupant.role == "visitor":
                change_role(room, occupant, "participant", None, None)
    codes = _codes(room, old, new)
    if codes:
        room.tell_all(codes)
    if not room.seats:
        left_empty(room)


def _codes(room: Room, old: RoomConfig, new: RoomConfig) -> list[int]:
    """The status codes of a change (section 10.2.1)."""
    codes = []
    if old.logging != new.logging and room.server.config.archive.enabled:
        codes.append(170 if new.logging else 171)
    if old.whois != new.whois:
        codes.append(173 if new.anonymous else 172)
    same = {"logging": new.logging, "whois": new.whois, "locked": new.locked}
    if msgspec.structs.replace(old, **same) != new:
        codes.append(104)
    return codes


def _people(room: Room, values: dict[str, list[str]]) -> list[Affiliate]:
    """The changes that the form's lists of owners and admins mean."""
    wanted: dict[str, str] = {}
    for field, affiliation in (("roomadmins", "admin"), ("roomowners", "owner")):
        given = values.get(f"muc#roomconfig_{field}")
        if given is None:
            continue
        for jid in room.jids(affiliation):
            wanted.setdefault(jid, "none")
        wanted.update((jid.bare, affiliation) for jid in read_jids(given))
    return [Affiliate(jid, each) for jid, each in wanted.items() if room.affiliation(jid) != each]


async def _destroy(room: Room, destroy: Element) -> None:
    inner = ""
    for name in ("reason", "password"):
        text = destroy.findtext(f"{{{ns.MUC_OWNER}}}{name}")
        if text:
            if len(text.encode()) > REASON_BYTES:
                raise StanzaError(
                    "policy-violation", f"A {name} has at most {REASON_BYTES} bytes.", limit="room_reason_bytes"
                )
            inner += f"<{name}>{escape(text)}</{name}>"
    try:
        other = destroy.get("jid")
        attribute = f' jid="{escape_attribute(str(parse_jid(other)))}"' if other else ""
    except ValueError as error:
        raise StanzaError("jid-malformed", str(error)) from None
    await _end(room, f"<destroy{attribute}>{inner}</destroy>" if inner else f"<destroy{attribute}/>")


async def _end(room: Room, extra: str) -> None:
    """Everybody leaves, and the room with all it kept is gone."""
    occupants = list(room.occupants.values())
    for occupant in occupants:
        seats = list(occupant.seats.values())
        for seat in seats:
            room.remove(seat)
        room.show_gone(occupant, seats, to_others=False, extra=extra, affiliation="none")
    await room.service.erase(room)

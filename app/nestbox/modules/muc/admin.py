"""Lists of affiliations and roles, read and changed by moderators, admins and owners (muc#admin; XEP-0045, 8 to 10)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.core.jid import JID, parse_jid, prepare_resource
from nestbox.modules.muc import affiliations
from nestbox.modules.muc.presence import remove, show_addresses
from nestbox.modules.muc.privileges import AFFILIATIONS, ROLES, check_role, rank
from nestbox.store.rooms import Affiliate
from nestbox.wire import ns
from nestbox.wire.element import Element, el

if TYPE_CHECKING:
    from nestbox.modules.muc.occupants import Occupant
    from nestbox.modules.muc.room import Room

__all__ = ["QUERY", "change_lists", "change_role", "read_list"]

QUERY = f"{{{ns.MUC_ADMIN}}}query"
ITEM = f"{{{ns.MUC_ADMIN}}}item"
REASON_BYTES = 1024
MAX_ITEMS = 500
_REASON = f"{{{ns.MUC_ADMIN}}}reason"


def read_list(room: Room, sender: JID, query: Element) -> Element:
    """The list that is asked for. Raises StanzaError: forbidden, bad-request."""
    room.check_exists(sender)
    request = query.find(ITEM)
    if request is None:
        raise StanzaError("bad-request", "Which list?")
    affiliation, role = request.get("affiliation"), request.get("role")
    seat = room.seats.get(str(sender))
    mine = rank(room.affiliation(sender))
    my_role = seat.occupant.role if seat is not None else "none"
    answer = el(QUERY)
    if affiliation in AFFILIATIONS and role is None:
        if affiliation in ("owner", "admin") and room.config.anonymous and mine < rank("owner"):
            raise StanzaError("forbidden", "Only owners see this list.")  # sections 10.5 and 10.8
        if mine < rank("admin"):
            _check_may_read(room, affiliation, mine, my_role)
        for each in room.affiliates.values():
            if each.affiliation == affiliation:
                answer.append(_affiliate(room, each))
    elif role in ROLES and affiliation is None:
        if my_role != "moderator" and mine < rank("admin"):
            raise StanzaError("forbidden", "Only moderators see who has which role.")
        for occupant in room.occupants.values():
            if occupant.role == role:
                attributes = {"affiliation": room.affiliation(occupant.bare), "role": role, "nick": occupant.nick}
                answer.append(el(ITEM, {**attributes, "jid": occupant.first.full}))
    else:
        raise StanzaError("bad-request", "A list is of one affiliation or one role.")
    return answer


def _check_may_read(room: Room, affiliation: str, mine: int, role: str) -> None:
    """Whoever sees everybody's address anyway may see the lists, as far as the room's owner lets his role."""
    would_be = "participant" if role == "none" and mine > rank("none") else role  # a member who is outside
    sees = not room.config.anonymous and would_be in room.config.member_list
    if affiliation in ("outcast", "none") or not (sees or role == "moderator"):
        raise StanzaError("forbidden", "You may not see this list.")


def _affiliate(room: Room, affiliate: Affiliate) -> Element:
    item = el(ITEM, {"affiliation": affiliate.affiliation, "jid": affiliate.jid})
    occupant = next((each for each in room.occupants.values() if each.bare == affiliate.jid), None)
    nick = affiliate.nick or (occupant.nick if occupant is not None else None)
    if nick is not None:
        item.set("nick", nick)
    if occupant is not None:
        item.set("role", occupant.role)
    if affiliate.reason:
        item.append(el(_REASON, text=affiliate.reason))
    return item


async def change_lists(room: Room, sender: JID, query: Element) -> None:
    """Change affiliations and roles, all of them or none. Raises StanzaError."""
    room.check_exists(sender)
    items = query.findall(ITEM)
    if not items:
        raise StanzaError("bad-request", "There is nothing to change.")
    if len(items) > MAX_ITEMS:
        raise StanzaError("bad-request", f"Change at most {MAX_ITEMS} at a time.", limit="room_changes")
    seat = room.seats.get(str(sender))
    actor = (room.affiliation(sender), seat.occupant.role if seat is not None else "none")
    changes: list[Affiliate] = []
    roles: list[tuple[Occupant, str, str | None]] = []
    for each in items:
        affiliation, role, reason = each.get("affiliation"), each.get("role"), _reason(each)
        if affiliation is not None and affiliation in AFFILIATIONS:
            changes.append(Affiliate(_jid(room, each), affiliation, _nick(each), reason))
        elif role is not None and role in ROLES and affiliation is None:
            occupant = room.named(_nick(each) or "")
            check_role(actor, (room.affiliation(occupant.bare), occupant.role), role)
            roles.append((occupant, role, reason))
        else:
            raise StanzaError("bad-request", "A change is of an affiliation or a role.")
    if changes:
        _check_nicks(room, changes)
        affiliations.check(room, sender.bare, changes)
    nick = seat.occupant.nick if seat is not None else None
    if changes:
        await affiliations.change(room, changes, nick)
    for occupant, role, reason in roles:
        if room.occupants.get(occupant.nick) is occupant:
            change_role(room, occupant, role, nick, reason)


def change_role(room: Room, occupant: Occupant, role: str, actor: str | None, reason: str | None) -> None:
    """Give an occupant another role; none is a kick."""
    if role == "none":
        remove(room, occupant, (307,), actor=actor, reason=reason)
    elif role != occupant.role:
        was, occupant.role = occupant.role, role
        room.show(occupant, was=was, actor=actor, reason=reason)
        room.keep(occupant.seats.values())
        show_addresses(room, occupant, was)


def _check_nicks(room: Room, changes: list[Affiliate]) -> None:
    """A nick can be reserved once, and only for those who are on a list of friends."""
    for each in changes:
        if each.affiliation in ("outcast", "none") or not each.nick:
            continue
        holder = room.reserved(each.nick)
        if holder is not None and holder.jid != each.jid:
            raise StanzaError("conflict", "That nickname is reserved for somebody else.")


def _jid(room: Room, item: Element) -> str:
    text = item.get("jid")
    if text is None:
        return room.named(_nick(item) or "").bare
    try:
        return parse_jid(text).bare
    except ValueError as error:
        raise StanzaError("jid-malformed", str(error)) from None


def _nick(item: Element) -> str | None:
    text = item.get("nick")
    if not text:
        return text
    try:
        return prepare_resource(text)
    except ValueError as error:
        raise StanzaError("jid-malformed", str(error)) from None


def _reason(item: Element) -> str | None:
    text = item.findtext(_REASON)
    if text and len(text.encode()) > REASON_BYTES:
        raise StanzaError("policy-violation", f"A reason has at most {REASON_BYTES} bytes.", limit="room_reason_bytes")
    return text or None

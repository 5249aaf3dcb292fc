"""Changing who is what in a room, and what follows for those who are in it (XEP-0045, sections 9 and 10)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.core.jid import parse_jid
from nestbox.modules.muc.presence import remove, show_addresses
from nestbox.modules.muc.privileges import check_affiliation, role_after
from nestbox.modules.muc.stanzas import item, message, statuses, user_x
from nestbox.store.rooms import Affiliate
from nestbox.wire.stanza import parse_stanza, readdress

if TYPE_CHECKING:
    from nestbox.modules.muc.room import Room

__all__ = ["change", "check"]


def check(room: Room, actor: str, changes: Sequence[Affiliate]) -> None:
    """Check changes that the bare JID ``actor`` asks for at once. Raises StanzaError, see `check_affiliation`."""
    mine = room.affiliation(actor)
    owners = set(room.jids("owner"))
    for each in changes:
        before = room.affiliation(each.jid)
        owners.discard(each.jid)
        if each.affiliation == "owner":
            owners.add(each.jid)
        check_affiliation(mine, before, each.affiliation, himself=each.jid == actor, last_owner=not owners)
    added = [each for each in changes if each.affiliation != "none" and each.jid not in room.affiliates]
    if added and len(room.affiliates) + len(added) > room.server.config.limits.room_affiliations:
        raise StanzaError("resource-constraint", "The room's lists are full.", limit="room_affiliations")


async def change(room: Room, changes: Sequence[Affiliate], actor: str | None = None, code: int = 321) -> None:
    """Store changes and let them take effect; ``actor`` is a nick, ``code`` says why one who loses membership leaves.

    The changes are checked already. New members of a members-only room are told, but not invited, which section 9.5
    recommends: clients that make somebody a member send an invitation of their own, and would be shown a second one.
    """
    for each in changes:
        user = await _account(room, each.jid)
        each.user_id = user
        known = room.affiliates.get(each.jid)
        if each.affiliation in ("outcast", "none") or each.nick == "":  # which unsets it (section 9.5)
            each.nick = None
        elif each.nick is None and known is not None:
            each.nick = known.nick
    before = {each.jid: room.affiliation(each.jid) for each in changes}
    await room.server.store.rooms.affiliate(room.id, changes)
    for each in changes:
        if each.affiliation == "none":
            room.affiliates.pop(each.jid, None)
        else:
            room.affiliates[each.jid] = each
    for each in changes:
        _apply(room, each, before[each.jid], actor, code)


async def _account(room: Room, jid: str) -> int | None:
    address = parse_jid(jid)
    if not address.local or address.domain != room.server.config.domain:
        return None
    user = await room.server.users.load(address.local)
    return user.id if user is not None else None


def _apply(room: Room, affiliate: Affiliate, before: str, actor: str | None, code: int) -> None:
    bare, after = affiliate.jid, room.affiliation(affiliate.jid)
    reason = affiliate.reason
    if "@" not in bare:  # a domain
        found = [each for each in room.occupants.values() if each.bare.endswith(f"@{bare}")]
        found = [each for each in found if room.affiliation(each.bare) == "outcast"]
    else:
        found = [each for each in room.occupants.values() if each.bare == bare]
    for occupant in found:
        if after == "outcast":
            remove(room, occupant, (301,), actor=actor, reason=reason)
        elif after == "none" and room.config.members_only:
            remove(room, occupant, (code,), actor=actor, reason=reason)
        else:
            was = occupant.role
            occupant.role = role_after(was, before, after, room.config.moderated)
            room.show(occupant, was=was, reason=reason, actor=actor)
            room.keep(occupant.seats.values())
            show_addresses(room, occupant, was)
    if not found and before != after:
        _tell_absent(room, bare, after, reason)


def _tell_absent(room: Room, bare: str, affiliation: str, reason: str | None) -> None:
    """Nobody of that address is here: tell those who see addresses, and himself where he is (status 101)."""
    about = item(affiliation, "none", jid=bare, reason=reason)
    seats = [seat for each in room.occupants.values() if room.sees_jids(each) for seat in each.seats.values()]
    if seats:
        room.send(seats, message(room.address, user_x(about), None))
    if "@" in bare:
        own = item(affiliation, "none", jid=bare, reason=reason) + statuses((101,))
        room.server.router.send(parse_stanza(readdress(message(room.address, user_x(own), None), bare)))

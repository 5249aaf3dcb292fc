"""Entering, changing and leaving a room, and asking who is there (XEP-0045, 7.2, 7.6, 7.7, 7.14 and 17.3)."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Iterable

from nestbox.core.errors import StanzaError
from nestbox.core.jid import JID
from nestbox.modules.muc.avatar import avatar_presence
from nestbox.modules.muc.occupants import Occupant, Seat
from nestbox.modules.muc.privileges import rank, role_for
from nestbox.modules.muc.room import OCCUPANT_ID, Room
from nestbox.modules.muc.stanzas import MUC_X, USER_X, item, message, presence, statuses, user_x
from nestbox.wire import ns
from nestbox.wire.element import Element, to_bytes
from nestbox.wire.stanza import Stanza, iq_error, parse_stanza, readdress

__all__ = ["handle", "leave", "left_empty", "remove", "show_addresses", "show_all"]

NICK_BYTES = 255
PRESENCE_BYTES = 8 * 1024
_PASSWORD = f"{{{ns.MUC}}}password"
# What only the room may say.
_OURS = frozenset((MUC_X, USER_X, OCCUPANT_ID, f"{{{ns.HATS}}}hats"))


def handle(room: Room, sender: JID, to: JID, stanza: Stanza) -> int | Awaitable[int]:
    """A presence for the room or a nick in it; what is refused is told in the form of section 7.2."""
    try:
        outcome = _handle(room, sender, to, stanza)
    except StanzaError as error:
        return _refuse(room, stanza, error)
    return outcome if isinstance(outcome, int) else _later(room, stanza, outcome)


async def _later(room: Room, stanza: Stanza, outcome: Awaitable[int]) -> int:
    try:
        return await outcome
    except StanzaError as error:
        return _refuse(room, stanza, error)


def _refuse(room: Room, stanza: Stanza, error: StanzaError) -> int:
    """Clients know by the ``<x/>`` that it is an answer to their entering."""
    room.server.counts.refused(error)
    told = error.element()
    told.set("by", room.address)
    answer = iq_error(stanza, told)
    answer.element.insert(0, Element(MUC_X))
    room.server.router.send(answer)
    return 0


def _handle(room: Room, sender: JID, to: JID, stanza: Stanza) -> int | Awaitable[int]:
    seat = room.seats.get(str(sender))
    kind = stanza.type
    if kind in ("unavailable", "error"):
        if seat is not None:
            codes = (333,) if kind == "error" else ()
            leave(room, seat, codes, inner=_inner(stanza) if kind == "unavailable" else b"")
        return 0
    if kind == "probe":
        return _probed(room, room.occupant(sender), sender, to.resource)
    if kind is not None or not sender.resource:
        return 0  # rooms have no subscriptions
    if seat is None:
        return _join(room, sender, to, stanza)
    nick = _nick(to) if to.resource else seat.occupant.nick  # some clients tell the room itself how they are
    if nick != seat.occupant.nick:
        return _change_nick(room, seat, nick, stanza)
    seat.presence = _inner(stanza)
    seat.occupant.spoke(seat)
    room.keep([seat])
    if stanza.has(MUC_X):  # a client that has lost count of the room enters it again
        room.show(seat.occupant, but=seat)
        _welcome(room, seat, stanza.find(MUC_X), ())
    else:
        room.show(seat.occupant)
    return 0


def _nick(to: JID) -> str:
    if not to.resource:
        raise StanzaError("jid-malformed", "A nickname is needed.")
    if len(to.resource.encode()) > NICK_BYTES:
        raise StanzaError("not-acceptable", f"A nickname has at most {NICK_BYTES} bytes.", limit="room_nick_bytes")
    return to.resource


def _inner(stanza: Stanza) -> bytes:
    """The children of a client's presence that the others get."""
    children = [child for child in stanza.element if child.tag not in _OURS]
    data = b"".join(map(to_bytes, children))
    if len(data) > PRESENCE_BYTES:
        text = f"A presence in a room has at most {PRESENCE_BYTES} bytes."
        raise StanzaError("policy-violation", text, limit="room_presence_bytes")
    return data


# in


async def _join(room: Room, sender: JID, to: JID, stanza: Stanza) -> int:
    nick, x = _nick(to), stanza.find(MUC_X)
    if x is None:
        return _not_inside(room, sender, nick)
    uid = _uid(room, sender)
    if uid is None:
        return 0
    inner = _inner(stanza)
    created = not room.id
    if created:
        await room.service.create(room, sender)
    room.check_exists(sender)
    try:
        occupant = _admit(room, sender.bare, nick, x)
    except StanzaError:
        if created:
            left_empty(room)
        raise
    seat = Seat(str(sender), sender.bare, sender.resource, uid, inner, occupant)
    # Known to the bus before the client hears that it is in: from then on the seat outlives this worker.
    await room.server.bus.hset(room.service.key(room.name), seat.full, seat.record())
    if _uid(room, sender) != uid:
        room.keep([seat])
        if not room.seats:
            left_empty(room)
        return 0
    room.add(occupant, seat)
    room.show(occupant, but=seat)
    _welcome(room, seat, x, (201,) if created else ())
    return 0


def _not_inside(room: Room, sender: JID, nick: str) -> int:
    """A client that takes itself for an occupant is told that it is none (section 7.2.18)."""
    gone = user_x(item("none", "none", reason="You are not in this room; enter it first.") + statuses((110, 307, 333)))
    told = presence(room.occupant_jid(nick), gone, "unavailable")
    room.server.router.send(parse_stanza(readdress(told, str(sender))))
    return 0


def _uid(room: Room, sender: JID) -> int | None:
    """The session that sends (`Entry.uid`); 0 for an address of a component, None for a session that is gone."""
    if sender.domain != room.server.config.domain:
        return 0
    entry = room.server.registry.of(sender.bare).get(sender.resource)
    return None if entry is None else entry.uid


def _admit(room: Room, bare: str, nick: str, x: Element) -> Occupant:
    """The occupant that somebody may be. Raises StanzaError as section 7.2 says."""
    config = room.config
    affiliation = room.affiliation(bare)
    if affiliation == "outcast":
        raise StanzaError("forbidden", "You are banned from this room.")
    if config.members_only and affiliation == "none":
        raise StanzaError("registration-required", "Only members may enter this room.")
    if config.password and not hmac.compare_digest((x.findtext(_PASSWORD) or "").encode(), config.password.encode()):
        raise StanzaError("not-authorized", "The password is wrong.")
    known = room.occupants.get(nick)
    if known is None:
        _check_nick(room, bare, nick)
    elif known.bare != bare:
        raise StanzaError("conflict", "Somebody else has that nickname.")
    limit = room.server.config.limits.room_occupants
    full = len(room.seats) >= limit
    if not full and known is None and config.max_users and rank(affiliation) < rank("admin"):
        full = len(room.occupants) >= config.max_users
    if full:
        raise StanzaError("service-unavailable", "The room is full.", type="wait", limit="room_occupants")
    return known or room.make_occupant(nick, bare, role_for(affiliation, config.moderated))


def _check_nick(room: Room, bare: str, nick: str) -> None:
    if nick in room.occupants:
        raise StanzaError("conflict", "Somebody else has that nickname.")
    holder = room.reserved(nick)
    if holder is not None and holder.jid != bare:
        raise StanzaError("conflict", "That nickname is reserved for a member.")


def _welcome(room: Room, seat: Seat, x: Element | None, codes: Iterable[int]) -> None:
    """What one who enters gets, in the order of section 7.2.2: the others, itself, history, subject."""
    history = room.history.chosen(room.address, x, room.config.history)
    if room.config.avatar:
        room.send([seat], avatar_presence(room))
    show_all(room, seat, codes)
    for data in history:
        room.send([seat], data)
    room.send([seat], room.subject or message(room.address, b"<subject/>"))


def show_all(room: Room, seat: Seat, codes: Iterable[int] = ()) -> None:
    """Show a seat everybody who is in the room, itself last."""
    with_jid = room.sees_jids(seat.occupant)
    for occupant in room.occupants.values():
        if occupant is not seat.occupant and occupant.role in room.config.broadcast:
            room.send([seat], room.presence_of(occupant, with_jid), False, occupant.jid)
    about = [code for code, holds in ((100, not room.config.anonymous), (170, room.archived)) if holds]
    room.show_itself(seat, (*about, *codes))


def show_addresses(room: Room, occupant: Occupant, was: str) -> None:
    """Show one who has become a moderator the others anew, now with their addresses (section 8)."""
    if occupant.role == "moderator" != was and room.config.anonymous:
        for other in room.occupants.values():
            if other is not occupant and other.role in room.config.broadcast:
                room.send(occupant.seats.values(), room.presence_of(other, True), False, other.jid)


def _probed(room: Room, asker: Occupant, sender: JID, nick: str) -> int:
    """Show an occupant once more who is in the room, or one of them, also one whose presence is not broadcast."""
    seat, with_jid = asker.seats[str(sender)], room.sees_jids(asker)
    probed = room.occupants.get(nick)
    if not nick:
        show_all(room, seat)
    elif probed is asker:
        room.show_itself(seat)
    elif probed is not None:
        room.send([seat], room.presence_of(probed, with_jid), False, probed.jid)
    else:
        holder, address = room.reserved(nick), room.occupant_jid(nick)
        known = {"jid": holder.jid if with_jid else None, "nick": nick} if holder is not None else {}
        gone = item(holder.affiliation if holder is not None else "none", "none", **known)
        room.send([seat], presence(address, user_x(gone), "unavailable"), False, address)
    return 0


# a new nick


def _change_nick(room: Room, seat: Seat, nick: str, stanza: Stanza) -> int:
    occupant = seat.occupant
    _check_nick(room, occupant.bare, nick)
    seat.presence = _inner(stanza)
    occupant.spoke(seat)
    seats = list(occupant.seats.values())
    room.show_gone(occupant, seats, (303,), nick=nick)
    del room.occupants[occupant.nick]
    occupant.nick, occupant.jid = nick, room.occupant_jid(nick)
    room.occupants[nick] = occupant
    room.keep(seats)
    room.show(occupant)
    return 0


# out


def leave(room: Room, seat: Seat, codes: Iterable[int] = (), *, inner: bytes = b"") -> None:
    """A session leaves; its occupant stays while another of its sessions is there."""
    occupant = seat.occupant
    room.remove(seat)
    if occupant.seats:
        room.show_gone(occupant, [seat], codes, inner=inner, to_others=False)
        room.show(occupant)
    elif room.config.locked:  # a room that is not set up goes with whoever wanted it (section 10.1.3)
        room.show_gone(occupant, [seat], codes, inner=inner, extra="<destroy/>", affiliation="none")
    else:
        room.show_gone(occupant, [seat], codes, inner=inner)
    if not room.seats:
        left_empty(room)


def remove(
    room: Room,
    occupant: Occupant,
    codes: Iterable[int],
    *,
    actor: str | None = None,
    reason: str | None = None,
    extra: str = "",
) -> None:
    """Make an occupant leave with all its sessions: kicked, banned, no member any longer."""
    seats = list(occupant.seats.values())
    for seat in seats:
        room.remove(seat)
    room.show_gone(occupant, seats, codes, actor=actor, reason=reason, extra=extra)
    if not room.seats:
        left_empty(room)


def left_empty(room: Room) -> None:
    """Nobody is in the room: a temporary one, or one that was never set up, goes."""

    async def erase() -> int:
        if room.id and not room.seats and not room.config.persistent:
            await room.service.erase(room)
        return 0

    if room.id and not room.config.persistent:
        outcome = room.serial(erase)
        if not isinstance(outcome, int):
            room.server.spawn(_quietly(outcome))


async def _quietly(outcome: Awaitable[int]) -> None:
    await outcome

"""Registering with a room: becoming its member, with a nick of one's own (XEP-0045, section 7.10; XEP-0077)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.core.jid import JID, prepare_resource
from nestbox.modules import dataforms
from nestbox.modules.dataforms import Field
from nestbox.modules.muc import affiliations
from nestbox.modules.muc.presence import NICK_BYTES
from nestbox.modules.muc.privileges import rank
from nestbox.store.rooms import Affiliate
from nestbox.wire import ns
from nestbox.wire.element import Element, el

if TYPE_CHECKING:
    from nestbox.modules.muc.room import Room

__all__ = ["FORM_TYPE", "QUERY", "get_form", "register"]

QUERY = f"{{{ns.REGISTER}}}query"
FORM_TYPE = f"{ns.MUC}#register"
_NICK = "muc#register_roomnick"


def _check(room: Room, sender: JID) -> None:
    """Raise StanzaError for those who cannot become members by themselves: else it would be a way round voice."""
    room.check_exists(sender)
    affiliation = room.affiliation(sender)
    if affiliation == "outcast":
        raise StanzaError("forbidden", "You are banned from this room.")
    if affiliation == "none" and (room.config.members_only or room.config.moderated or room.config.password):
        raise StanzaError("not-allowed", "Members of this room are made by its admins.")


def get_form(room: Room, sender: JID) -> Element:
    """What is needed to register, or what is registered. Raises StanzaError."""
    _check(room, sender)
    known = room.affiliates.get(sender.bare)
    nick = known.nick if known is not None else None
    answer = el(QUERY)
    if nick is not None:
        answer.append(el(f"{{{ns.REGISTER}}}registered"))
        answer.append(el(f"{{{ns.REGISTER}}}username", text=nick))
    else:
        answer.append(el(f"{{{ns.REGISTER}}}instructions", text="Choose the nickname that is to be yours here."))
    field = Field("text-single", _NICK, "Nickname", [nick] if nick is not None else (), True)
    answer.append(dataforms.form(FORM_TYPE, (field,), title=room.config.name or room.name))
    return answer


async def register(room: Room, sender: JID, query: Element) -> None:
    """Register or, with ``<remove/>``, give it up. Raises StanzaError: conflict, not-acceptable, bad-request."""
    _check(room, sender)
    bare = sender.bare
    known = room.affiliates.get(bare)
    if query.find(f"{{{ns.REGISTER}}}remove") is not None:
        if known is None:
            raise StanzaError("registration-required", "You are not registered.")
        known.nick = None  # admins and owners stay what they are
        kept = "none" if known.affiliation == "member" else known.affiliation
        await affiliations.change(room, [Affiliate(bare, kept)])
        return
    form = query.find(dataforms.FORM)
    if form is None:
        raise StanzaError("bad-request", "There is no form.")
    nick = _nick(dataforms.submitted(form, FORM_TYPE).get(_NICK, []))
    holder = room.reserved(nick)
    occupant = room.occupants.get(nick)
    if (holder is not None and holder.jid != bare) or (occupant is not None and occupant.bare != bare):
        raise StanzaError("conflict", "Somebody else has that nickname.")
    affiliation = room.affiliation(sender)
    full = len(room.affiliates) >= room.server.config.limits.room_affiliations
    if known is None and full:
        raise StanzaError("resource-constraint", "The room's lists are full.", limit="room_affiliations")
    after = affiliation if rank(affiliation) > rank("member") else "member"
    await affiliations.change(room, [Affiliate(bare, after, nick)])


def _nick(given: list[str]) -> str:
    try:
        nick = prepare_resource(given[0].strip()) if len(given) == 1 and given[0].strip() else ""
    except ValueError as error:
        raise StanzaError("jid-malformed", str(error)) from None
    if not nick or len(nick.encode()) > NICK_BYTES:
        raise StanzaError("not-acceptable", "The form needs a nickname.")
    return nick

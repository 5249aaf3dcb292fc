"""Messages that ask the room for something: invitations, refusals, voice (XEP-0045, sections 7.8, 7.13 and 8.6)."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.core.jid import JID, parse_jid, prepare_resource
from nestbox.modules import dataforms
from nestbox.modules.dataforms import Field
from nestbox.modules.muc import admin, affiliations
from nestbox.modules.muc.privileges import rank
from nestbox.modules.muc.stanzas import USER_X
from nestbox.store.rooms import Affiliate
from nestbox.wire import ns
from nestbox.wire.element import Element, el
from nestbox.wire.stanza import MESSAGE, Stanza

if TYPE_CHECKING:
    from nestbox.modules.muc.occupants import Occupant
    from nestbox.modules.muc.room import Room

__all__ = ["VOICE", "handle"]

VOICE = f"{ns.MUC}#request"
REASON_BYTES = 1024
MAX_INVITES = 20
_INVITE = f"{{{ns.MUC_USER}}}invite"
_DECLINE = f"{{{ns.MUC_USER}}}decline"
_REASON = f"{{{ns.MUC_USER}}}reason"
_CONTINUE = f"{{{ns.MUC_USER}}}continue"
_PARTICIPANT = ("Participant", "participant")


def handle(room: Room, sender: JID, stanza: Stanza) -> int | Awaitable[int]:
    """A message to the room that is not for everybody. Raises StanzaError."""
    x, form = stanza.find(USER_X), stanza.find(dataforms.FORM)
    if x is not None and x.find(_INVITE) is not None:
        return _invite(room, sender, x)
    if x is not None and x.find(_DECLINE) is not None:
        return _decline(room, sender, x.find(_DECLINE))
    if form is not None:
        return _voice(room, sender, form)
    raise StanzaError("bad-request", "A message to everybody is of type groupchat.")


# invitations


async def _invite(room: Room, sender: JID, x: Element) -> int:
    occupant = room.occupant(sender)
    config = room.config
    is_admin = rank(room.affiliation(sender)) >= rank("admin")
    if config.members_only and not (is_admin or (config.allow_invites and occupant.role != "visitor")):
        raise StanzaError("forbidden", "You may not invite people to this room.")
    invites = [(_address(each), each) for each in x.findall(_INVITE)]
    if len(invites) > MAX_INVITES:
        raise StanzaError("policy-violation", f"At most {MAX_INVITES} invitations at once.", limit="room_invites")
    for to, _ in invites:
        if to.domain != room.server.config.domain:
            if to.domain not in room.server.router.hosts:
                raise StanzaError("remote-server-not-found", f"This server does not talk to {to.domain}.")
        elif await room.server.users.load(to.local) is None:
            raise StanzaError("item-not-found", "There is nobody of that name.")
        if room.affiliation(to) == "outcast":
            raise StanzaError("forbidden", "That one is banned from this room.")
    if config.members_only:
        new = list(dict.fromkeys(to.bare for to, _ in invites if room.affiliation(to) == "none"))
        if len(room.affiliates) + len(new) > room.server.config.limits.room_affiliations:
            raise StanzaError("resource-constraint", "The room's lists are full.", limit="room_affiliations")
        if new:
            await affiliations.change(room, [Affiliate(bare, "member") for bare in new], occupant.nick)
    batch = 0
    for to, invite in invites:
        outcome = room.server.router.route(room.jid, to, _invitation(room, sender, to, invite))
        batch = max(batch, outcome if isinstance(outcome, int) else await outcome)
    return batch


def _address(invite: Element) -> JID:
    try:
        to = parse_jid(invite.get("to", ""))
    except ValueError as error:
        raise StanzaError("jid-malformed", str(error)) from None
    if not to.local:
        raise StanzaError("jid-malformed", "A person has a name before the @.")
    return to


def _invitation(room: Room, sender: JID, to: JID, invite: Element) -> Stanza:
    """The invitation as it is passed on: mediated, and for clients that know only XEP-0249 direct, too."""
    given = el(_INVITE, {"from": sender.bare})
    direct = el(f"{{{ns.CONFERENCE}}}x", {"jid": room.address})
    reason, thread = _reason(invite), invite.find(_CONTINUE)
    if reason:
        given.append(el(_REASON, text=reason))
        direct.set("reason", reason)
    if thread is not None:
        given.append(el(_CONTINUE, {"thread": thread.get("thread", "")}))
    x = el(USER_X, None, given)
    if room.config.password:
        x.append(el(f"{{{ns.MUC_USER}}}password", text=room.config.password))
        direct.set("password", room.config.password)
    attributes = {"from": room.address, "to": str(to), "id": str(room.server.ids.next())}
    return Stanza(el(MESSAGE, attributes, x, direct))


def _reason(parent: Element) -> str:
    text = parent.findtext(_REASON) or ""
    if len(text.encode()) > REASON_BYTES:
        raise StanzaError("policy-violation", f"A reason has at most {REASON_BYTES} bytes.", limit="room_reason_bytes")
    return text


def _decline(room: Room, sender: JID, decline: Element) -> int:
    to = _address(decline)
    if to.bare == room.address:
        inviters = [room.named(to.resource)]
    else:
        inviters = [each for each in room.occupants.values() if each.bare == to.bare]
    if not inviters:
        raise StanzaError("item-not-found", "Whoever invited you has left.")
    given = el(_DECLINE, {"from": sender.bare})
    reason = _reason(decline)
    if reason:
        given.append(el(_REASON, text=reason))
    told = Stanza(el(MESSAGE, {"from": room.address}, el(USER_X, None, given)))
    room.send([seat for each in inviters for seat in each.seats.values()], told.encode())
    return 0


# voice


def _voice(room: Room, sender: JID, form: Element) -> int:
    occupant = room.occupant(sender)
    values = dataforms.submitted(form, VOICE)
    if "muc#request_allow" in values:
        return _grant(room, sender, values)
    if values.get("muc#role", ["participant"]) != ["participant"]:
        raise StanzaError("bad-request", "One asks for the role participant.")
    if occupant.role != "visitor":
        return 0
    request = dataforms.form(
        VOICE,
        (
            Field("list-single", "muc#role", "Requested role", ["participant"], options=(_PARTICIPANT,)),
            Field("jid-single", "muc#jid", "Address", [str(sender)]),
            Field("text-single", "muc#roomnick", "Nickname", [occupant.nick]),
            Field("boolean", "muc#request_allow", "Grant voice", ["false"]),
        ),
        title="Request for voice",
        instructions="Somebody would like to send messages to everybody.",
    )
    moderators = [each for each in room.occupants.values() if each.role == "moderator"]
    told = Stanza(el(MESSAGE, {"from": room.address}, request))
    room.send([seat for each in moderators for seat in each.seats.values()], told.encode())
    return 0


def _grant(room: Room, sender: JID, values: dict[str, list[str]]) -> int:
    moderator = room.occupant(sender)
    if moderator.role != "moderator":
        raise StanzaError("forbidden", "Only moderators grant voice.")
    if values["muc#request_allow"] in (["1"], ["true"]):
        occupant = _asker(room, values)
        if occupant.role == "visitor":
            admin.change_role(room, occupant, "participant", moderator.nick, None)
    return 0


def _asker(room: Room, values: dict[str, list[str]]) -> Occupant:
    """Whom a moderator means: the form was sent with both, the nick and the address. Raises StanzaError."""
    nick, jid = (values[name][0] if values.get(name) else "" for name in ("muc#roomnick", "muc#jid"))
    if not nick and jid not in room.seats:
        raise StanzaError("bad-request", "Which occupant?")
    try:
        return room.named(prepare_resource(nick)) if nick else room.seats[jid].occupant
    except ValueError:
        raise StanzaError("item-not-found", "Nobody here has that nickname.") from None

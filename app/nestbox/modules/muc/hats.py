"""Hats (XEP-0317): titles that a room's admins make and give to people, shown to everybody beside the nick.

Whoever has a hat belongs to the room: it becomes a member with the first one, and shows none without an affiliation.
The commands keep no sessions: one that comes with its form is carried out, whatever went before.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from nestbox.core.errors import StanzaError
from nestbox.core.jid import parse_jid
from nestbox.modules import dataforms
from nestbox.modules.commands import COMMAND
from nestbox.modules.dataforms import Field
from nestbox.modules.disco import FEATURE, IDENTITY, INFO, ITEM, ITEMS
from nestbox.modules.muc import affiliations
from nestbox.modules.muc.config import Hat, Wearer
from nestbox.modules.muc.privileges import rank
from nestbox.store.rooms import Affiliate
from nestbox.wire import ns
from nestbox.wire.element import Element, el

if TYPE_CHECKING:
    from nestbox.core.jid import JID
    from nestbox.modules.muc.room import Room

__all__ = ["command", "node_info", "node_items"]

FORM_TYPE = "urn:xmpp:hats:commands"
MAX_HATS = 50  # of a room
MAX_WORN = 10  # by one person
MAX_WEARERS = 1000
TEXT_BYTES = 256  # of a title or a URI
_TITLE = Field("text-single", "hats#title", "Title")
_URI = Field("text-single", "hats#uri", "URI")
_HUE = Field("text-single", "hats#hue", "Hue of its colour, 0 to 360 degrees")
_PERSON = Field("jid-single", "hats#jid", "Address", required=True)


# commands


async def _create(room: Room, values: dict[str, list[str]]) -> None:
    """Make a hat, or give the one with this URI another title or hue."""
    uri, title, hue = (_text(values, name) for name in ("hats#uri", "hats#title", "hats#hue"))
    if not title or ":" not in uri:
        raise StanzaError("not-acceptable", "A hat needs a title and a URI.")
    try:
        hue = f"{float(hue):g}" if hue else ""
    except ValueError:
        hue = "nan"
    if hue and not 0 <= float(hue) <= 360:
        raise StanzaError("not-acceptable", "A hue is a number from 0 to 360.")
    if uri not in room.config.hats and len(room.config.hats) >= MAX_HATS:
        raise StanzaError("resource-constraint", f"A room has at most {MAX_HATS} hats.", limit="room_hats")
    await _save(room, {**room.config.hats, uri: Hat(title, hue)}, room.config.wearers)


async def _destroy(room: Room, values: dict[str, list[str]]) -> None:
    uri = _known(room, values)
    hats = {each: hat for each, hat in room.config.hats.items() if each != uri}
    wearers = {
        bare: Wearer(wearer.user_id, [each for each in wearer.hats if each != uri])
        for bare, wearer in room.config.wearers.items()
    }
    await _save(room, hats, wearers)


async def _assign(room: Room, values: dict[str, list[str]]) -> None:
    uri, bare = _known(room, values), _person(values)
    hats = [each for each in room.hats_of(bare) if each != uri]
    if len(hats) >= MAX_WORN:
        raise StanzaError("resource-constraint", f"Nobody wears more than {MAX_WORN} hats.", limit="room_hats_worn")
    if bare not in room.config.wearers and len(room.config.wearers) >= MAX_WEARERS:
        text = f"At most {MAX_WEARERS} people of a room wear hats."
        raise StanzaError("resource-constraint", text, limit="room_hat_wearers")
    if room.affiliation(bare) == "outcast":
        raise StanzaError("not-allowed", "That one is banned from this room.")
    if bare not in room.affiliates:
        if len(room.affiliates) >= room.server.config.limits.room_affiliations:
            raise StanzaError("resource-constraint", "The room's lists are full.", limit="room_affiliations")
        await affiliations.change(room, [Affiliate(bare, "member")])
    await _wear(room, bare, [*hats, uri])


async def _unassign(room: Room, values: dict[str, list[str]]) -> None:
    uri, bare = _known(room, values), _person(values)
    hats = room.hats_of(bare)
    if uri not in hats:
        raise StanzaError("item-not-found", "That one does not wear that hat.")
    await _wear(room, bare, [each for each in hats if each != uri])


async def _wear(room: Room, bare: str, hats: list[str]) -> None:
    wearers = {**room.config.wearers, bare: Wearer(room.affiliates[bare].user_id, hats)}
    await _save(room, room.config.hats, wearers)


async def _save(room: Room, hats: dict[str, Hat], wearers: dict[str, Wearer]) -> None:
    """Store the hats, and show those whose presence is another now. Who wears none is forgotten."""
    old = {occupant.nick: room.hats_of(occupant.bare) for occupant in room.occupants.values()}
    wearers = {bare: wearer for bare, wearer in wearers.items() if wearer.hats and bare in room.affiliates}
    config = msgspec.structs.replace(room.config, hats=hats, wearers=wearers)
    await room.server.store.rooms.set_config(room.id, msgspec.json.encode(config), listed=config.listed)
    room.config = config
    for occupant in room.occupants.values():
        if room.hats_of(occupant.bare) != old.get(occupant.nick):
            room.show(occupant)


async def _list(room: Room, values: dict[str, list[str]]) -> Element:
    rows = ((uri, hat.title, hat.hue) for uri, hat in room.config.hats.items())
    return dataforms.table((_URI, _TITLE, _HUE), rows)


async def _list_assigned(room: Room, values: dict[str, list[str]]) -> Element:
    hats = room.config.hats
    rows = ((bare, uri, hats[uri].title, hats[uri].hue) for bare in room.config.wearers for uri in room.hats_of(bare))
    return dataforms.table((_PERSON._replace(required=False), _URI, _TITLE, _HUE), rows)


def _text(values: dict[str, list[str]], *names: str) -> str:
    text = next((values[name][0].strip() for name in names if values.get(name)), "")
    if len(text.encode()) > TEXT_BYTES:
        raise StanzaError("not-acceptable", f"That has more than {TEXT_BYTES} bytes.", limit="room_hat_bytes")
    return text


def _known(room: Room, values: dict[str, list[str]]) -> str:
    """The hat that a form names. Raises StanzaError item-not-found."""
    uri = _text(values, "hat", "hats#uri")
    if uri not in room.config.hats:
        raise StanzaError("item-not-found", "The room has no such hat.")
    return uri


def _person(values: dict[str, list[str]]) -> str:
    """The bare JID that a form names, by the field of today or that of version 0.2."""
    given = next((values[name][0].strip() for name in ("hats#jid", "accountjid") if values.get(name)), "")
    try:
        address = parse_jid(given)
    except ValueError as error:
        raise StanzaError("jid-malformed", str(error)) from None
    if not address.local:
        raise StanzaError("not-acceptable", "A domain wears no hats.")
    return address.bare


def _one_of(room: Room) -> Field:
    options = [(hat.title, uri) for uri, hat in room.config.hats.items()]
    return Field("list-single", "hat", "Hat", required=True, options=options)


class _Command(NamedTuple):
    name: str
    run: Callable[[Room, dict[str, list[str]]], Awaitable[Element | None]]
    fields: Callable[[Room], Sequence[Field]] | None = None  # none: it asks for nothing


_ASSIGN = _Command("Give somebody a hat", _assign, lambda room: (_PERSON, _one_of(room)))
_UNASSIGN = _Command("Take a hat from somebody", _unassign, lambda room: (_PERSON, _one_of(room)))
_LISTED = {
    f"{FORM_TYPE}:create": _Command(
        "Make a hat",
        _create,
        lambda room: (_TITLE._replace(required=True), _URI._replace(values=(uuid.uuid4().urn,)), _HUE),
    ),
    f"{FORM_TYPE}:destroy": _Command("Destroy a hat", _destroy, lambda room: (_one_of(room),)),
    f"{FORM_TYPE}:list": _Command("List the hats", _list),
    f"{FORM_TYPE}:assign": _ASSIGN,
    f"{FORM_TYPE}:unassign": _UNASSIGN,
    f"{FORM_TYPE}:list-assigned": _Command("List who wears which hat", _list_assigned),
}
# Those of version 0.2 of the XEP.
_COMMANDS = {**_LISTED, f"{FORM_TYPE}:don": _ASSIGN, f"{FORM_TYPE}:doff": _UNASSIGN}


async def command(room: Room, sender: JID, request: Element) -> Element:
    """A command of an admin or owner (XEP-0050). Raises StanzaError."""
    node = request.get("node", "")
    found = _COMMANDS.get(node)
    if found is None:
        raise StanzaError("item-not-found", "There is no such command.")
    room.require(sender, "admin")
    session = request.get("sessionid") or secrets.token_urlsafe(12)
    if request.get("action") == "cancel":
        return el(COMMAND, {"node": node, "sessionid": session, "status": "canceled"})
    x = request.find(dataforms.FORM)
    if x is None and found.fields is not None:
        form = dataforms.form(FORM_TYPE, found.fields(room), title=found.name)
        complete = el(f"{{{ns.COMMANDS}}}complete")
        actions = el(f"{{{ns.COMMANDS}}}actions", {"execute": "complete"}, complete)
        return el(COMMAND, {"node": node, "sessionid": session, "status": "executing"}, actions, form)
    done = await found.run(room, dataforms.submitted(x, FORM_TYPE) if x is not None else {})
    answer = el(COMMAND, {"node": node, "sessionid": session, "status": "completed"})
    if done is not None:
        answer.append(done)
    return answer


# discovery (section 3)


def node_items(room: Room, sender: JID) -> Element:
    """The commands that an address may use."""
    found = _LISTED if rank(room.affiliation(sender)) >= rank("admin") else {}
    items = (el(ITEM, {"jid": room.address, "node": node, "name": each.name}) for node, each in found.items())
    return el(ITEMS, {"node": ns.COMMANDS}, *items)


def node_info(node: str) -> Element:
    """What the list of commands, or one of them, is. Raises StanzaError item-not-found."""
    if node == ns.COMMANDS:
        return el(INFO, {"node": node}, el(IDENTITY, {"category": "automation", "type": "command-list"}))
    if node not in _LISTED:
        raise StanzaError("item-not-found")
    identity = el(IDENTITY, {"category": "automation", "type": "command-node", "name": _LISTED[node].name})
    return el(INFO, {"node": node}, identity, *(el(FEATURE, {"var": each}) for each in (ns.COMMANDS, ns.DATA_FORMS)))

"""What the host and its rooms say of themselves (XEP-0030; XEP-0045, sections 6.1 to 6.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from nestbox.core.errors import StanzaError
from nestbox.core.jid import JID, parse_jid
from nestbox.modules import dataforms, rsm
from nestbox.modules.dataforms import Field
from nestbox.modules.disco import FEATURE, IDENTITY, INFO, ITEM, ITEMS
from nestbox.modules.muc import hats
from nestbox.modules.muc.config import RoomConfig, flag
from nestbox.modules.muc.privileges import rank
from nestbox.modules.muc.register import FORM_TYPE as REGISTER_FORM
from nestbox.modules.muc.requests import VOICE
from nestbox.wire import ns
from nestbox.wire.element import Element, el
from nestbox.wire.stanza import parse_stanza

if TYPE_CHECKING:
    from nestbox.modules.muc.room import Room
    from nestbox.modules.muc.service import Service

__all__ = ["host_info", "host_items", "room_info", "room_items"]

ROOM_INFO = f"{ns.MUC}#roominfo"
OWN_NICK = "x-roomuser-item"  # section 6.6
PAGE = 100
MAX_PAGE = 500
_EVERYWHERE = (ns.DISCO_INFO, ns.DISCO_ITEMS, ns.MUC, ns.PING)
_decode = msgspec.json.Decoder(RoomConfig).decode


def _info(name: str, features: list[str] | tuple[str, ...], node: str | None = None) -> Element:
    identity = el(IDENTITY, {"category": "conference", "type": "text", "name": name})
    answer = el(INFO, {"node": node} if node else None, identity)
    answer.extend(el(FEATURE, {"var": feature}) for feature in features)
    return answer


def host_info(service: Service, query: Element) -> Element:
    """The identity and features of the host."""
    if query.get("node"):
        raise StanzaError("item-not-found")
    return _info("Rooms", (*_EVERYWHERE, ns.RSM, "muc_rooms"))


async def host_items(service: Service, query: Element) -> Element:
    """The rooms that everybody may know of, in pages (XEP-0059)."""
    if query.get("node"):
        raise StanzaError("item-not-found")
    request = rsm.page_request(query)
    store = service.server.store.rooms
    count = await store.count_listed()
    limit = PAGE if request.max is None else min(request.max, MAX_PAGE)
    rows: list[tuple[str, bytes]] = []
    if limit:
        rows = await store.listed(
            limit, after=_name(service, request.after), before=_name(service, request.before), backward=request.backward
        )
    answer = el(ITEMS)
    for name, config in rows:
        answer.append(el(ITEM, {"jid": f"{name}@{service.host}", "name": _decode(config).name or name}))
    if query.find(rsm.SET) is not None or len(rows) < count:
        first, last = (f"{rows[index][0]}@{service.host}" if rows else None for index in (0, -1))
        answer.append(rsm.page_result(first, last, count))
    return answer


def _name(service: Service, item: str | None) -> str | None:
    """The room's name in the id of an item, which is its address."""
    if item is None:
        return None
    try:
        jid = parse_jid(item)
    except ValueError:
        jid = None
    if jid is None or not jid.local or jid.domain != service.host:
        raise StanzaError("item-not-found", "There is no such item.")
    return jid.local


def room_info(room: Room, sender: JID, query: Element) -> Element:
    """What a room is like; under a node of its own, the nick that the asker has reserved."""
    room.check_exists(sender)
    node = query.get("node")
    if node == OWN_NICK:
        known = room.affiliates.get(sender.bare)
        answer = el(INFO, {"node": node})
        if known is not None and known.nick:
            answer.append(el(IDENTITY, {"category": "conference", "type": "text", "name": known.nick}))
        return answer
    if node:
        return hats.node_info(node)
    config = room.config
    features = [
        *_EVERYWHERE,
        ns.VCARD,
        f"{ns.MUC}#stable_id",
        f"{ns.MUC}#self-ping-optimization",
        VOICE,
        ns.REGISTER,
        REGISTER_FORM,
        ns.OCCUPANT_ID,
        ns.STANZA_ID,
        ns.MODERATE,
        ns.RETRACT,
        ns.HATS,
        ns.COMMANDS,
        "muc_passwordprotected" if config.password else "muc_unsecured",
        "muc_membersonly" if config.members_only else "muc_open",
        "muc_moderated" if config.moderated else "muc_unmoderated",
        "muc_semianonymous" if config.anonymous else "muc_nonanonymous",
        "muc_persistent" if config.persistent else "muc_temporary",
        "muc_public" if config.public else "muc_hidden",
    ]
    if room.archived:
        features += (ns.MAM, ns.MAM_EXTENDED, f"{ns.RETRACT}#tombstone")
    answer = _info(config.name or room.name, features)
    answer.append(_room_form(room))
    return answer


def _room_form(room: Room) -> Element:
    config = room.config
    subject = parse_stanza(room.subject).find("{jabber:client}subject").text if room.subject else ""
    fields = [
        Field("text-single", "muc#roomconfig_roomname", "Name", [config.name]),
        Field("text-single", "muc#roominfo_description", "Description", [config.description]),
        Field("text-single", "muc#roominfo_occupants", "Number of occupants", [str(len(room.occupants))]),
        Field("text-single", "muc#roominfo_subject", "Subject", [subject or ""]),
        Field("boolean", "muc#roominfo_subjectmod", "Subject may be changed", flag(config.change_subject)),
        Field("boolean", "muc#roomconfig_changesubject", "Subject may be changed", flag(config.change_subject)),
        Field("boolean", "muc#roomconfig_allowinvites", "Occupants may invite", flag(config.allow_invites)),
        Field("list-single", "muc#roomconfig_allowpm", "Who sends private messages", [config.allow_pm]),
        Field("text-single", "muc#maxhistoryfetch", "Messages shown on entering", [str(config.history)]),
    ]
    if config.lang:
        fields.append(Field("text-single", "muc#roominfo_lang", "Language", [config.lang]))
    if not config.anonymous:
        fields.append(Field("jid-multi", "muc#roominfo_contactjid", "Owners", room.jids("owner")))
    if config.avatar:
        fields.append(Field("text-multi", "muc#roominfo_avatarhash", "Hash of the picture", config.avatar))
    return dataforms.form(ROOM_INFO, fields, kind="result")


def room_items(room: Room, sender: JID, query: Element) -> Element:
    """Who is in a room: for everybody in a public one, else for those who belong to it."""
    room.check_exists(sender)
    if query.get("node") == ns.COMMANDS:
        return hats.node_items(room, sender)
    if query.get("node"):
        raise StanzaError("item-not-found")
    answer = el(ITEMS)
    belongs = str(sender) in room.seats or rank(room.affiliation(sender)) >= rank("member")
    public = room.config.public and not room.config.members_only and room.may_enter(sender)
    if belongs or public:
        answer.extend(el(ITEM, {"jid": occupant.jid}) for occupant in list(room.occupants.values())[:MAX_PAGE])
    return answer

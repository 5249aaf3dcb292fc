"""Iqs to the host, to rooms, and through rooms to their occupants (XEP-0045, section 16.2; XEP-0410)."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.core.jid import JID, parse_jid
from nestbox.modules.archive_pages import METADATA
from nestbox.modules.archive_query import QUERY as MAM_QUERY
from nestbox.modules.archive_query import query_form
from nestbox.modules.commands import COMMAND
from nestbox.modules.disco import INFO, ITEMS
from nestbox.modules.muc import admin, archive, avatar, disco, hats, moderation, owner, register
from nestbox.modules.ping import PING
from nestbox.modules.vcard import VCARD
from nestbox.wire.element import Element, el
from nestbox.wire.stanza import IQ, Stanza, iq_result

if TYPE_CHECKING:
    from nestbox.modules.muc.room import Room
    from nestbox.modules.muc.service import Service

__all__ = ["changes", "handle", "to_host"]

Answer = Element | None | Awaitable[Element | None]
PENDING_MAX = 500  # iqs through one room whose answer has not come


def _archive_form(room: Room, sender: JID, payload: Element) -> Element:
    archive.check_access(room, sender)
    return query_form()


_HANDLERS: dict[tuple[str, str], Callable[[Room, JID, Element], Answer]] = {
    ("get", INFO): disco.room_info,
    ("get", ITEMS): disco.room_items,
    ("get", PING): lambda room, sender, payload: room.check_exists(sender),
    ("get", admin.QUERY): admin.read_list,
    ("set", admin.QUERY): admin.change_lists,
    ("get", owner.QUERY): lambda room, sender, payload: owner.get_form(room, sender),
    ("set", owner.QUERY): owner.set_form,
    ("get", register.QUERY): lambda room, sender, payload: register.get_form(room, sender),
    ("set", register.QUERY): register.register,
    ("get", VCARD): lambda room, sender, payload: avatar.get_vcard(room, sender),
    ("set", VCARD): avatar.set_vcard,
    ("get", MAM_QUERY): _archive_form,
    ("set", MAM_QUERY): archive.query,
    ("get", METADATA): lambda room, sender, payload: archive.metadata(room, sender),
    ("set", moderation.MODERATE): moderation.moderate,
    ("set", COMMAND): hats.command,
}


def changes(to: JID, stanza: Stanza) -> bool:
    """Whether an iq may change the room: then it waits its turn. Nobody waits for one who reads the archive."""
    return stanza.type == "set" and not to.resource and stanza.payload.tag != MAM_QUERY


def handle(room: Room, sender: JID, to: JID, stanza: Stanza) -> int | Awaitable[int]:
    """An iq to a room or an occupant. Raises StanzaError."""
    if to.resource:
        if stanza.type in ("get", "set"):
            return _relay(room, sender, to, stanza)
        return _relay_answer(room, sender, stanza)
    handler = _HANDLERS.get((stanza.type, stanza.payload.tag))
    if handler is None:
        raise StanzaError("service-unavailable")
    room.check_exists(sender)
    return _answer(room.service, stanza, handler(room, sender, stanza.payload))


def to_host(service: Service, sender: JID, stanza: Stanza) -> int | Awaitable[int]:
    """A stanza to the host itself. Raises StanzaError."""
    if stanza.kind == "presence":
        return 0
    if stanza.kind == "iq" and stanza.type == "get":
        tag = stanza.payload.tag
        if tag == INFO:
            return _answer(service, stanza, disco.host_info(service, stanza.payload))
        if tag == ITEMS:
            return _answer(service, stanza, disco.host_items(service, stanza.payload))
        if tag == PING:
            return _answer(service, stanza, None)
    raise StanzaError("service-unavailable")


def _answer(service: Service, stanza: Stanza, answer: Answer) -> int | Awaitable[int]:
    if isawaitable(answer):
        return _answer_later(service, stanza, answer)
    service.server.router.send(iq_result(stanza, answer))
    return 0


async def _answer_later(service: Service, stanza: Stanza, answer: Awaitable[Element | None]) -> int:
    service.server.router.send(iq_result(stanza, await answer))
    return 0


# to occupants


def _relay(room: Room, sender: JID, to: JID, stanza: Stanza) -> int | Awaitable[int]:
    tag = stanza.payload.tag
    if tag in (INFO, ITEMS) and str(sender) not in room.seats:
        raise StanzaError("bad-request", "Only occupants look at occupants.")  # section 6.6
    asker = room.occupant(sender)
    other = room.named(to.resource)
    if tag == PING and other is asker:
        return _answer(room.service, stanza, None)  # XEP-0410, section 4
    if tag == VCARD and stanza.type == "get":
        return _vcard(room, other.bare, stanza)
    seat = other.first
    relayed = stanza.copy()
    token = secrets.token_urlsafe(12)
    relayed.element.attrib.update({"from": asker.jid, "to": seat.full, "id": token})
    room.pending[token] = (str(sender), stanza.id or "", seat.full)
    if len(room.pending) > PENDING_MAX:
        _give_up(room)
    return room.server.router.route(parse_jid(asker.jid), parse_jid(seat.full), relayed)


def _give_up(room: Room) -> None:
    """Whoever has waited longest for an answer gets one from us."""
    _, (asker, iq_id, asked) = room.pending.popitem(last=False)
    seat = room.seats.get(asked)
    to = seat.occupant.jid if seat is not None else room.address
    request = Stanza(el(IQ, {"type": "get", "id": iq_id, "from": asker, "to": to}))
    error = StanzaError("resource-constraint", "Too many questions wait for an answer.", limit="room_iqs")
    room.server.router.bounce(request, error)


async def _vcard(room: Room, bare: str, stanza: Stanza) -> int:
    """Occupants' vCards are those of their accounts (XEP-0045, section 16.2)."""
    answer = await room.server.questions.ask(room.jid, parse_jid(bare), "get", stanza.payload)
    answer.element.attrib.update({"from": stanza.to or "", "to": stanza.from_ or "", "id": stanza.id or ""})
    room.server.router.send(answer)
    return 0


def _relay_answer(room: Room, sender: JID, stanza: Stanza) -> int:
    asker, iq_id, asked = room.pending.get(stanza.id or "", ("", "", ""))
    seat = room.seats.get(str(sender))
    if asked != str(sender) or seat is None:
        return 0
    del room.pending[stanza.id or ""]
    answer = stanza.copy()
    answer.element.attrib.update({"from": seat.occupant.jid, "to": asker, "id": iq_id})
    room.server.router.send(answer)
    return 0

"""Roster items as XML: reading what clients send, and pushing changes to all that asked (RFC 6121, section 2.1)."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.core.jid import parse_jid
from nestbox.core.registry import Push
from nestbox.store.roster import RosterItem
from nestbox.wire import ns
from nestbox.wire.element import Element, escape, escape_attribute

if TYPE_CHECKING:
    from nestbox.core.server import Server

__all__ = ["ITEM", "QUERY", "item_bytes", "push_bytes", "push_item", "read_item"]

QUERY = f"{{{ns.ROSTER}}}query"
ITEM = f"{{{ns.ROSTER}}}item"
GROUP = f"{{{ns.ROSTER}}}group"
NAME_BYTES = 1023  # of a name or a group
ITEM_BYTES = 4096  # of the name and all groups together


def read_item(query: Element, own: str) -> tuple[RosterItem, bool]:
    """The one item of a roster set and whether it is to be removed.

    Raises StanzaError as RFC 6121, section 2.3.3 has it; ``own`` is the bare JID of the account.
    """
    if len(query) != 1 or query[0].tag != ITEM:
        raise StanzaError("bad-request", "A roster set has exactly one item.")
    element = query[0]
    try:
        jid = parse_jid(element.get("jid", ""))
    except ValueError as error:
        raise StanzaError("jid-malformed", str(error)) from None
    if jid.is_full:
        raise StanzaError("bad-request", "A contact's address has no resource.")
    if jid.bare == own:
        raise StanzaError("not-allowed", "You cannot be your own contact.")
    if element.get("subscription") == "remove":
        return RosterItem(jid.bare), True
    name = element.get("name", "")
    groups = [child.text or "" for child in element if child.tag == GROUP]
    if len(set(groups)) != len(groups):
        raise StanzaError("bad-request", "A group is named twice.")
    sizes = [len(text.encode()) for text in (name, *groups)]
    if not all(sizes[1:]):
        raise StanzaError("not-acceptable", "A group has an empty name.")
    if max(sizes) > NAME_BYTES or sum(sizes) > ITEM_BYTES:
        raise StanzaError("not-acceptable", "A name is too long.", limit="roster_name_bytes")
    return RosterItem(jid.bare, name, groups=groups), False


def item_bytes(item: RosterItem) -> bytes:
    """The ``<item/>`` of a contact (section 2.1.2), in canonical form for inside of a query."""
    xml = f'<item jid="{escape_attribute(item.jid)}" subscription="{item.subscription}"'
    if item.name:
        xml += f' name="{escape_attribute(item.name)}"'
    if item.ask:
        xml += ' ask="subscribe"'
    if item.approved:
        xml += ' approved="true"'
    if not item.groups:
        return f"{xml}/>".encode()
    groups = "".join([f"<group>{escape(group)}</group>" for group in item.groups])
    return f"{xml}>{groups}</item>".encode()


def push_bytes(item: RosterItem) -> bytes:
    """A roster push (section 2.1.6) in canonical bytes without ``to``; the subscription ``remove`` says it is gone."""
    query = f'<query xmlns="jabber:iq:roster" ver="{item.ver}">'.encode() + item_bytes(item) + b"</query>"
    return f'<iq type="set" id="push-{secrets.token_urlsafe(6)}">'.encode() + query + b"</iq>"


def push_item(server: Server, bare: str, item: RosterItem) -> None:
    """Push a changed contact to every session of ``bare`` that has asked for the roster, on all workers."""
    server.registry.tell_all(Push(bare, push_bytes(item), "interested"))

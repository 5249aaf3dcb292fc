"""The invitation that a room sends (XEP-0045, section 7.8.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestbox.core.jid import JID
from nestbox.modules.muc.stanzas import USER_X
from nestbox.wire import ns
from nestbox.wire.element import el
from nestbox.wire.stanza import MESSAGE, Stanza

if TYPE_CHECKING:
    from nestbox.modules.muc.room import Room

__all__ = ["invitation"]


def invitation(room: Room, inviter: str, to: JID, reason: str | None, thread: str | None = None) -> Stanza:
    """An invitation by the bare JID ``inviter``: mediated, and for clients that know only XEP-0249 direct, too.

    ``thread`` is that of a conversation that goes on in the room (section 7.9), None where none does.
    """
    given = el(f"{{{ns.MUC_USER}}}invite", {"from": inviter})
    direct = el(f"{{{ns.CONFERENCE}}}x", {"jid": room.address})
    if reason:
        given.append(el(f"{{{ns.MUC_USER}}}reason", text=reason))
        direct.set("reason", reason)
    if thread is not None:
        given.append(el(f"{{{ns.MUC_USER}}}continue", {"thread": thread}))
    x = el(USER_X, None, given)
    if room.config.password:
        x.append(el(f"{{{ns.MUC_USER}}}password", text=room.config.password))
        direct.set("password", room.config.password)
    attributes = {"from": room.address, "to": str(to), "id": str(room.server.ids.next())}
    return Stanza(el(MESSAGE, attributes, x, direct))

"""Contact addresses of the service (XEP-0157), in the server's disco answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from nestbox.modules import Xep, dataforms
from nestbox.modules.dataforms import Field

if TYPE_CHECKING:
    from nestbox.core.server import Server

__all__ = ["XEPS", "setup"]

XEPS = (Xep(157, "1.1.1"),)
FORM_TYPE = "http://jabber.org/network/serverinfo"


def setup(server: Server) -> None:
    """Publish what the operator gave; administration and abuse are the administrators' where nobody else is named."""
    config = server.config
    contact = msgspec.structs.asdict(config.contact)
    for kind in ("admin", "abuse"):
        contact[kind] = contact[kind] or [f"xmpp:{admin}@{config.domain}" for admin in config.admins]
    fields = [
        Field("list-multi", f"{kind}-addresses", values=addresses)
        for kind, addresses in sorted(contact.items())
        if addresses
    ]
    if fields:
        server.host_forms.append(dataforms.form(FORM_TYPE, fields, kind="result"))

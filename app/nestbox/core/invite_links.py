"""The links that an invitation is given out as."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from nestbox.config import Config
    from nestbox.store.invites import Invite

__all__ = ["landing_url", "register_uri", "xmpp_uri"]


def landing_url(config: Config, token: str) -> str:
    """The page that says how to go on, for a browser."""
    return f"{config.https_url}/invite/{token}"


def xmpp_uri(domain: str, invite: Invite) -> str:
    """What an app makes of an invitation (XEP-0401, sections 4.1 and 4.4; XEP-0445, section 2)."""
    if invite.contact and invite.inviter and not invite.username:
        ibr = ";ibr=y" if invite.registers else ""
        return f"xmpp:{quote(invite.inviter, safe='')}@{domain}?roster;preauth={invite.token}{ibr}"
    return register_uri(domain, invite)


def register_uri(domain: str, invite: Invite) -> str:
    """The same for an app that is to make an account."""
    name = f"{quote(invite.username, safe='')}@" if invite.username else ""
    return f"xmpp:{name}{domain}?register;preauth={invite.token}"

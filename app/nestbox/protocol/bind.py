"""Resource binding: what a client asks for (RFC 6120, section 7; Bind 2, XEP-0386)."""

from __future__ import annotations

import base64
import hmac
import secrets
from contextlib import suppress
from dataclasses import dataclass

from nestbox import Xep
from nestbox.core.jid import prepare_resource
from nestbox.wire import ns
from nestbox.wire.element import Element
from nestbox.wire.stanza import Stanza

__all__ = ["BIND", "Bind2", "client_of", "requested", "resource_of"]

XEPS = (Xep(386, "1.0.0"),)

BIND = f"{{{ns.BIND}}}bind"
_RESOURCE = f"{{{ns.BIND}}}resource"
_TAG = f"{{{ns.BIND2}}}tag"
_TAG_MAX = 64  # characters


@dataclass(slots=True)
class Bind2:
    """``resource`` is made already; ``client`` is its part that stays the same for one client, '' where none does.

    ``features`` are the elements that ask for something to be switched on.
    """

    resource: str
    client: str
    features: list[Element]


def requested(stanza: Stanza) -> str | None:
    """The resource that an iq asks for, prepared, None: any. Raises ValueError."""
    resource = stanza.payload.findtext(_RESOURCE) or None
    if stanza.type != "set" or (resource and len(resource) > 1023):
        raise ValueError("no resource")
    return resource and prepare_resource(resource)


def client_of(username: str, agent: str, secret: bytes) -> str:
    """What stands for a client's id in the resources of its sessions."""
    digest = hmac.digest(secret, f"resource\0{username}\0{agent}".encode(), "sha256")
    return base64.urlsafe_b64encode(digest[:9]).decode()


def resource_of(element: Element, username: str, agent: str | None, secret: bytes) -> Bind2:
    """What ``<bind/>`` asks for (XEP-0386, sections 3.2 and 3.2.1).

    The resource is the client's tag and a part of ours: the same each time for a client that says which one it is,
    without telling what it said.
    """
    client = client_of(username, agent, secret) if agent else ""
    resource = client or secrets.token_urlsafe(9)
    tag = (element.findtext(_TAG) or "").strip()
    if tag and len(tag) <= _TAG_MAX:
        with suppress(ValueError):  # it is a wish only
            resource = prepare_resource(f"{tag}/{resource}")
    return Bind2(resource, client, [child for child in element if child.tag != _TAG])

"""XEP-0215, External Service Discovery: where calls find STUN and TURN, with credentials for a day.

The credentials are those that TURN servers make up from a shared secret themselves (coturn's ``use-auth-secret``): the
user name says until when they are good, the password is its HMAC-SHA-1. What stands behind the time is the same for all
calls of an account, so that a TURN server can hold it to a quota, and tells nobody whose it is.
"""

from __future__ import annotations

import base64
import hmac
import time
from typing import TYPE_CHECKING

from nestbox.core.delay import timestamp
from nestbox.core.errors import StanzaError
from nestbox.core.hooks import IqContext
from nestbox.modules import Xep
from nestbox.wire import ns
from nestbox.wire.element import Element, el

if TYPE_CHECKING:
    from nestbox.config import ExternalService
    from nestbox.core.server import Server

__all__ = ["XEPS", "setup"]

XEPS = (Xep(215, "1.0.0", "no pushes: what there is changes with the configuration"),)
SERVICES = f"{{{ns.EXTERNAL_SERVICES}}}services"
SERVICE = f"{{{ns.EXTERNAL_SERVICES}}}service"
CREDENTIALS = f"{{{ns.EXTERNAL_SERVICES}}}credentials"


class _ExternalServices:
    def __init__(self, services: list[ExternalService]) -> None:
        self._services = services

    def all(self, context: IqContext) -> Element:
        """The services, of one type where the client asks for one (sections 3.1 and 3.2)."""
        owner = _owner(context)
        kind = context.payload.get("type")
        found = [_describe(service, owner) for service in self._services if kind in (None, service.type)]
        return el(SERVICES, {"type": kind} if kind is not None else None, *found)

    def credentials(self, context: IqContext) -> Element:
        """Credentials for the services that the client names by host, type and perhaps port (section 3.3)."""
        owner = _owner(context)
        wanted = context.payload.findall(SERVICE)
        if not wanted or any(not (one.get("host") and one.get("type")) for one in wanted):
            raise StanzaError("bad-request", "Which service? It has a host and a type.")
        found = [
            _describe(service, owner)
            for service in self._services
            if service.secret
            and any(
                (one.get("host"), one.get("type")) == (service.host, service.type)
                and one.get("port") in (None, str(service.port))
                for one in wanted
            )
        ]
        if not found:
            raise StanzaError("item-not-found", "This server has no credentials for that service.")
        return el(CREDENTIALS, None, *found)


def _owner(context: IqContext) -> str:
    """The account that asks. Raises StanzaError forbidden for everybody else: relaying costs."""
    if context.session is None:
        raise StanzaError("forbidden", "This is for the server's own people.")
    return context.session.user.jid


def _describe(service: ExternalService, owner: str) -> Element:
    facts = {
        "host": service.host,
        "port": str(service.port),
        "transport": service.transport,
        "type": service.type,
    }
    if service.secret:
        until = int(time.time()) + service.seconds
        key = service.secret.encode()
        username = f"{until}:{hmac.digest(key, owner.encode(), 'sha256').hex()[:16]}"
        password = base64.b64encode(hmac.digest(key, username.encode(), "sha1")).decode()
        expires = timestamp(until * 1000)
        facts |= {"restricted": "true", "username": username, "password": password, "expires": expires}
    return el(SERVICE, facts)


def setup(server: Server) -> None:
    """Tell accounts of the services that the operator runs."""
    services = _ExternalServices(server.config.external_services)
    server.router.iq("host", "get", SERVICES, services.all)
    server.router.iq("host", "get", CREDENTIALS, services.credentials)
    server.host_features.add(ns.EXTERNAL_SERVICES)

"""The SASL profile of RFC 6120, section 6; and what it shares with that of XEP-0388."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from nestbox.core.errors import SaslError
from nestbox.protocol.events import Event, Lookup
from nestbox.protocol.sasl import Credentials, Exchange, decode
from nestbox.wire import ns
from nestbox.wire.element import Element, escape, local_name

if TYPE_CHECKING:
    from nestbox.protocol.stream import Stream

__all__ = ["Login", "Sasl1"]


class Login:
    """A login on its way. Its methods raise SaslError, after which it is over, and StreamError."""

    uri = ""
    __slots__ = ("exchange", "stream")

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.exchange: Exchange | None = None

    def begin(self, mechanism: str) -> None:
        """Start an exchange."""
        stream = self.stream
        self.exchange = Exchange(mechanism, stream.options, stream.bindings)

    def receive(self, data: bytes) -> Event | None:
        """Go on with what the client's mechanism says."""
        reply = self.exchange.receive(data)
        if reply is not None:
            return self.verified(reply)
        self.check_name()
        self.stream.wait("credentials")
        return Lookup(self.exchange.username)

    def check_name(self) -> None:
        """The client has said who it wants to be."""

    def credentials(self, credentials: Credentials | None) -> Event | None:
        """Go on with the account's keys."""
        challenge = self.exchange.answer(credentials)
        if challenge is None:
            return self.verified(b"")
        self.challenge(challenge)
        return None

    def challenge(self, data: bytes) -> None:
        """Send a challenge; an empty one asks for the initial response."""
        text = f">{base64.b64encode(data).decode()}</challenge>" if data else "/>"
        self.stream.send(f"<challenge xmlns='{self.uri}'{text}".encode())

    def verified(self, reply: bytes) -> Event | None:
        """The client is who it says; ``reply`` is the mechanism's last word to it."""
        raise NotImplementedError

    def take(self, item: Element) -> Event | None:
        """An element of this profile."""
        raise NotImplementedError

    def failure(self, error: SaslError) -> bytes:
        """``<failure/>`` for an error."""
        raise NotImplementedError


class Sasl1(Login):
    """``<auth/>``, ``<response/>``, ``<abort/>``."""

    uri = ns.SASL
    __slots__ = ()

    def take(self, item: Element) -> Event | None:
        name = local_name(item.tag)
        text = item.text
        if name == "auth":
            self.stream.check_secure()
            self.begin(item.get("mechanism", ""))
            if not text:  # no initial response (section 6.4.2)
                self.challenge(b"")
                return None
        elif name != "response" or self.exchange is None:
            raise SaslError("aborted" if name == "abort" else "malformed-request")
        return self.receive(b"" if not text or text == "=" else decode(text))

    def verified(self, reply: bytes) -> Event:
        return self.stream.logged_in(self.exchange.username, base64.b64encode(reply).decode())

    def failure(self, error: SaslError) -> bytes:
        text = f"<text xml:lang='en'>{escape(error.text)}</text>" if error.text else ""
        return f"<failure xmlns='{ns.SASL}'><{error.condition}/>{text}</failure>".encode()

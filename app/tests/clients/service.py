"""A bot or an app's server on a host of its own: slixmpp as component (XEP-0114)."""

from __future__ import annotations

import asyncio

from slixmpp import ComponentXMPP
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

from tests.clients.site import DOMAIN, SECRET, Site

__all__ = ["Service"]

PUBLISH = "{jabber:component:accept}iq/{http://jabber.org/protocol/pubsub}pubsub"


class Service(ComponentXMPP):
    """Answers each message with its text in capitals, accepts what is published: ``published`` has those requests."""

    def __init__(self, name: str, site: Site) -> None:
        super().__init__(f"{name}.{DOMAIN}", SECRET)
        self.site = site
        self.online = asyncio.Event()
        self.published: asyncio.Queue = asyncio.Queue()
        self.add_event_handler("session_start", lambda event: self.online.set())
        self.add_event_handler("message", self._answer)
        self.register_handler(Callback("published", MatchXPath(PUBLISH), self._accept))

    def _answer(self, message: object) -> None:
        if message["body"] and message["type"] != "error":
            message.reply(message["body"].upper()).send()

    def _accept(self, iq: object) -> None:
        iq.reply().send()
        self.published.put_nowait(iq)

    async def come(self, worker: int) -> Service:
        """Connect to a worker."""
        self.online.clear()
        self.connect("127.0.0.1", self.site[worker].component)
        await asyncio.wait_for(self.online.wait(), 15)
        return self

    async def leave(self) -> None:
        """Close the stream and wait until it is closed."""
        if self.transport is not None:
            await self.disconnect()

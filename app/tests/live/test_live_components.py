"""Components of another maker on four workers: a bot, and an app's server for push notifications."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest
from slixmpp import ComponentXMPP
from slixmpp.xmlstream import ET
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

from tests.live.conftest import COMPONENTS, DOMAIN, SECRET, Cluster

ECHO, PUSH = COMPONENTS
NS_PUSH = "urn:xmpp:push:0"
PUBSUB = "{http://jabber.org/protocol/pubsub}"


class Component(ComponentXMPP):
    """A component that answers each message with its body, and keeps the notifications that are published to it."""

    def __init__(self, host: str, cluster: Cluster, worker: int) -> None:
        super().__init__(host, SECRET, "127.0.0.1", cluster[worker].component)
        self.notifications: asyncio.Queue = asyncio.Queue()
        self.add_event_handler("message", self._echo)
        published = MatchXPath("{jabber:component:accept}iq/" + PUBSUB + "pubsub")
        self.register_handler(Callback("published", published, self._published))
        for plugin in ("xep_0030", "xep_0199"):
            self.register_plugin(plugin)

    def _echo(self, message: object) -> None:
        if message["type"] in ("chat", "normal"):
            message.reply(message["body"]).send()

    def _published(self, iq: object) -> None:
        count = iq.xml.find(".//{jabber:x:data}field[@var='message-count']/{jabber:x:data}value").text
        node = iq.xml.find(f"{PUBSUB}pubsub/{PUBSUB}publish").get("node")
        self.notifications.put_nowait((iq["from"].full, node, count))
        iq.reply(clear=True).send()

    async def next(self) -> tuple[str, str, str]:
        return await asyncio.wait_for(self.notifications.get(), 15)


@pytest.fixture
async def component(cluster: Cluster) -> AsyncIterator[object]:
    """``await component(host, worker)``: a component that is connected; all leave at the end."""
    there: list[Component] = []

    async def come(host: str, worker: int) -> Component:
        one = Component(host, cluster, worker)
        there.append(one)
        ready = asyncio.ensure_future(one.wait_until("session_start", 15))
        one.connect()
        await ready
        return one

    yield come
    for one in there:
        if one.transport is not None:
            await one.disconnect()


async def test_a_bot_answers_people_on_every_worker_and_comes_back(cluster, person, component):
    bot = await component(ECHO, 1)
    people = [await person(name, worker) for name, worker in (("anna", 1), ("ben", 2), ("cleo", 3))]
    for somebody in people:
        somebody.send_message(f"bot@{ECHO}", f"from {somebody.boundjid.bare}")
        answer = await somebody.next_message()
        assert answer["from"] == f"bot@{ECHO}" and answer["body"] == f"from {somebody.boundjid.bare}"
    items = await people[2].plugin["xep_0030"].get_items(DOMAIN)
    assert ECHO in {item[0] for item in items["disco_items"]["items"]}
    assert await people[1].plugin["xep_0199"].ping(ECHO) < 10
    # A message of a component waits for those who are away.
    await people[2].leave()
    bot.send_message(f"cleo@{DOMAIN}", "while you were away", mfrom=f"bot@{ECHO}")
    assert (await (await person("cleo", 2)).next_message())["body"] == "while you were away"
    cluster[1].end(signal.SIGKILL)
    await component(ECHO, 3)
    people[1].send_message(f"bot@{ECHO}", "again")
    assert (await people[1].next_message())["body"] == "again"


async def test_an_apps_server_hears_of_what_waits(cluster, person, component):
    app = await component(PUSH, 2)
    anna, ben = await person("anna", 3), await person("ben", 1)
    enable = ben.make_iq_set(ito=f"ben@{DOMAIN}")
    enable.append(ET.Element(f"{{{NS_PUSH}}}enable", {"jid": PUSH, "node": "phone-7"}))
    await enable.send()
    # A session that may be resumed: one notification, and the message when it is.
    await ben.lose()
    for number in range(3):
        anna.send_message(f"ben@{DOMAIN}", str(number))
    assert await app.next() == (f"ben@{DOMAIN}", "phone-7", "1")
    await anna.plugin["xep_0199"].ping(DOMAIN)
    await ben.come(3)
    assert [(await ben.next_message())["body"] for _ in range(3)] == ["0", "1", "2"]
    # No session at all.
    await ben.leave()
    assert app.notifications.empty()
    anna.send_message(f"ben@{DOMAIN}", "gone")
    assert await app.next() == (f"ben@{DOMAIN}", "phone-7", "1")
    ben = await person("ben", 2)
    assert (await ben.next_message())["body"] == "gone"
    # A client that is there is not told.
    anna.send_message(f"ben@{DOMAIN}", "here")
    assert (await ben.next_message())["body"] == "here"
    await anna.plugin["xep_0199"].ping(DOMAIN)
    assert app.notifications.empty()

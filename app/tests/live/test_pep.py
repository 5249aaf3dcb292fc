"""PEP with somebody else's client, on four workers: keys, pictures, bookmarks, moods (XEP-0060, XEP-0163)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest
from slixmpp.exceptions import IqError
from slixmpp.plugins.xep_0004 import Form
from slixmpp.plugins.xep_0402.stanza import Conference
from slixmpp.xmlstream import ET

from tests.live.conftest import DOMAIN, Person

PLUGINS = (
    "xep_0004", "xep_0048", "xep_0049", "xep_0054", "xep_0060", "xep_0084", "xep_0107", "xep_0115", "xep_0163",
    "xep_0402",
)  # fmt: skip
EVENTS = "{http://jabber.org/protocol/pubsub#event}"
DEVICES = "eu.siacs.conversations.axolotl.devicelist"
BUNDLE = "eu.siacs.conversations.axolotl.bundles:123"
METADATA = "urn:xmpp:avatar:metadata"
BOOKMARKS = "urn:xmpp:bookmarks:1"
MOOD = "http://jabber.org/protocol/mood"
PICTURE = b"\x89PNG" + bytes(500)


class Listener(Person):
    """Somebody who asks to hear of nodes: ``events`` are (sender, node, item's id) as they come."""

    def __init__(self, name: str, resource: str, cluster: object, nodes: tuple[str, ...]) -> None:
        super().__init__(name, resource, cluster)
        for plugin in PLUGINS:
            self.register_plugin(plugin)
        for node in nodes:
            self["xep_0163"].add_interest(node)
        self.events: asyncio.Queue = asyncio.Queue()
        self.add_event_handler("pubsub_publish", self._published)
        self.add_event_handler("pubsub_retract", self._published)
        self.hashes: asyncio.Queue = asyncio.Queue()
        self.add_event_handler("presence", self._hash)

    def _published(self, message: object) -> None:
        items = message.xml.find(f"{EVENTS}event/{EVENTS}items")
        for item in items:
            self.events.put_nowait((message["from"].full, items.get("node"), item.get("id"), item.tag[len(EVENTS) :]))

    def _hash(self, presence: object) -> None:
        photo = presence.xml.findtext("{vcard-temp:x:update}x/{vcard-temp:x:update}photo")
        if photo:
            self.hashes.put_nowait((presence["from"].bare, photo))

    async def next_event(self, node: str) -> tuple[str, str, str, str]:
        """The next notification of a node."""
        async with asyncio.timeout(20):
            while (event := await self.events.get())[1] != node:
                pass
        return event


@pytest.fixture
async def listener(cluster: object) -> AsyncIterator[object]:
    """``await listener("anna", 1, node, ...)``: somebody online at worker 1 who wants to hear of nodes."""
    people: list[Listener] = []

    async def come(name: str, worker: int, *nodes: str, resource: str = "phone") -> Listener:
        somebody = Listener(name, resource, cluster, nodes)
        people.append(somebody)
        await somebody.come(worker)
        return somebody

    yield come
    for somebody in people:
        await somebody.leave()


async def befriend(one: Listener, other: Listener) -> None:
    """Subscribe two people to each other's presence."""
    for asks, answers in ((one, other), (other, one)):
        asks.send_presence_subscription(answers.boundjid.bare, ptype="subscribe")
        await answers.await_presence(asks.boundjid.bare, "subscribe")
        answers.send_presence_subscription(asks.boundjid.bare, ptype="subscribed")
        await asks.await_presence(answers.boundjid.bare, "subscribed")


def options(**fields: str) -> Form:
    form = Form()
    form["type"] = "submit"
    form.add_field(var="FORM_TYPE", ftype="hidden", value="http://jabber.org/protocol/pubsub#publish-options")
    for name, value in fields.items():
        form.add_field(var=f"pubsub#{name}", value=value)
    return form


async def test_keys_of_omemo_are_open_and_their_news_reach_contacts(cluster, listener):
    anna = await listener("anna", 1, DEVICES)
    ben = await listener("ben", 2, DEVICES)
    cleo = await listener("cleo", 3)
    await befriend(anna, ben)
    devices = ET.fromstring("<list xmlns='eu.siacs.conversations.axolotl'><device id='123'/></list>")
    bundle = ET.fromstring("<bundle xmlns='eu.siacs.conversations.axolotl'/>")
    form = options(access_model="open", persist_items="true")
    await anna["xep_0060"].publish(None, DEVICES, id="current", payload=devices, options=form)
    await anna["xep_0060"].publish(None, BUNDLE, id="current", payload=bundle, options=form)
    for person in (anna, ben):
        assert await person.next_event(DEVICES) == (f"anna@{DOMAIN}", DEVICES, "current", "item")
    found = await cleo["xep_0060"].get_items(f"anna@{DOMAIN}", DEVICES)
    assert [item["id"] for item in found["pubsub"]["items"]] == ["current"]
    found = await cleo["xep_0060"].get_item(f"anna@{DOMAIN}", BUNDLE, "current")
    assert found["pubsub"]["items"]["item"]["payload"].tag == "{eu.siacs.conversations.axolotl}bundle"
    with pytest.raises(IqError, match="conflict"):
        await anna["xep_0060"].publish(
            None, DEVICES, id="current", payload=devices, options=options(access_model="whitelist")
        )


async def test_who_comes_online_hears_what_was_published_on_another_worker(cluster, listener):
    anna, ben = await listener("anna", 1), await listener("ben", 2)
    await befriend(anna, ben)
    await ben.leave()
    for number in range(3):
        mood = ET.fromstring(f"<mood xmlns='{MOOD}'><happy/></mood>")
        await anna["xep_0060"].publish(None, MOOD, id=str(number), payload=mood)
    ben = await listener("ben", 3, MOOD, resource="desk")
    assert await ben.next_event(MOOD) == (f"anna@{DOMAIN}", MOOD, "2", "item")
    own = await listener("anna", 2, MOOD, resource="desk")
    assert await own.next_event(MOOD) == (f"anna@{DOMAIN}", MOOD, "2", "item")


async def test_a_picture_is_the_same_for_every_client(cluster, listener):
    anna, ben = await listener("anna", 1), await listener("ben", 2, METADATA)
    await befriend(anna, ben)
    sha1 = hashlib.sha1(PICTURE).hexdigest()
    await anna["xep_0084"].publish_avatar(PICTURE)
    await anna["xep_0084"].publish_avatar_metadata([{"id": sha1, "type": "image/png", "bytes": len(PICTURE)}])
    assert await ben.next_event(METADATA) == (f"anna@{DOMAIN}", METADATA, sha1, "item")
    fetched = await ben["xep_0084"].retrieve_avatar(f"anna@{DOMAIN}", sha1)
    assert fetched["pubsub"]["items"]["item"]["avatar_data"]["value"] == PICTURE
    card = await ben["xep_0054"].get_vcard(f"anna@{DOMAIN}")
    assert card["vcard_temp"]["PHOTO"]["BINVAL"] == PICTURE
    assert await asyncio.wait_for(ben.hashes.get(), 10) == (f"anna@{DOMAIN}", sha1)
    desk = await listener("anna", 3, resource="desk")
    assert await asyncio.wait_for(ben.hashes.get(), 10) == (desk.boundjid.bare, sha1)


async def test_bookmarks_are_on_all_devices_old_and_new(cluster, listener):
    phone = await listener("anna", 1, BOOKMARKS)
    desk = await listener("anna", 2, BOOKMARKS, resource="desk")
    conference = Conference()
    conference["name"], conference["autojoin"], conference["nick"] = "Room", True, "Anna"
    form = options(
        persist_items="true", max_items="max", send_last_published_item="never", access_model="whitelist"
    )  # fmt: skip
    room = f"room@rooms.{DOMAIN}"
    await phone["xep_0060"].publish(None, BOOKMARKS, id=room, payload=conference, options=form)
    assert await desk.next_event(BOOKMARKS) == (f"anna@{DOMAIN}", BOOKMARKS, room, "item")
    stored = await desk["xep_0049"].retrieve("bookmarks")
    assert [(each["jid"], each["name"]) for each in stored["private"]["bookmarks"]["conferences"]] == [(room, "Room")]
    await desk["xep_0060"].retract(None, BOOKMARKS, room, notify=True)
    assert (await phone.next_event(BOOKMARKS))[2:] == (room, "item")
    assert (await phone.next_event(BOOKMARKS))[2:] == (room, "retract")
    stored = await desk["xep_0049"].retrieve("bookmarks")
    assert len(stored["private"]["bookmarks"]["conferences"]) == 0


async def test_a_node_of_the_host(cluster, listener):
    service = f"pubsub.{DOMAIN}"
    anna, ben = await listener("anna", 1), await listener("ben", 3)
    await anna["xep_0060"].create_node(service, "news")
    await ben["xep_0060"].subscribe(service, "news")
    payload = ET.fromstring("<entry xmlns='http://www.w3.org/2005/Atom'/>")
    await anna["xep_0060"].publish(service, "news", id="1", payload=payload)
    assert await ben.next_event("news") == (service, "news", "1", "item")
    config = (await anna["xep_0060"].get_node_config(service, "news"))["pubsub_owner"]["configure"]["form"]
    assert config.get_values()["pubsub#access_model"] == "open"
    found = await ben["xep_0060"].get_item_ids(service, "news")
    assert [name for _, _, name in found["disco_items"]["items"]] == ["1"]
    with pytest.raises(IqError, match="forbidden"):
        await ben["xep_0060"].publish(service, "news", id="2", payload=payload)
    await anna["xep_0060"].delete_node(service, "news")
    with pytest.raises(IqError, match="item-not-found"):
        await ben["xep_0060"].get_items(service, "news")


async def test_a_killed_worker_loses_no_item(cluster, listener):
    anna = await listener("anna", 1)
    payload = ET.fromstring("<x xmlns='x:1'/>")
    await anna["xep_0060"].publish(None, "x:node", id="kept", payload=payload)
    cluster[1].end(9)
    ben = await listener("anna", 2, "x:node", resource="desk")
    assert await ben.next_event("x:node") == (f"anna@{DOMAIN}", "x:node", "kept", "item")
    cluster[1].start()

"""Three makers' clients chat over four workers: messages, copies, history, roster, blocking (RFC 6121 and others)."""

from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ET

from tests.clients.node import NodeClient, StropheClient, XmppClient
from tests.clients.site import DOMAIN, both_databases

BODY = "{jabber:client}message/{jabber:client}body"
FORWARDED = "{urn:xmpp:forward:0}forwarded/" + BODY


async def befriend(anna: NodeClient, ben: NodeClient) -> None:
    """Both see each other's presence from now on (RFC 6121, section 3), whatever library each has."""
    for one, other in ((anna, ben), (ben, anna)):
        await one.send(f"<presence xmlns='jabber:client' type='subscribe' to='{other.jid}'/>")
        await other.stanza("{jabber:client}presence[@type='subscribe']")
        await other.send(f"<presence xmlns='jabber:client' type='subscribed' to='{one.jid}'/>")
        await one.stanza(f"{{jabber:client}}presence[@from='{other.full}']")


@both_databases
async def test_everybody_reaches_everybody(site, names, node, person):
    anna = node(XmppClient, names[0])
    ben = node(StropheClient, names[1])
    await asyncio.gather(anna.come(anna.worker(1)), ben.come(site.websocket))
    cleo = await person(names[2], 4)
    await anna.say(ben.name, "from anna")
    assert await ben.body() == "from anna"
    await ben.say(cleo.boundjid.local, "from ben 🐦")
    assert (await cleo.next_message())["body"] == "from ben 🐦"
    cleo.send_message(anna.jid, "from cleo", mtype="chat")
    assert await anna.body() == "from cleo"


async def test_a_page_without_websocket_chats(site, names, node, person):
    """BOSH: HAProxy gives each request to another worker than the last."""
    anna, ben = node(StropheClient, names[0]), await person(names[1], 2)
    await anna.come(site.bosh)
    for number in range(10):
        await anna.say(names[1], f"ping {number}")
        ben.send_message(anna.jid, f"pong {number}", mtype="chat")
    assert [(await ben.next_message())["body"] for _ in range(10)] == [f"ping {number}" for number in range(10)]
    assert [await anna.body() for _ in range(10)] == [f"pong {number}" for number in range(10)]
    await anna.do("stop")
    await anna.told("stopped")
    ben.send_message(anna.jid, "good night", mtype="chat")
    again = await node(StropheClient, names[0], "later").come(site.bosh)
    assert await again.body() == "good night"


@both_databases
async def test_two_devices_get_copies(site, names, node, person):
    phone, desk = node(XmppClient, names[0]), node(StropheClient, names[0], "desk")
    await asyncio.gather(phone.come(phone.worker(2)), desk.come(site.websocket))
    ben = await person(names[1], 3)
    for device in (phone, desk):
        assert (await device.ask("<enable xmlns='urn:xmpp:carbons:2'/>", kind="set")).get("type") == "result"
    await phone.say(names[1], "sent by the phone")
    received = await ben.next_message()
    copy = await desk.stanza("{jabber:client}message/{urn:xmpp:carbons:2}sent")
    assert copy.find(f"{{urn:xmpp:carbons:2}}sent/{FORWARDED}").text == "sent by the phone"
    assert copy.get("from") == phone.jid
    received.reply("answered to the phone").send()
    copy = await desk.stanza("{jabber:client}message/{urn:xmpp:carbons:2}received")
    assert copy.find(f"{{urn:xmpp:carbons:2}}received/{FORWARDED}").text == "answered to the phone"
    assert await phone.body() == "answered to the phone"
    await desk.send(
        f"<message xmlns='jabber:client' type='chat' to='{names[1]}@{DOMAIN}'><body>for the two of us</body>"
        "<private xmlns='urn:xmpp:carbons:2'/><no-copy xmlns='urn:xmpp:hints'/></message>"
    )
    assert (await ben.next_message())["body"] == "for the two of us"
    await phone.ask("<ping xmlns='urn:xmpp:ping'/>", DOMAIN)
    assert not phone.has_told("stanza", lambda data: "for the two of us" in data)


async def history(client: NodeClient, after: str) -> list[ET.Element]:
    """What came into one's archive after the id ``after``, in pages of three, as a client catches up (XEP-0313)."""
    results: list[ET.Element] = []
    while True:
        page = f"<set xmlns='http://jabber.org/protocol/rsm'><max>3</max><after>{after}</after></set>"
        answer = await client.ask(f"<query xmlns='urn:xmpp:mam:2'>{page}</query>", kind="set")
        for message in client.stanzas("{jabber:client}message/{urn:xmpp:mam:2}result"):
            results.append(message.find("{urn:xmpp:mam:2}result"))
        after = results[-1].get("id")
        if answer.find("{urn:xmpp:mam:2}fin").get("complete") == "true":
            return results


@both_databases
async def test_a_client_catches_up_after_being_away(site, names, node, person):
    anna, ben = node(XmppClient, names[0]), await person(names[1], 1)
    await anna.come(anna.worker(2))
    ben.send_message(anna.jid, "seen", mtype="chat")
    seen = await anna.stanza(BODY)
    await anna.leave()
    for number in range(8):
        ben.send_message(anna.jid, f"missed {number}", mtype="chat")
    await ben.plugin["xep_0199"].ping(DOMAIN)
    again = await node(StropheClient, names[0], "desk").come(site.websocket)
    missed = await history(again, seen.find("{urn:xmpp:sid:0}stanza-id").get("id"))
    bodies = [result.find(FORWARDED).text for result in missed]
    assert bodies == [f"missed {number}" for number in range(8)]
    # The same messages come as offline messages too, under the ids by which a client drops them.
    offline = [await again.stanza(BODY) for _ in range(8)]
    ids = [message.find("{urn:xmpp:sid:0}stanza-id").get("id") for message in offline]
    assert ids == [result.get("id") for result in missed]


async def test_contacts_see_each_other_come_and_go(site, names, node):
    anna, ben = node(XmppClient, names[0]), node(StropheClient, names[1])
    await asyncio.gather(anna.come(anna.worker(3)), ben.come(site.websocket))
    for client in (anna, ben):
        await client.ask("<query xmlns='jabber:iq:roster'/>")
    await befriend(anna, ben)
    item = f"<item jid='{ben.jid}' name='Ben'><group>Friends</group></item>"
    await anna.ask(f"<query xmlns='jabber:iq:roster'>{item}</query>", kind="set")
    roster = await anna.ask("<query xmlns='jabber:iq:roster'/>")
    kept = roster.find("{jabber:iq:roster}query/{jabber:iq:roster}item")
    assert (kept.get("jid"), kept.get("name"), kept.get("subscription")) == (ben.jid, "Ben", "both")
    assert kept.findtext("{jabber:iq:roster}group") == "Friends"
    await ben.do("stop")
    await anna.stanza(f"{{jabber:client}}presence[@type='unavailable'][@from='{ben.full}']")


async def test_a_blocked_contact_is_gone_and_comes_back(site, names, node):
    anna, ben = node(XmppClient, names[0]), node(StropheClient, names[1])
    await asyncio.gather(anna.come(anna.worker(4)), ben.come(site.websocket))
    await befriend(anna, ben)
    item = f"<item xmlns='urn:xmpp:blocking' jid='{ben.jid}'/>"
    assert (await anna.ask(f"<block xmlns='urn:xmpp:blocking'>{item}</block>", kind="set")).get("type") == "result"
    await ben.stanza(f"{{jabber:client}}presence[@type='unavailable'][@from='{anna.full}']")
    await ben.say(anna.name, "hello?")
    error = await ben.stanza("{jabber:client}message[@type='error']")
    assert error.find("{jabber:client}error/{urn:ietf:params:xml:ns:xmpp-stanzas}service-unavailable") is not None
    await anna.say(ben.name, "you are blocked")
    error = await anna.stanza("{jabber:client}message[@type='error']")
    assert error.find("{jabber:client}error/{urn:xmpp:blocking:errors}blocked") is not None
    assert (await anna.ask(f"<unblock xmlns='urn:xmpp:blocking'>{item}</unblock>", kind="set")).get("type") == "result"
    await ben.stanza(f"{{jabber:client}}presence[@from='{anna.full}']")
    await ben.say(anna.name, "thank you")
    assert await anna.body() == "thank you"

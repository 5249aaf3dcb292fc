"""Bots and apps' servers that bring a host of their own (XEP-0114, XEP-0357)."""

from __future__ import annotations

import asyncio

from tests.clients.node import NodeClient, StropheClient, XmppClient
from tests.clients.site import DOMAIN


async def reaches(client: NodeClient, host: str) -> None:
    """Wait until a client's worker has heard that a host is connected; until then it says so, with an error to wait."""
    while True:
        answer = await client.ask("<query xmlns='http://jabber.org/protocol/disco#info'/>", host)
        error = answer.find("{jabber:client}error")
        if error is None or error.find("{urn:ietf:params:xml:ns:xmpp-stanzas}remote-server-timeout") is None:
            return
        assert error.get("type") == "wait"


async def test_a_bot_answers_all_workers_and_moves(site, names, node, service):
    bot = await service("bot", 1)
    anna, ben = node(XmppClient, names[0]), node(StropheClient, names[1])
    await asyncio.gather(anna.come(anna.worker(2)), ben.come(site.bosh))
    for client in (anna, ben):
        await reaches(client, f"bot.{DOMAIN}")
        await client.say_to(f"echo@bot.{DOMAIN}", "hello bot")
        assert await client.body() == "HELLO BOT"
    items = await anna.ask("<query xmlns='http://jabber.org/protocol/disco#items'/>", DOMAIN)
    assert items.find(f".//{{http://jabber.org/protocol/disco#items}}item[@jid='bot.{DOMAIN}']") is not None
    await bot.leave()
    await service("bot", 4)
    await reaches(anna, f"bot.{DOMAIN}")
    await anna.say_to(f"echo@bot.{DOMAIN}", "still there?")
    assert await anna.body() == "STILL THERE?"


async def test_an_app_asleep_is_woken(site, names, node, person, service):
    """The app's server, on another worker, is told that a message waits, and not what it says."""
    server = await service("push", 3)
    ben = await person(names[1], 2)
    phone = node(XmppClient, names[0])
    await phone.come(phone.worker(1))
    enable = f"<enable xmlns='urn:xmpp:push:0' jid='push.{DOMAIN}' node='device-1'/>"
    assert (await phone.ask(enable, kind="set")).get("type") == "result"
    await phone.leave()
    ben.send_message(phone.jid, "wake up", mtype="chat")
    request = await asyncio.wait_for(server.published.get(), 15)
    assert request["from"].bare in (DOMAIN, phone.jid)
    publish = request.xml.find(".//{http://jabber.org/protocol/pubsub}publish")
    assert publish.get("node") == "device-1"
    notification = publish.find("{http://jabber.org/protocol/pubsub}item/{urn:xmpp:push:0}notification")
    count = notification.find(".//{jabber:x:data}field[@var='message-count']/{jabber:x:data}value")
    assert count.text == "1"
    assert "wake up" not in str(request)
    phone = await node(XmppClient, names[0]).come(phone.worker(4))
    await phone.ask("<query xmlns='urn:xmpp:mam:2'/>", kind="set")  # who binds by XEP-0386 looks into the archive
    (missed,) = phone.stanzas("{jabber:client}message/{urn:xmpp:mam:2}result")
    assert missed.findtext(".//{jabber:client}body") == "wake up"

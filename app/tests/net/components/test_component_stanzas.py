"""What components and people (XEP-0114) say to each other: messages, iqs, presence, rooms."""

import asyncio

import pytest

from tests.modules.harness import condition
from tests.net.components.conftest import BOT, DOMAIN, NS

# messages


@pytest.mark.parametrize("worker", [1, 2])
async def test_an_echo_bot_answers_people_on_every_worker(site, worker):
    bot = await site.bot(worker=1)
    anna = await site.world.client("anna", worker=worker)
    await anna.send(f"<message to='echo@{BOT}/x' type='chat' id='m'><body>a &amp; b</body><x xmlns='urn:x'/></message>")
    heard = await bot.expect("message", from_=anna.jid, to=f"echo@{BOT}/x")
    assert heard.findtext(f"{NS}body") == "a & b" and heard.find("{urn:x}x") is not None
    bot.send(f"<message from='echo@{BOT}/x' to='{anna.jid}' type='chat'><body>echo</body></message>")
    said = await anna.expect("message", from_=f"echo@{BOT}/x")
    assert said.element.findtext("{jabber:client}body") == "echo"


async def test_a_message_to_somebody_who_is_away_waits_and_is_archived(site):
    bot = await site.bot(worker=1)
    await site.world.user("anna")
    bot.send(f"<message from='{BOT}' to='anna@{DOMAIN}' type='chat'><body>news</body></message>")
    bot.send(f"<iq from='{BOT}' to='{DOMAIN}' type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>")
    await bot.expect("iq", type="result")
    anna = await site.world.client("anna", worker=2, presence=None)
    await anna.send("<presence/>")
    assert (await anna.expect("message", from_=BOT)).find("{urn:xmpp:delay}delay") is not None
    await anna.iq("set", "<query xmlns='urn:xmpp:mam:2'/>")
    assert any("news" in str(m.encode()) for m in await anna.drain())


async def test_what_people_write_to_a_bot_is_in_their_history_and_on_their_other_devices(site):
    bot = await site.bot(worker=2)
    anna, desk = await site.world.client("anna"), await site.world.client("anna", "desk", worker=2)
    await desk.iq("set", "<enable xmlns='urn:xmpp:carbons:2'/>")
    await site.world.settle()
    await anna.send(f"<message to='{BOT}' type='chat'><body>weather?</body></message>")
    await bot.expect("message")
    await desk.expect("message", tag="{urn:xmpp:carbons:2}sent")
    await anna.iq("set", "<query xmlns='urn:xmpp:mam:2'/>")
    assert any(b"weather?" in m.encode() for m in await anna.drain())


async def test_a_bot_hears_of_a_node_that_it_has_subscribed_to(site):
    bot = await site.bot(worker=2)
    anna = await site.world.client("anna")
    pubsub = "http://jabber.org/protocol/pubsub"
    made = await anna.iq("set", f"<pubsub xmlns='{pubsub}'><create node='news'/></pubsub>", f"pubsub.{DOMAIN}")
    assert made.type == "result"
    ask = f"<pubsub xmlns='{pubsub}'><subscribe node='news' jid='{BOT}'/></pubsub>"
    bot.send(f"<iq from='{BOT}' to='pubsub.{DOMAIN}' type='set' id='s'>{ask}</iq>")
    await bot.expect("iq", type="result", id="s")
    item = "<publish node='news'><item id='1'><entry xmlns='http://www.w3.org/2005/Atom'/></item></publish>"
    await anna.iq("set", f"<pubsub xmlns='{pubsub}'>{item}</pubsub>", f"pubsub.{DOMAIN}")
    told = await bot.expect("message", from_=f"pubsub.{DOMAIN}", to=BOT)
    assert told.find(f"{{{pubsub}#event}}event/{{{pubsub}#event}}items/{{{pubsub}#event}}item").get("id") == "1"


async def test_errors_come_back_to_the_component(site):
    bot = await site.bot()
    bot.send(f"<message from='{BOT}' to='nobody@{DOMAIN}' id='n'><body>x</body></message>")
    error = await bot.expect("message", type="error", id="n")
    assert error.find(f"{NS}error")[0].tag.endswith("}service-unavailable")
    bot.send(f"<message from='{BOT}' to='@{DOMAIN}' id='m'><body>x</body></message>")
    error = await bot.expect("message", type="error", id="m")
    assert error.find(f"{NS}error")[0].tag.endswith("}jid-malformed")
    bot.send(f"<message from='{BOT}' to='x@elsewhere.test' id='e'><body>x</body></message>")
    error = await bot.expect("message", type="error", id="e")
    assert error.find(f"{NS}error")[0].tag.endswith("}remote-server-not-found")


async def test_a_blocked_component_is_not_heard(site):
    bot = await site.bot()
    anna = await site.world.client("anna")
    await anna.iq("set", f"<block xmlns='urn:xmpp:blocking'><item jid='{BOT}'/></block>")
    bot.send(f"<message from='spam@{BOT}' to='{anna.bare}' type='chat' id='s'><body>x</body></message>")
    await bot.expect("message", type="error", id="s")
    await anna.nothing("message")


@pytest.mark.parametrize("worker", [1, 2])
async def test_a_component_that_is_away(site, worker):
    anna = await site.world.client("anna", worker=worker)
    await anna.send(f"<message to='{BOT}' id='m'><body>x</body></message>")
    assert condition(await anna.expect("message", type="error", from_=BOT)) == "remote-server-timeout"
    assert condition(await anna.iq("get", "<ping xmlns='urn:xmpp:ping'/>", BOT)) == "remote-server-timeout"
    await anna.send(f"<presence to='{BOT}'/>")
    assert condition(await anna.expect("presence", type="error", from_=BOT)) == "remote-server-timeout"


async def test_components_talk_to_each_other(site):
    one, other = await site.bot(), await site.bot("irc.nestbox.test", worker=2)
    one.send(f"<message from='a@{BOT}' to='b@irc.nestbox.test'><body>x</body></message>")
    await other.expect("message", from_=f"a@{BOT}", to="b@irc.nestbox.test")
    other.send(f"<presence from='b@irc.nestbox.test' to='a@{BOT}'/>")
    await one.expect("presence", from_="b@irc.nestbox.test")


# iqs


@pytest.mark.parametrize("worker", [1, 2])
async def test_iqs_go_both_ways(site, worker):
    bot = await site.bot(worker=1)
    anna = await site.world.client("anna", worker=worker)
    asking = asyncio.create_task(anna.iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", BOT))
    asked = await bot.expect("iq", from_=anna.jid)
    bot.send(
        f"<iq from='{BOT}' to='{anna.jid}' id='{asked.get('id')}' type='result'>"
        "<query xmlns='http://jabber.org/protocol/disco#info'><identity category='client' type='bot'/></query></iq>"
    )
    assert (await asking).payload[0].get("type") == "bot"
    bot.send(f"<iq from='{BOT}' to='{anna.jid}' type='get' id='v'><query xmlns='jabber:iq:version'/></iq>")
    await anna.expect("iq", id="v", from_=BOT)
    await anna.send(f"<iq to='{BOT}' type='result' id='v'/>")
    await bot.expect("iq", type="result", id="v")


async def test_the_server_lists_its_components_and_answers_them(site):
    anna = await site.world.client("anna")
    items = await anna.iq("get", "<query xmlns='http://jabber.org/protocol/disco#items'/>", DOMAIN)
    assert {BOT, "irc.nestbox.test"} <= {item.get("jid") for item in items.payload}
    bot = await site.bot(worker=2)
    query = "<query xmlns='http://jabber.org/protocol/disco#info'/>"
    bot.send(f"<iq from='{BOT}' to='{DOMAIN}' type='get' id='d'>{query}</iq>")
    info = await bot.expect("iq", type="result", id="d")
    assert info.find(".//{http://jabber.org/protocol/disco#info}identity").get("category") == "server"
    bot.send(f"<iq from='{BOT}' to='nobody@{DOMAIN}' type='get' id='n'>{query}</iq>")
    await bot.expect("iq", type="error", id="n")


# presence


async def test_presence_and_probes(site):
    bot = await site.bot(worker=1)
    anna = await site.world.client("anna", worker=2)
    await anna.send(f"<presence to='gate@{BOT}' type='subscribe'/>")
    await bot.expect("presence", type="subscribe", from_=anna.bare, to=f"gate@{BOT}")
    bot.send(f"<presence from='gate@{BOT}' to='{anna.bare}' type='subscribed'/>")
    bot.send(f"<presence from='gate@{BOT}' to='{anna.bare}' type='subscribe'/>")
    await anna.expect("presence", type="subscribe", from_=f"gate@{BOT}")
    await anna.send(f"<presence to='gate@{BOT}' type='subscribed'/>")
    await bot.expect("presence", type="subscribed")
    await bot.expect("presence", from_=anna.jid)
    bot.send(f"<presence from='gate@{BOT}/1' to='{anna.bare}'><status>ready</status></presence>")
    await anna.expect("presence", from_=f"gate@{BOT}/1", type=None)
    await anna.send("<presence><show>away</show></presence>")
    assert (await bot.expect("presence", from_=anna.jid)).findtext(f"{NS}show") == "away"
    bot.send(f"<presence from='gate@{BOT}' to='{anna.bare}' type='probe'/>")
    assert (await bot.expect("presence", from_=anna.jid)).findtext(f"{NS}show") == "away"
    desk = await site.world.client("anna", "desk", worker=1)
    await bot.expect("presence", type="probe", from_=desk.jid, to=f"gate@{BOT}")
    await bot.expect("presence", from_=desk.jid)
    for client in (anna, desk):
        await client.leave()
        await bot.expect("presence", type="unavailable", from_=client.jid)
    bot.send(f"<presence from='gate@{BOT}' to='{anna.bare}' type='probe'/>")
    await bot.expect("presence", type="unavailable", from_=anna.bare)


async def test_a_probe_of_a_stranger(site):
    bot = await site.bot()
    anna = await site.world.client("anna")
    bot.send(f"<presence from='x@{BOT}' to='{anna.bare}' type='probe'/>")
    await bot.expect("presence", type="unsubscribed", from_=anna.bare, to=f"x@{BOT}")
    assert not bot.stanzas


async def test_presence_while_the_component_is_away_disturbs_nobody(site):
    bot = await site.bot()
    anna = await site.world.client("anna")
    await anna.iq("get", "<query xmlns='jabber:iq:roster'/>")
    await anna.send(f"<presence to='gate@{BOT}' type='subscribe'/>")
    bot.send(f"<presence from='gate@{BOT}' to='{anna.bare}' type='subscribed'/>")
    await anna.expect("presence", type="subscribed")
    await anna.send(f"<presence to='gate@{BOT}'/>")
    await bot.leave()
    await anna.drain()
    await anna.send("<presence><show>dnd</show></presence>")
    assert [p.type for p in await anna.drain() if p.from_ != anna.jid] == []
    await anna.leave()


# rooms

TEA = f"tea@rooms.{DOMAIN}"
MUC = "<x xmlns='http://jabber.org/protocol/muc'/>"


async def tea(site, worker=1):
    """Somebody in a new room."""
    anna = await site.world.client("anna", worker=worker)
    await anna.send(f"<presence to='{TEA}/anna'>{MUC}</presence>")
    form = "<query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'/></query>"
    assert (await anna.iq("set", form, TEA)).type == "result"
    await anna.drain()
    return anna


async def enter(bot, nick="robo"):
    bot.send(f"<presence from='me@{BOT}/x' to='{TEA}/{nick}'>{MUC}</presence>")
    itself = await bot.expect("presence", from_=f"{TEA}/{nick}", to=f"me@{BOT}/x")
    assert "110" in {status.get("code") for status in itself.iter("{http://jabber.org/protocol/muc#user}status")}
    await bot.until(lambda: any(stanza.find(f"{NS}subject") is not None for stanza in bot.stanzas))
    await bot.site.world.settle()
    bot.stanzas.clear()


@pytest.mark.parametrize("worker", [1, 2])
async def test_a_bot_is_in_a_room(site, worker):
    anna = await tea(site, worker=1)
    bot = await site.bot(worker=worker)
    await anna.send(
        f"<message to='{TEA}'><x xmlns='http://jabber.org/protocol/muc#user'><invite to='me@{BOT}'/></x></message>"
    )
    await bot.expect("message", from_=TEA)
    await enter(bot)
    await anna.expect("presence", from_=f"{TEA}/robo")
    for server in site.world.servers.values():
        await server.registry.reload()
    await site.world.settle()
    await anna.send(f"<message to='{TEA}' type='groupchat'><body>hi robo</body></message>")
    heard = await bot.expect("message", from_=f"{TEA}/anna", type="groupchat")
    assert heard.findtext(f"{NS}body") == "hi robo"
    bot.send(f"<message from='me@{BOT}/x' to='{TEA}' type='groupchat'><body>hi anna</body></message>")
    said = await anna.expect("message", from_=f"{TEA}/robo", type="groupchat")
    assert said.element.findtext("{jabber:client}body") == "hi anna"
    await anna.send(f"<message to='{TEA}/robo' type='chat'><body>psst</body></message>")
    await bot.expect("message", from_=f"{TEA}/anna", type="chat")
    bot.send(f"<iq from='me@{BOT}/x' to='{TEA}' type='set' id='mam'><query xmlns='urn:xmpp:mam:2'/></iq>")
    await bot.expect("iq", id="mam", type="result")
    assert any(stanza.find("{urn:xmpp:mam:2}result") is not None for stanza in bot.stanzas)
    bot.send(f"<presence from='me@{BOT}/x' to='{TEA}/robo' type='unavailable'/>")
    await anna.expect("presence", from_=f"{TEA}/robo", type="unavailable")


async def test_a_room_notices_that_a_bot_is_gone(site):
    anna = await tea(site)
    bot = await site.bot(worker=2)
    await enter(bot)
    await bot.leave()
    await site.world.settle()
    await anna.drain()
    await anna.send(f"<message to='{TEA}' type='groupchat'><body>robo?</body></message>")
    gone = await anna.expect("presence", from_=f"{TEA}/robo", type="unavailable")
    assert b'code="333"' in gone.encode()

"""Rooms with clients of several makers: a group that encrypts, moderation, history (XEP-0045, XEP-0384, XEP-0425)."""

from __future__ import annotations

import asyncio

from slixmpp import JID

from tests.clients.node import StropheClient, XmppClient
from tests.clients.omemo_person import OmemoPerson
from tests.clients.site import DOMAIN, both_databases


@both_databases
async def test_a_group_of_three_encrypts(site, names, person, web_chat):
    """Members only, everybody's address known: what the apps ask of a room before they encrypt in it."""
    room = f"group-{names[0]}@rooms.{DOMAIN}"
    anna, ben = await asyncio.gather(person(names[0], 1, kind=OmemoPerson), person(names[1], 2, kind=OmemoPerson))
    await asyncio.gather(anna.forget_omemo_2(), ben.forget_omemo_2())
    await anna.open_room(room, membersonly="1", whois="anyone", persistentroom="1", roomname="Group")
    for name in names[1:]:
        await anna["xep_0045"].set_affiliation(room, "member", jid=f"{name}@{DOMAIN}")
    await ben["xep_0045"].join_muc_wait(JID(room), "ben")
    cleo = await web_chat(names[2])
    await cleo.join(room)
    await cleo.encrypt()  # her keys are published
    await anna.sees_in_room(room, names[2])
    await anna.encrypt("hello you two", names[1], names[2], room=room)
    assert (await ben.next_encrypted())["body"] == "hello you two"
    await cleo.sees("hello you two")
    assert (await anna.next_encrypted())["body"] == "hello you two"  # her own, back from the room
    await cleo.say("hello from the browser")
    for phone in (anna, ben):
        assert (await phone.next_encrypted())["body"] == "hello from the browser"


@both_databases
async def test_a_moderator_takes_a_message_back(site, names, node, person, web_chat):
    """It vanishes in the browser, other apps are told, and who comes later does not find it (XEP-0425)."""
    room = f"hall-{names[0]}@rooms.{DOMAIN}"
    anna = await person(names[0], 1, kind=OmemoPerson)
    await anna.open_room(room, persistentroom="1", roomname="Hall")
    ben = node(XmppClient, names[1])
    await ben.come(ben.worker(2))
    await ben.send(f"<presence to='{room}/ben'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
    await ben.stanza("{jabber:client}message/{jabber:client}subject")
    cleo = await web_chat(names[2])
    await cleo.join(room)
    await ben.send(f"<message type='groupchat' to='{room}' id='bad'><body>buy my coins</body></message>")
    await cleo.sees("buy my coins")
    bad = await anna.next_message()
    await anna["xep_0425"].moderate(JID(room), bad["stanza_id"]["id"], "advertising")
    told = await ben.stanza("{jabber:client}message/{urn:xmpp:message-retract:1}retract")
    assert told.find("{urn:xmpp:message-retract:1}retract").get("id") == bad["stanza_id"]["id"]
    await cleo.page.wait_for_selector("converse-chat-message >> text=buy my coins", state="detached")
    results = [result["mam_result"] async for result in anna["xep_0313"].iterate(JID(room))]
    assert "buy my coins" not in "".join(str(result) for result in results)
    assert any(result["id"] == bad["stanza_id"]["id"] for result in results)


async def test_a_room_on_four_workers(site, names, node, person):
    """Who is there, who says what, in the same order for all; who comes later reads what was said."""
    room = f"yard-{names[0]}@rooms.{DOMAIN}"
    anna = await person(names[0], 1, kind=OmemoPerson)
    await anna.open_room(room, persistentroom="1")
    ben, cleo = node(StropheClient, names[1]), node(XmppClient, names[2])
    await asyncio.gather(ben.come(site.websocket), cleo.come(cleo.worker(3)))
    for client, nick in ((ben, "ben"), (cleo, "cleo")):
        await client.send(
            f"<presence xmlns='jabber:client' to='{room}/{nick}'><x xmlns='http://jabber.org/protocol/muc'/></presence>"
        )
        await client.stanza("{jabber:client}message/{jabber:client}subject")
    await anna.sees_in_room(room, names[2])
    for number in range(10):
        for client in (ben, cleo):
            text = f"<body>{client.name} {number}</body>"
            await client.send(f"<message xmlns='jabber:client' type='groupchat' to='{room}'>{text}</message>")
    heard = [(await anna.next_message())["body"] for _ in range(20)]
    assert sorted(heard) == sorted(f"{name} {number}" for name in names[1:] for number in range(10))
    for client in (ben, cleo):
        assert [await client.body() for _ in range(20)] == heard
    later = node(StropheClient, names[1], "later")
    await later.come(site.bosh)
    answer = await later.ask("<query xmlns='urn:xmpp:mam:2'/>", room, kind="set")
    assert answer.get("type") == "result"
    kept = later.stanzas("{jabber:client}message/{urn:xmpp:mam:2}result")
    assert [message.findtext(".//{jabber:client}body") for message in kept] == heard

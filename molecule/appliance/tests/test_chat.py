"""People chat over every transport and across workers; roster, presence, offline messages and history work."""

from __future__ import annotations

import asyncio

from clients import DOMAIN
from slixmpp import JID
from slixmpp.xmlstream import ET

pytest_plugins = ["appliance"]

INSTANT_ROOM = '<query xmlns="http://jabber.org/protocol/muc#owner"><x xmlns="jabber:x:data" type="submit"/></query>'


def test_three_transports_chat(appliance):
    async def chat() -> None:
        async with (
            appliance.tcp("ada", 5222) as ada,
            appliance.tcp("bob", 5223) as bob,
            appliance.websocket("eve") as eve,
        ):
            for client in (ada, bob):
                client.send_presence()
            ada.send_message(f"bob@{DOMAIN}", "from ada", mtype="chat")
            assert await bob.text() == (f"ada@{DOMAIN}", "from ada")
            bob.send_message(f"eve@{DOMAIN}", "from bob", mtype="chat")
            assert await eve.text() == (f"bob@{DOMAIN}", "from bob")
            await eve.say(f"ada@{DOMAIN}", "from eve")
            assert await ada.text() == (f"eve@{DOMAIN}", "from eve")

    asyncio.run(chat())


def test_a_client_that_has_but_http_chats_from_any_worker(appliance):
    """BOSH: HAProxy or the workers themselves bring each request to the worker that has the session."""

    async def chat() -> None:
        async with appliance.on_each_worker("ada") as ada, appliance.bosh("eve") as eve:
            for worker, session in ada.items():
                session.send_message(f"eve@{DOMAIN}", f"from {worker}", mtype="chat")
                await eve.say(session.boundjid.full, f"to {worker}")
                assert await session.text() == (f"eve@{DOMAIN}", f"to {worker}")
                assert await eve.text() == (f"ada@{DOMAIN}", f"from {worker}")

    asyncio.run(chat())


def test_messages_cross_workers_in_both_directions(appliance):
    async def chat() -> None:
        async with appliance.on_each_worker("ada") as ada, appliance.on_each_worker("bob") as bob:
            for here, there in ((1, 2), (2, 1), (1, 1)):
                body = f"from {here} to {there}"
                ada[here].send_message(bob[there].boundjid.full, body, mtype="chat")
                assert await bob[there].text() == (f"ada@{DOMAIN}", body)

    asyncio.run(chat())


def test_a_room_is_one_on_all_workers(appliance):
    room = JID(f"hall@rooms.{DOMAIN}")

    async def meet() -> None:
        async with appliance.on_each_worker("ada") as ada, appliance.on_each_worker("bob") as bob:
            await ada[1].plugin["xep_0045"].join_muc_wait(room, "Ada", maxstanzas=0, timeout=20)
            opened = ada[1].make_iq_set(ito=room)
            opened.append(ET.fromstring(INSTANT_ROOM))
            await opened.send(timeout=20)
            await bob[2].plugin["xep_0045"].join_muc_wait(room, "Bob", maxstanzas=0, timeout=20)
            for speaker, name in ((ada[1], "Ada"), (bob[2], "Bob")):
                speaker.send_message(room, f"{name} speaks", mtype="groupchat")
                for listener in (ada[1], bob[2]):
                    assert await listener.text() == (room.bare, f"{name} speaks")

    asyncio.run(meet())


def test_roster_and_presence_across_workers(appliance):
    async def befriend() -> None:
        async with appliance.tcp("ada") as ada, appliance.tcp("bob", 5223) as bob:
            for client in (ada, bob):
                client.auto_authorize = client.auto_subscribe = True
                await client.get_roster()
                client.send_presence()
            subscribed = bob.wait_until("presence_subscribe", 20)
            ada.send_presence_subscription(f"bob@{DOMAIN}")
            await subscribed
            await ada.presence_of("bob", "available")
            await bob.presence_of("ada", "available")
            assert ada.client_roster[f"bob@{DOMAIN}"]["subscription"] == "both"
            bob.send_presence(pshow="dnd")
            await ada.presence_of("bob", "dnd")
        async with appliance.tcp("ada") as ada:
            await ada.get_roster()
            ada.send_presence()
            assert f"bob@{DOMAIN}" in ada.client_roster
            async with appliance.tcp("bob", 5223) as bob:
                bob.send_presence()
                await ada.presence_of("bob", "available")
            await ada.presence_of("bob", "unavailable")

    asyncio.run(befriend())


def test_offline_messages_arrive_at_the_next_login(appliance):
    async def chat() -> None:
        async with appliance.tcp("ada") as ada:
            ada.send_presence()
            for number in range(5):
                ada.send_message(f"bob@{DOMAIN}", f"while away {number}", mtype="chat")
            await ada.plugin["xep_0199"].send_ping(DOMAIN)
        async with appliance.tcp("bob", 5223) as bob:
            bob.send_presence()
            assert [(await bob.text())[1] for _ in range(5)] == [f"while away {number}" for number in range(5)]

    asyncio.run(chat())


def test_history_is_there_on_any_worker(appliance):
    async def chat() -> None:
        async with appliance.tcp("ada") as ada, appliance.tcp("bob", 5223) as bob:
            for client in (ada, bob):
                client.send_presence()
            for number in range(3):
                ada.send_message(f"bob@{DOMAIN}", f"kept {number}", mtype="chat")
                await bob.text()
        async with appliance.tcp("bob", 5222, "later") as bob:
            kept = []
            async for result in bob.plugin["xep_0313"].iterate(with_jid=f"ada@{DOMAIN}"):
                kept.append(result["mam_result"]["forwarded"]["stanza"]["body"])
            assert kept[-3:] == ["kept 0", "kept 1", "kept 2"]

    asyncio.run(chat())

"""Two people chat, whichever workers they are on: roster, presence, messages, copies, history (RFC 6121)."""

import asyncio
import time

from tests.live.conftest import DOMAIN


async def test_people_on_different_workers_chat(cluster, person):
    anna, ben = await person("anna", 1), await person("ben", 2)
    anna.send_message(f"ben@{DOMAIN}", "hello 👋")
    received = await ben.next_message()
    assert received["body"] == "hello 👋"
    assert received["from"] == f"anna@{DOMAIN}/phone"
    received.reply("hello yourself").send()
    assert (await anna.next_message())["body"] == "hello yourself"


async def test_presence_follows_the_roster_over_workers(cluster, person):
    anna, ben = await person("anna", 1), await person("ben", 2)
    anna.send_presence_subscription(f"ben@{DOMAIN}", ptype="subscribe")
    await ben.await_presence(f"anna@{DOMAIN}", "subscribe")
    ben.send_presence_subscription(f"anna@{DOMAIN}", ptype="subscribed")
    await anna.await_presence(f"ben@{DOMAIN}", "subscribed")
    await anna.await_presence(f"ben@{DOMAIN}/phone", "available")
    await anna.get_roster()
    assert anna.client_roster[f"ben@{DOMAIN}"]["subscription"] == "to"
    await ben.leave()
    await anna.await_presence(f"ben@{DOMAIN}/phone", "unavailable")
    await person("ben", 3, "desk")
    await anna.await_presence(f"ben@{DOMAIN}/desk", "available")


async def test_offline_messages_wait_and_come_once(cluster, person):
    anna = await person("anna", 1)
    for number in range(20):
        anna.send_message(f"ben@{DOMAIN}", str(number))
    await anna.plugin["xep_0199"].ping(DOMAIN)  # all twenty are dealt with: stanzas are handled in order
    ben = await person("ben", 2)
    received = [await ben.next_message() for _ in range(20)]
    assert [message["body"] for message in received] == [str(number) for number in range(20)]
    assert all(message["delay"]["stamp"] for message in received)
    await ben.plugin["xep_0199"].ping(DOMAIN)  # and so the client has acknowledged them (XEP-0198)
    await ben.leave()
    ben = await person("ben", 3)
    anna.send_message(f"ben@{DOMAIN}", "fresh")
    assert (await ben.next_message())["body"] == "fresh"


async def test_other_devices_get_copies(cluster, person):
    anna, ben = await person("anna", 1), await person("ben", 2)
    desk = await person("anna", 3, "desk")
    await desk.plugin["xep_0280"].enable()
    anna.send_message(f"ben@{DOMAIN}", "sent from the phone")
    copy = await asyncio.wait_for(desk.copies.get(), 10)
    assert copy["carbon_sent"]["body"] == "sent from the phone"
    await ben.next_message()
    ben.send_message(f"anna@{DOMAIN}/phone", "to the phone only")
    copy = await asyncio.wait_for(desk.copies.get(), 10)
    assert copy["carbon_received"]["body"] == "to the phone only"


async def test_history_is_there_on_every_worker(cluster, person):
    anna, ben = await person("anna", 1), await person("ben", 2)
    ids = []
    for number in range(5):
        anna.send_message(f"ben@{DOMAIN}", f"message {number}")
        ids.append((await ben.next_message())["stanza_id"]["id"])
    for reader in (await person("ben", 3, "tablet"), await person("anna", 3, "tablet")):
        results = [result["mam_result"] async for result in reader.plugin["xep_0313"].iterate(rsm={"max": 2})]
        bodies = [result["forwarded"]["stanza"]["body"] for result in results]
        assert bodies == [f"message {number}" for number in range(5)]
        assert [result["id"] for result in results] == ids


async def test_message_to_nobody_comes_back(cluster, person):
    anna = await person("anna", 1)
    errors = asyncio.Queue()
    anna.add_event_handler("message_error", errors.put_nowait)
    anna.send_message(f"nobody@{DOMAIN}", "anyone there?")
    error = await asyncio.wait_for(errors.get(), 10)
    assert error["error"]["condition"] == "service-unavailable"


async def test_wrong_password_and_unknown_name_look_alike(cluster):
    from tests.live.conftest import Person

    for name in ("anna", "nobody"):
        stranger = Person(name, "x", cluster)
        stranger.password = "wrong"
        begin = time.monotonic()
        stranger.connect("127.0.0.1", cluster[1].port)
        await asyncio.wait_for(stranger.failed.wait(), 10)
        assert time.monotonic() - begin < 10
        await stranger.leave()

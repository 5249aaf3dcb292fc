"""Rooms over four workers, with slixmpp's own rooms (XEP-0045, XEP-0313, XEP-0249)."""

import asyncio
import signal

from tests.live.conftest import DOMAIN

ROOM = f"tea@rooms.{DOMAIN}"
PLUGINS = ("xep_0004", "xep_0045", "xep_0249")


async def come(person, name, worker):
    """Somebody online, with rooms."""
    somebody = await person(name, worker)
    for plugin in PLUGINS:
        somebody.register_plugin(plugin)
    somebody.said = asyncio.Queue()
    somebody.add_event_handler("groupchat_message", somebody.said.put_nowait)
    somebody.muc = somebody.plugin["xep_0045"]
    return somebody


async def enter(somebody, nick):
    return await somebody.muc.join_muc_wait(ROOM, nick, timeout=10, maxstanzas=20)


async def hears(somebody, text):
    async with asyncio.timeout(10):
        while True:
            message = await somebody.said.get()
            if message["body"] == text:
                return message


async def everybody(person):
    """A room with the three people, each on another worker."""
    people = [await come(person, name, worker) for worker, name in enumerate(("anna", "ben", "cleo"), 1)]
    anna = people[0]
    await enter(anna, "Anna")
    form = await anna.muc.get_room_config(ROOM)
    form.set_type("submit")
    form.set_values({"muc#roomconfig_roomname": "Tea", "muc#roomconfig_persistentroom": True})
    await anna.muc.set_room_config(ROOM, form)
    for somebody, nick in zip(people[1:], ("Ben", "Cleo"), strict=True):
        await enter(somebody, nick)
    return people


async def test_people_meet_in_a_room(cluster, person):
    anna, ben, cleo = await everybody(person)
    assert set(cleo.muc.get_roster(ROOM)) == {"Anna", "Ben", "Cleo"}
    ben.send_message(ROOM, "hello all", mtype="groupchat")
    for somebody in (anna, ben, cleo):
        message = await hears(somebody, "hello all")
        assert message["from"] == f"{ROOM}/Ben" and message["stanza_id"]["by"] == ROOM
    await anna.plugin["xep_0199"].ping(f"{ROOM}/Anna")  # XEP-0410
    info = await cleo.plugin["xep_0030"].get_info(ROOM)
    assert "muc_persistent" in info["disco_info"]["features"]
    rooms = await cleo.plugin["xep_0030"].get_items(f"rooms.{DOMAIN}")
    assert (ROOM, None, "Tea") in rooms["disco_items"]["items"]


async def test_kick_ban_and_affiliations(cluster, person):
    anna, ben, cleo = await everybody(person)
    gone = asyncio.Queue()
    ben.add_event_handler(f"muc::{ROOM}::self-presence", gone.put_nowait)
    await anna.muc.set_role(ROOM, "Ben", "none", reason="enough")
    presence = await asyncio.wait_for(gone.get(), 10)
    assert presence["type"] == "unavailable" and 307 in presence["muc"]["status_codes"]
    await anna.muc.set_affiliation(ROOM, "outcast", jid=f"ben@{DOMAIN}")
    assert [str(jid) for jid in await anna.muc.get_affiliation_list(ROOM, "outcast")] == [f"ben@{DOMAIN}"]
    try:
        await enter(ben, "Ben")
        raise AssertionError("a banned person is inside")
    except Exception as error:  # slixmpp has its own kinds
        assert "forbidden" in str(getattr(error, "condition", error))
    await anna.muc.set_affiliation(ROOM, "none", jid=f"ben@{DOMAIN}")
    await enter(ben, "Ben")
    cleo.send_message(ROOM, "welcome back", mtype="groupchat")
    await hears(ben, "welcome back")


async def test_history_and_archive(cluster, person):
    anna, ben, _ = await everybody(person)
    for number in range(5):
        anna.send_message(ROOM, str(number), mtype="groupchat")
        await hears(ben, str(number))
    desk = await come(person, "cleo", 2)
    desk.said = asyncio.Queue()
    await enter(desk, "Cleo")
    results = [
        result["mam_result"]["forwarded"]["stanza"]["body"]
        async for result in desk.plugin["xep_0313"].iterate(jid=ROOM, rsm={"max": 2})
    ]
    assert results == [str(number) for number in range(5)]


async def test_a_killed_worker_takes_nobody_else_out(cluster, person):
    people = await everybody(person)
    anna, ben, cleo = people
    gone = asyncio.Queue()
    ben.add_event_handler(f"muc::{ROOM}::got_offline", gone.put_nowait)
    cluster[1].end(signal.SIGKILL)
    cluster[1].start()
    async with asyncio.timeout(30):
        while (await gone.get())["from"].resource != "Anna":
            pass
    ben.send_message(ROOM, "still here?", mtype="groupchat")
    assert (await hears(cleo, "still here?"))["from"] == f"{ROOM}/Ben"
    anna.abort()
    again = await come(person, "anna", 1)
    await enter(again, "Anna")
    again.send_message(ROOM, "back", mtype="groupchat")
    await hears(ben, "back")

"""Connections break, workers die: what was acknowledged is not lost (design, section 4)."""

import asyncio
import signal

import pytest

from nestbox.store import open_store
from tests.live.conftest import DOMAIN


async def archived(cluster, name):
    """The bodies in somebody's archive, read past the server."""
    store = await open_store(cluster.database)
    try:
        owner = (await store.accounts.get(name)).id
        page = await store.archive.query(owner, limit=10_000)
        return [row.stanza.decode().partition("<body>")[2].partition("</body>")[0] for row in page.rows]
    finally:
        await store.close()


async def until_archived(cluster, name, count):
    """Wait until so many messages are in somebody's archive, and no more."""
    async with asyncio.timeout(10):
        while len(found := await archived(cluster, name)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert len(found) == count


async def until_journaled(valkey, person, body):
    """Wait until the bus has a message that a client was given and has not acknowledged."""
    reader, writer = await asyncio.open_unix_connection(valkey.socket)
    async with asyncio.timeout(10):
        said = b""
        while f"<body>{body}</body>".encode() not in said:
            writer.write(f"HVALS nestbox:journal:{person.plugin['xep_0198'].sm_id}\r\n".encode())
            said = await reader.read(65536)
    writer.close()


async def test_a_session_resumes_on_another_worker(cluster, person):
    anna, ben = await person("anna", 1), await person("ben", 2)
    await ben.is_known_to(anna)
    await ben.lose()
    for number in range(5):
        anna.send_message(f"ben@{DOMAIN}", str(number))
    await anna.plugin["xep_0199"].ping(DOMAIN)
    await ben.come(3)
    assert [(await ben.next_message())["body"] for _ in range(5)] == [str(number) for number in range(5)]
    anna.send_message(f"ben@{DOMAIN}", "after")
    assert (await ben.next_message())["body"] == "after"
    assert ben.plugin["xep_0198"].enabled_in  # resumed, not logged in anew


async def test_a_stopping_worker_hands_its_sessions_over(cluster, person):
    anna, ben = await person("anna", 1), await person("ben", 2)
    cluster[2].end(signal.SIGTERM)
    await ben.wait_until("disconnected", 10)
    anna.send_message(f"ben@{DOMAIN}", "while you move")
    await ben.come(3)
    assert (await ben.next_message())["body"] == "while you move"


async def test_acknowledged_messages_survive_a_killed_worker(cluster, person):
    anna = await person("anna", 1)
    management = anna.plugin["xep_0198"]
    before = management.seq
    sent = 0
    while management.last_ack < before + 100:  # some are acknowledged, some are on their way
        assert sent < 1900
        for _ in range(5):
            anna.send_message(f"ben@{DOMAIN}", str(sent))
            sent += 1
        await asyncio.sleep(0.005)  # a steady stream, so that several commits lie between
    acknowledged = management.last_ack - before
    cluster[1].end(signal.SIGKILL)
    kept = await archived(cluster, "ben")
    assert kept[:acknowledged] == [str(number) for number in range(acknowledged)]
    assert len(kept) == len(set(kept))


async def test_a_session_goes_on_after_its_worker_was_killed(cluster, person, valkey):
    """What was on its way to the client is replayed by another worker, what the client had sent is there once."""
    anna, ben = await person("anna", 1), await person("ben", 2)
    anna.send_message(f"ben@{DOMAIN}", "before")
    assert (await ben.next_message())["body"] == "before"
    ben.transport.pause_reading()  # what comes from now on is lost with the connection
    for number in range(5):
        anna.send_message(f"ben@{DOMAIN}", str(number))
        ben.send_message(f"anna@{DOMAIN}", str(number))
    await until_archived(cluster, "anna", 11)  # committed, though nobody was told so
    await until_journaled(valkey, ben, 4)
    cluster[2].end(signal.SIGKILL)
    ben.abort()
    await ben.wait_until("disconnected", 10)
    await ben.come(3)
    assert ben.plugin["xep_0198"].enabled_in  # resumed, not logged in anew
    assert [(await ben.next_message())["body"] for _ in range(5)] == [str(number) for number in range(5)]
    anna.send_message(f"ben@{DOMAIN}", "after")
    assert (await ben.next_message())["body"] == "after"
    ben.send_message(f"anna@{DOMAIN}", "after")
    assert [(await anna.next_message())["body"] for _ in range(6)] == [*map(str, range(5)), "after"]
    await until_archived(cluster, "anna", 13)


async def test_a_killed_worker_is_no_reason_to_be_gone(cluster, person):
    """Contacts see that it died only where nobody can come back; messages wait for whoever comes."""
    anna, ben = await person("anna", 1), await person("ben", 2)
    anna.send_presence_subscription(f"ben@{DOMAIN}", ptype="subscribe")
    await ben.await_presence(f"anna@{DOMAIN}", "subscribe")
    ben.send_presence_subscription(f"anna@{DOMAIN}", ptype="subscribed")
    await anna.await_presence(f"ben@{DOMAIN}/phone", "available")
    cluster[2].end(signal.SIGKILL)
    anna.send_message(f"ben@{DOMAIN}", "are you there?")
    cluster[2].start()
    ben = await person("ben", 2, "tablet")
    assert (await ben.next_message())["body"] == "are you there?"
    await anna.await_presence(f"ben@{DOMAIN}/tablet", "available")
    assert not [presence for presence in anna.seen if presence["type"] == "unavailable"]


async def test_chat_goes_on_after_the_bus_was_restarted(cluster, person, valkey):
    anna, ben = await person("anna", 1), await person("ben", 2)
    valkey.stop()
    valkey.start()
    async with asyncio.timeout(20):
        while True:
            anna.send_message(f"ben@{DOMAIN}", "hello again")
            try:
                assert (await ben.next_message(1))["body"] == "hello again"
                break
            except TimeoutError:
                continue


async def all_acknowledged(person):
    """Wait until the server has acknowledged all that somebody sent."""
    management = person.plugin["xep_0198"]
    async with asyncio.timeout(20):
        while management.last_ack < management.seq:
            management.request_ack()
            await asyncio.sleep(0.05)


async def test_messages_reach_the_store_while_the_bus_is_away(cluster, person, valkey):
    """They are acknowledged, and whoever could not be reached gets them when it is back."""
    anna, ben = await person("anna", 1), await person("ben", 2)
    valkey.kill()
    for number in range(5):
        anna.send_message(f"ben@{DOMAIN}", str(number))
    await all_acknowledged(anna)
    assert await archived(cluster, "ben") == [str(number) for number in range(5)]
    valkey.start()
    assert sorted([(await ben.next_message(20))["body"] for _ in range(5)]) == [str(number) for number in range(5)]


@pytest.mark.parametrize("database_url", ["mariadb"], indirect=True)
async def test_nothing_is_acknowledged_or_delivered_while_the_database_is_away(cluster, person, mariadb):
    anna, ben = await person("anna", 1), await person("ben", 1)
    management = anna.plugin["xep_0198"]
    await all_acknowledged(anna)
    mariadb.kill()
    try:
        handled = management.last_ack
        anna.send_message(f"ben@{DOMAIN}", "wait")
        management.request_ack()
        await anna.plugin["xep_0199"].ping(DOMAIN)  # the server has seen both
        assert management.last_ack == handled
        assert management.seq > handled
        assert ben.messages.empty()
        anna.send_message(f"cleo@{DOMAIN}", "you, too")  # of whom her worker knows nothing yet
        with pytest.raises(TimeoutError):
            await anna.next_message(1)  # it does not come back
    finally:
        mariadb.start()
    assert (await ben.next_message(20))["body"] == "wait"
    await all_acknowledged(anna)
    assert await archived(cluster, "ben") == ["wait"]
    assert await archived(cluster, "cleo") == ["you, too"]
    assert anna.online.is_set() and ben.online.is_set()

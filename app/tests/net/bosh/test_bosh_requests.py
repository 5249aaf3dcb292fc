"""The requests of a BOSH session (XEP-0124): their order, holding them, and what is too much."""

import asyncio
from xml.etree import ElementTree

import pytest

from nestbox.net import bosh_session as module
from tests.net.bosh.conftest import AUTH, PATIENCE, PING, RID, SASL, Client, over

# rids


async def test_requests_are_dealt_with_in_their_order(site):
    client = await Client(site).login()
    ben = await site.world.client("ben", worker=2)
    first, second = (
        client.body(f"<message xmlns='jabber:client' to='{ben.bare}'><body>{n}</body></message>") for n in (1, 2)
    )
    late = asyncio.create_task(client.post(second))
    await site.until(lambda: site.session(client)._bodies)
    assert len(await client.post(first)) == 0  # only one is held
    assert [(await ben.expect("message")).element[0].text for _ in (1, 2)] == ["1", "2"]
    await ben.send(f"<message to='{client.jid}'><body>3</body></message>")
    assert b">3<" in ElementTree.tostring(await late)


async def test_a_repeated_request_gets_the_same_answer_and_is_done_once(site):
    client = await Client(site).login()
    ben = await site.world.client("ben")
    request = client.body(f"<message xmlns='jabber:client' to='{ben.bare}'><body>once</body></message>" + PING)
    first = await client.raw(request)
    again = await client.raw(request, worker=2)
    assert b"result" in first.body and first.body == again.body
    await ben.expect("message")
    await ben.nothing("message")


async def test_a_repeated_request_that_is_still_held_takes_its_place(site):
    client = await Client(site).login()
    request = client.body()
    first = asyncio.create_task(client.post(request))
    await site.until(lambda: site.session(client)._live() == 1)
    second = asyncio.create_task(client.post(request))
    assert len(await first) == 0
    ben = await site.world.client("ben")
    await ben.send(f"<message to='{client.jid}'><body>for the second</body></message>")
    assert b"for the second" in ElementTree.tostring(await second)


@pytest.mark.parametrize("distance", [-9, 3, 1000])
async def test_a_rid_outside_of_the_window_ends_the_session(site, distance):
    client = await Client(site).login()
    last = next(client.rids) - 1
    assert over(await client.send(rid=str(last + distance)), "item-not-found")
    assert over(await client.send(rid=str(last + 1)), "item-not-found")
    await site.until(lambda: not site.world.servers[1].registry.sessions)


async def test_acknowledgements_tell_what_came(site):
    client = await Client(site).login(ack="1")
    waiting = await site.hold(client)
    second = asyncio.create_task(client.send(PING))
    first = await waiting
    assert int(first.get("ack")) == RID + 5  # the one that is held now
    assert (await second).get("ack") is None  # it would be its own


# holding


async def test_nothing_is_answered_after_the_time_the_client_said(site):
    client = await Client(site).login(wait="1")
    begin = asyncio.get_running_loop().time()
    answer = await client.send()
    assert len(answer) == 0 and answer.get("type") is None
    assert 0.9 < asyncio.get_running_loop().time() - begin < 5
    assert (await client.send(PING))[0].get("type") == "result"


async def test_several_payloads_share_an_answer(site):
    client = await Client(site).login()
    waiting = await site.hold(client)
    [session] = site.world.servers[1].registry.sessions.values()
    for number in range(3):
        session.send(f'<message id="{number}"/>'.encode())
    assert [message.get("id") for message in await waiting] == ["0", "1", "2"]


async def test_too_many_requests_at_a_time(site):
    client = await Client(site).login()
    site.session(client).pause_reading()  # as while the store is asked
    tasks = []
    for number in (1, 2):
        tasks.append(asyncio.create_task(client.send(PING)))
        await site.until(lambda number=number: site.session(client)._live() == number)
    assert over(await client.send(PING), "policy-violation")
    for task in tasks:
        assert over(await task, "other-request")
    assert site.world.limits_hit() == {"bosh_requests": 1}


async def test_what_came_while_the_server_was_busy_is_dealt_with(site):
    client = await Client(site).login()
    site.session(client).pause_reading()
    tasks = []
    for number in (1, 2):
        tasks.append(asyncio.create_task(client.send(PING)))
        await site.until(lambda number=number: site.session(client)._live() == number)
    site.session(client).resume_reading()
    told = [len(await task) for task in tasks]
    while sum(told) < 2:
        told.append(len(await client.send()))
    assert sum(told) == 2


async def test_asking_too_often(site):
    client = await Client(site).login()
    waiting = await site.hold(client)
    assert over(await client.send(), "policy-violation")
    assert over(await waiting, "other-request")
    assert site.world.limits_hit() == {"bosh_requests": 1}


async def test_a_polling_session(site, monkeypatch):
    client = Client(site)
    answer = await client.create(hold="0")
    assert (answer.get("hold"), answer.get("requests"), answer.get("polling")) == ("0", "1", "5")
    assert len(await client.send()) == 0  # at once
    assert over(await client.send(), "policy-violation")
    monkeypatch.setattr(module, "POLLING", 0)
    client = Client(site)
    assert (await client.create(wait="0")).get("polling") == "0"
    await client.send(AUTH)
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await client.send()
            if len(answer):
                break
    assert answer[0].tag == f"{{{SASL}}}success"


# limits


async def test_before_the_login_little_is_read(site):
    client = Client(site)
    await client.create()
    assert over(await client.send(f"<auth xmlns='{SASL}'>{'A' * 20_000}</auth>"), "policy-violation")
    assert site.session(client) is None and site.world.limits_hit() == {"stanza_bytes_before_login": 1}
    assert over(await Client(site).create(xml__lang="x" * 20_000), "policy-violation")


@pytest.mark.parametrize("worker", [1, 2])
async def test_after_the_login_more_is_read_but_not_all(site, worker):
    client = await Client(site).login()
    client.worker = worker
    big = "<message xmlns='jabber:client' to='nobody@nestbox.test'><body>%s</body></message>"
    assert (await client.send(big % ("A" * 200_000)))[0].get("type") == "error"
    assert over(await client.send(big % ("A" * 300_000)), "policy-violation")
    assert site.world.limits_hit() == {"stanza_bytes": 1}


@pytest.fixture
def small_buffer(limits):
    limits.write_buffer_bytes = 50_000


async def test_what_waits_for_the_client_is_bounded(small_buffer, site):
    client = await Client(site).login()
    ben = await site.world.client("ben")
    for _ in range(6):
        await ben.send(f"<message to='{client.jid}'><body>{'A' * 10_000}</body></message>")
    await site.until(lambda: site.boshes[1].options.slow_consumers == 1)
    assert over(await client.send(), "remote-connection-failed")
    await site.until(lambda: not site.connections[1].open)


async def test_there_is_room_for_so_many_sessions_only(site):
    site.world.config.limits.connections = 1
    await Client(site).create()
    answer = await Client(site).create()
    assert over(answer, "remote-stream-error")
    assert answer[0][0].tag == "{urn:ietf:params:xml:ns:xmpp-streams}resource-constraint"
    assert len(site.boshes[1]._sessions) == 1

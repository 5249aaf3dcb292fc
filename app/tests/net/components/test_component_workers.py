"""Components (XEP-0114) find their way while workers come and go."""

import asyncio

import pytest

from nestbox.modules import components as module
from tests.modules.harness import condition
from tests.net.components.conftest import BOT, PATIENCE


async def test_a_killed_worker_takes_its_components_with_it(site):
    await site.bot(worker=1)
    anna = await site.world.client("anna", worker=2)
    lost = site.world.servers[1]
    await lost.bus.close()
    await anna.send(f"<iq type='get' id='p' to='{BOT}'><ping xmlns='urn:xmpp:ping'/></iq>")  # to nobody
    await site.world.servers[2].registry.worker_lost(1)
    await site.world.settle()
    assert condition(await anna.iq("get", "<ping xmlns='urn:xmpp:ping'/>", BOT)) == "remote-server-timeout"
    assert not site.world.hub.hashes[module.KEY]
    bot = await site.bot(worker=2)
    await anna.send(f"<message to='{BOT}'><body>x</body></message>")
    await bot.expect("message")


async def test_what_a_dead_worker_did_not_take_comes_back(site):
    await site.bot(worker=1)
    anna = await site.world.client("anna", worker=2)
    registry = site.world.servers[2].registry
    sent = []
    registry._bus.send = lambda worker, payload: sent.append((worker, payload))
    await anna.send(f"<message to='{BOT}' id='m'><body>x</body></message>")
    await site.world.servers[2].store.committer.flush()
    [(worker, payload)] = sent
    await site.world.servers[2].router.undelivered(worker, payload)
    assert condition(await anna.expect("message", type="error", id="m")) == "remote-server-timeout"


async def test_what_comes_too_late_at_a_worker_follows_the_component(site):
    first = await site.bot(worker=1)
    anna = await site.world.client("anna", worker=2)
    old = dict(site.places(2))
    await first.leave()
    await site.world.settle()
    site.world.servers[2].components._places = old  # has not heard that it left
    site.world.servers[1].components._places = dict(old)
    await anna.send(f"<message to='{BOT}' id='m'><body>x</body></message>")
    assert condition(await anna.expect("message", type="error", id="m")) == "remote-server-timeout"
    bot = await site.bot(worker=2)
    site.world.servers[1].components._places = dict(old)
    ben = await site.world.client("ben", worker=1)
    await ben.send(f"<message to='{BOT}'><body>x</body></message>")
    await bot.expect("message", from_=ben.jid)


async def test_a_restarted_worker_knows_where_components_are(site):
    bot = await site.bot(worker=1)
    await site.world.servers[2].stop()
    await site.world.servers[2].bus.close()
    await site.world.servers[2].store.close()
    await site.world.start_worker(2)
    await site.world.settle()
    anna = await site.world.client("anna", worker=2)
    await anna.send(f"<message to='{BOT}'><body>x</body></message>")
    await bot.expect("message")


@pytest.mark.parametrize("killed", [False, True])
async def test_its_place_is_taken_back_from_a_worker_that_has_it_no_more(site, monkeypatch, killed):
    site.world.hub.hashes[module.KEY] = {BOT: module._encode(module.Place(BOT, 2, 7))}
    server = site.world.servers[1]
    if killed:  # and nobody has noticed yet
        await site.world.servers[2].bus.close()
        monkeypatch.setattr(server.bus, "workers", lambda: {1, 2})
        send = server.bus.send
        lost = []
        monkeypatch.setattr(server.bus, "send", lambda worker, payload: lost.append((worker, payload)))
        coming = asyncio.create_task(site.bot(worker=1))
        async with asyncio.timeout(PATIENCE):
            while not lost:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        monkeypatch.setattr(server.bus, "send", send)
        await server.router.undelivered(*lost[0])
        await coming
    else:
        await site.bot(worker=1)
    assert site.places(1)[BOT].worker == 1


async def test_a_worker_that_does_not_say_is_believed(site, monkeypatch):
    monkeypatch.setattr(module, "ASK_SECONDS", 0.05)
    await site.bot(worker=2)
    monkeypatch.setattr(site.world.servers[1].bus, "send", lambda worker, payload: None)
    assert await (await site.stranger().come()).end() == "conflict"


async def test_when_the_bus_forgot_all_the_places_are_told_again(site):
    await site.bot(worker=1)
    site.world.hub.hashes.pop(module.KEY)
    site.places(2).clear()
    for server in site.world.servers.values():
        await server.registry.reload()
    await site.world.settle()
    assert set(site.places(2)) == {BOT} and set(site.world.hub.hashes[module.KEY]) == {BOT}


async def test_of_two_that_were_let_in_the_later_stays(site):
    first = await site.bot(worker=1)
    site.world.hub.hashes.pop(module.KEY)
    await site.bot(worker=2)
    assert await first.end() == "conflict"


async def test_a_worker_that_stops_says_so(site):
    bot = await site.bot(worker=1)
    await site.world.servers[1].stop()
    assert await bot.end() == "system-shutdown"
    assert not site.places(2)
    assert await (await site.stranger().come()).end() == "system-shutdown"

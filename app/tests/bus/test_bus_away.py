"""The bus while its engine is away, and after it came back."""

import asyncio
import contextlib

import pytest

from nestbox.bus import BusError
from nestbox.bus.channel import Channel
from tests.bus.worker import Worker, until_away, workers


@contextlib.asynccontextmanager
async def cut_off(valkey):
    """A worker whose engine has stopped."""
    async with workers(valkey.url, 1) as [one]:
        await asyncio.to_thread(valkey.stop)
        await until_away(one.bus)
        yield one


def test_the_engine_is_restarted(run, valkey, fast_heart):
    async def scenario():
        async with workers(valkey.url, 2) as [one, two]:
            await one.bus.set("k", b"v", None)
            await asyncio.to_thread(valkey.stop)
            await until_away(one.bus, two.bus)
            waiting = asyncio.create_task(one.bus.hset("h", "f", b"asked while it was away"))
            one.bus.send(2, b"sent while it was away")
            await asyncio.to_thread(valkey.start)
            await waiting
            assert await one.bus.hget("h", "f") == b"asked while it was away"
            assert await one.bus.get("k") is None
            await two.until(lambda: two.reconnects)
            one.bus.send(2, b"after")
            await two.until(lambda: b"after" in two.got)
            # The message from the time between either came or was reported; it is not lost in silence.
            assert (b"sent while it was away" in two.got) != ((2, b"sent while it was away") in one.undelivered)
            await asyncio.sleep(1.2)  # two heartbeats
            assert one.lost == two.lost == [] and one.bus.workers() == {1, 2}

    run(scenario())


def test_what_is_sent_while_the_engine_is_restarted_comes_in_order(run, valkey):
    """The receiver comes back to the engine while that reads what the sender had to keep."""

    async def scenario():
        async with workers(valkey.url, 2) as [one, two]:
            connect = two.bus._subscriber._connect

            async def just_behind():
                while not one.bus._commands.connected:  # noqa: ASYNC110
                    await asyncio.sleep(0)
                await connect()

            two.bus._subscriber._connect = just_behind
            await asyncio.to_thread(valkey.stop)
            await until_away(one.bus, two.bus)
            sent = [b"%d" % number + bytes(3_000) for number in range(500)]
            for payload in sent[:400]:  # each in a turn, and so in a group, of its own
                one.bus.send(2, payload)
                await asyncio.sleep(0)
            await asyncio.to_thread(valkey.start)
            for payload in sent[400:]:
                one.bus.send(2, payload)
                await asyncio.sleep(0.005)
            await two.until(lambda: len(two.got) == len(sent))
            assert two.got == sent and one.undelivered == []

    run(scenario())


def test_what_comes_back_goes_before_what_was_not_sent_yet(run):
    """The answers for 1 and 2 come one after the other; 3 is sent in between."""

    class Engine:
        connected = True

        def __init__(self):
            self.asked = []

        def send(self, words, done, **options):
            self.asked.append((words[2], done))

    async def scenario():
        engine = Engine()
        channel = Channel(engine, "c", lambda: True, lambda payloads: None)
        channel.send(b"1", [])
        channel.send(b"2", [])
        (_, first), (_, second) = engine.asked
        first(0)
        channel.send(b"3", [])
        second(0)
        engine.asked.clear()
        channel.back()
        engine.asked[0][1](1)
        assert [data for data, _ in engine.asked] == [b"1", b"2", b"3"]

    run(scenario())


def test_what_waits_for_a_worker_that_has_died_is_given_back(run, valkey, monkeypatch):
    monkeypatch.setattr("nestbox.bus.channel.LATE_SECONDS", 60)

    async def scenario():
        async with workers(valkey.url, 2) as [one, two]:
            two.bus._heart.cancel()
            await two.bus._subscriber.stop()  # as kill -9 leaves it
            one.bus._forgive()  # the engine was restarted a moment ago
            for payload in (b"a", b"b"):
                one.bus.send(2, payload)
                await asyncio.sleep(0.1)
            assert one.undelivered == []
            again = await Worker(valkey.url, 2).start()
            await one.until(lambda: len(one.undelivered) == 2)
            assert one.lost == [2] and one.undelivered == [(2, b"a"), (2, b"b")] and again.got == []
            await again.bus.close()

    run(scenario())


def test_whoever_has_set_a_value_is_found_alive_after_the_engine_was_restarted(run, valkey):
    """A worker that starts meanwhile must not hold the others for dead."""

    async def scenario():
        async with workers(valkey.url, 2) as [one, two]:
            await asyncio.to_thread(valkey.stop)
            await until_away(one.bus, two.bus)
            one.bus.post("h", {"f": b"v"})
            await asyncio.to_thread(valkey.start)
            while not await two.bus.hgetall("h"):
                pass
            assert await two.bus.living() == {1, 2}

    run(scenario())


def test_commands_fail_in_time_when_the_bus_stays_away(run, valkey, monkeypatch):
    monkeypatch.setattr("nestbox.bus.resp.ANSWER_SECONDS", 0.5)
    monkeypatch.setattr("nestbox.bus.channel.AWAY_SECONDS", 0.5)

    async def scenario():
        async with cut_off(valkey) as one:
            one.bus.send(2, b"x")
            with pytest.raises(BusError):
                await one.bus.get("k")
            assert one.undelivered == [(2, b"x")]
            assert one.bus._commands._bytes == 0

    run(scenario())


def test_what_waits_for_the_bus_is_bounded(run, valkey, monkeypatch):
    monkeypatch.setattr("nestbox.bus.resp.MAX_WAITING_BYTES", 10_000)
    monkeypatch.setattr("nestbox.bus.channel.MAX_WAITING_BYTES", 10_000)

    async def scenario():
        async with cut_off(valkey) as one:
            for _ in range(20):
                one.bus.send(2, bytes(1000))
                await asyncio.sleep(0)
            with pytest.raises(BusError, match="too many"):
                await one.bus.set("k", bytes(11_000), None)
            assert 10 <= len(one.undelivered) <= 12
            assert one.bus.counts.limits_hit == {"bus_groups": len(one.undelivered), "bus_commands": 1}

    run(scenario())


def test_so_many_commands_and_groups_wait_for_the_bus(run, valkey, monkeypatch):
    monkeypatch.setattr("nestbox.bus.resp.MAX_WAITING", 3)
    monkeypatch.setattr("nestbox.bus.channel.MAX_WAITING", 3)

    async def scenario():
        async with cut_off(valkey) as one:
            for number in range(5):
                one.bus.send(2, b"%d" % number)
                await asyncio.sleep(0)
            assert one.undelivered == [(2, b"3"), (2, b"4")]
            assert one.bus.counts.limits_hit["bus_groups"] == 2
            asked = [asyncio.ensure_future(one.bus.get("k")) for _ in range(6)]
            done = await asyncio.gather(*asked, return_exceptions=True)
            assert any("too many" in str(error) for error in done)
            assert one.bus.counts.limits_hit["bus_commands"] >= 3

    run(scenario())

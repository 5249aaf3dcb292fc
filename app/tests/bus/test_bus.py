"""The bus, in one process and over a real Valkey or Redis."""

import asyncio
import os
import socket

import pytest

from nestbox.bus import BusError, open_bus
from nestbox.bus import redis as redis_module
from nestbox.bus.local import LocalBus
from nestbox.bus.redis import RedisBus
from nestbox.config import Bus as BusConfig
from nestbox.config import ConfigError
from tests.bus.worker import Worker, workers


async def values(bus):
    """What every bus must do with values."""
    assert await bus.hgetall("h") == {} and await bus.hget("h", "a") is None
    await bus.hset("h", "a@x/ü", b"\0\r\n\xff")
    await bus.hset("h", "message", b"subscribe")
    assert await bus.hgetall("h") == {"a@x/ü": b"\0\r\n\xff", "message": b"subscribe"}
    assert await bus.hget("h", "message") == b"subscribe"
    assert await bus.hdel("h", "message", "none") == 1 and await bus.hdel("h", "none") == 0
    assert await bus.delete("h") == 1 and await bus.delete("h") == 0
    assert await bus.swap("s", "f", None, b"1") == b"1" and await bus.swap("s", "f", None, b"2") == b"1"
    assert await bus.swap("s", "f", b"2", None) == b"1" and await bus.swap("s", "f", b"1", b"2") == b"2"
    assert await bus.swap("s", "f", b"2", None) is None and await bus.hgetall("s") == {}
    await bus.set("k", b"v", None)
    assert await bus.get("k") == b"v" and await bus.take("k") == b"v"
    assert await bus.take("k") is None and await bus.get("k") is None
    assert [await bus.incr("n"), await bus.incr("n")] == [1, 2]
    await bus.set("brief", b"v", 0.05)
    assert await bus.get("brief") == b"v"
    while await bus.get("brief") is not None:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def test_local_values(run):
    run(values(open_bus("local", 1)))


def test_redis_values(run, valkey):
    async def scenario():
        async with workers(valkey.url, 1) as [one]:
            await values(one.bus)

    run(scenario())


def test_local_bus_is_alone(run):
    async def scenario():
        bus, undelivered = LocalBus(3), []
        bus.on_undelivered = lambda worker, payload: undelivered.append((worker, payload))
        await bus.start(lambda payload: undelivered.append("received"))
        bus.broadcast(b"x")
        bus.send(4, b"y")
        assert undelivered == [(4, b"y")] and bus.workers() == {3}

    run(scenario())


def test_one_taker_gets_the_value(run, valkey):
    async def scenario():
        async with workers(valkey.url, 3) as started:
            await started[0].bus.set("k", b"v", 60)
            taken = await asyncio.gather(*(worker.bus.take("k") for worker in started for _ in range(5)))
            assert taken.count(b"v") == 1 and taken.count(None) == 14

    run(scenario())


def test_a_flood_of_messages_leaves_the_loop_to_others(run, valkey, monkeypatch):
    """The loop turns between them, and their order holds, also over a lost connection."""
    monkeypatch.setattr(redis_module, "SLICE", 0.0)  # one message a turn

    async def scenario():
        async with workers(valkey.url, 2) as [one, two]:
            turns, between = 0, []

            async def turn():
                nonlocal turns
                while True:
                    await asyncio.sleep(0)
                    turns += 1

            note = two.bus._handler
            two.bus._handler = lambda payload: (between.append(turns), note(payload))
            turning = asyncio.create_task(turn())
            for number in range(100):
                one.bus.send(2, b"%d" % number) if number % 7 else one.bus.broadcast(b"%d" % number)
            await two.until(lambda: len(two.got) >= 50)
            two.bus._subscriber.abort()
            await two.until(lambda: two.reconnects)
            came = [int(payload) for payload in two.got]
            assert came == list(range(len(came))) and len(came) >= 50
            assert len(set(between[:50])) > 25, "others had their turn between them"
            turning.cancel()

    run(scenario())


def test_messages_arrive_in_order_with_broadcasts_between(run, valkey):
    async def scenario():
        async with workers(valkey.url, 3) as [one, two, three]:
            expected_two, expected_three = [], []
            for number in range(2000):
                payload = b"%d" % number + os.urandom(number % 50)
                if number % 7 == 0:
                    one.bus.broadcast(payload)
                    expected_two.append(payload)
                    expected_three.append(payload)
                else:
                    one.bus.send(2 + number % 2, payload)
                    (expected_three if number % 2 else expected_two).append(payload)
                if number % 100 == 0:
                    await asyncio.sleep(0)
            await two.until(lambda: len(two.got) == len(expected_two))
            await three.until(lambda: len(three.got) == len(expected_three))
            assert two.got == expected_two and three.got == expected_three
            assert one.got == [] and one.undelivered == []
            assert one.bus.counts.sent == 2000 and two.bus.counts.received == len(expected_two)

    run(scenario())


def test_a_turn_of_the_loop_is_one_publish(run, valkey):
    async def scenario():
        async with workers(valkey.url, 2) as [one, two]:
            before = await one.bus._commands.ask("INFO", "commandstats")
            for number in range(100):
                one.bus.send(2, b"%d" % number)
            await two.until(lambda: len(two.got) == 100)
            after = await one.bus._commands.ask("INFO", "commandstats")

            def published(info):
                return int(info.split(b"cmdstat_publish:calls=")[1].split(b",")[0])

            assert published(after) - published(before) <= 3  # heartbeats publish, too

    run(scenario())


def test_large_messages(run, valkey):
    async def scenario():
        async with workers(valkey.url, 2) as [one, two]:
            sent = [os.urandom(300_000) for _ in range(10)]
            for payload in sent:
                one.bus.send(2, payload)
            await two.until(lambda: len(two.got) == 10)
            assert two.got == sent

    run(scenario())


def test_what_reaches_nobody_is_reported(run, valkey):
    async def scenario():
        async with workers(valkey.url, 1) as [one]:
            one.bus.send(9, b"a")
            one.bus.send(9, b"b")
            await one.until(lambda: len(one.undelivered) == 2)
            assert one.undelivered == [(9, b"a"), (9, b"b")]

    run(scenario())


def test_a_guest_speaks_but_is_no_worker(run, valkey):
    async def scenario():
        async with workers(valkey.url, 2) as [one, two]:
            guest = await Worker(valkey.url, 0).start()
            assert guest.bus.workers() == {1, 2}
            guest.bus.broadcast(b"x")
            guest.bus.send(2, b"y")
            await one.until(lambda: one.got)
            await two.until(lambda: len(two.got) == 2)
            assert one.bus.workers() == {1, 2} and two.got == [b"x", b"y"]
            await guest.bus.close()  # what it said has been sent before it leaves
            assert not one.lost

    run(scenario())


def test_a_failing_handler_does_not_stop_the_others(run, valkey):
    async def scenario():
        async with workers(valkey.url, 2) as [one, two]:
            good = two._note(two.got)
            two.bus._handler = lambda payload: 1 / 0 if payload == b"bad" else good(payload)
            for payload in (b"a", b"bad", b"b"):
                one.bus.send(2, payload)
            await two.until(lambda: len(two.got) == 2)

    run(scenario())


def test_workers_see_each_other_come_and_go(run, valkey, fast_heart):
    async def scenario():
        async with workers(valkey.url, 2) as [one, two]:
            assert two.bus.workers() == {1, 2}
            two.bus.broadcast(b"x")
            await one.until(lambda: one.got)
            assert one.bus.workers() == {1, 2}
            await two.bus.close()
            await one.until(lambda: one.lost)
            assert one.lost == [2] and one.bus.workers() == {1}

    run(scenario())


def test_a_worker_that_died_is_noticed_by_its_silence_and_by_its_return(run, valkey, fast_heart):
    async def scenario():
        async with workers(valkey.url, 3) as [one, two, three]:
            for worker in (two, three):  # as kill -9 leaves them
                worker.bus._heart.cancel()
                await worker.bus._subscriber.stop()
            again = await Worker(valkey.url, 2).start()
            await one.until(lambda: 2 in one.lost)  # though its key never went away
            assert one.bus.workers() == {1, 2, 3}
            await one.until(lambda: 3 in one.lost)
            assert one.bus.workers() == {1, 2} and sorted(one.lost) == [2, 3]
            await again.bus.close()

    run(scenario())


def test_a_worker_that_was_thought_dead_writes_itself_anew(run, valkey, fast_heart):
    async def scenario():
        async with workers(valkey.url, 1) as [one]:
            await one.bus.delete("alive:1")
            await one.until(lambda: one.reconnects == 1)

    run(scenario())


def test_a_repeated_message_is_dropped_and_a_missed_one_is_noticed(run, valkey):
    async def scenario():
        async with workers(valkey.url, 2) as [one, two]:
            one.bus.send(2, b"first")
            await two.until(lambda: two.got)
            channel = "nestbox:worker:2"
            one.bus._numbers[channel] -= 1
            one.bus.send(2, b"first, sent again")
            one.bus.send(2, b"and its group")
            await asyncio.sleep(0)
            one.bus.send(2, b"second")
            await two.until(lambda: len(two.got) == 2)
            assert two.got == [b"first", b"second"] and two.reconnects == 0
            one.bus._numbers[channel] += 1
            one.bus.send(2, b"fourth")
            await two.until(lambda: len(two.got) == 3)
            assert two.reconnects == 1

    run(scenario())


def test_a_subscription_that_is_cut_comes_back(run, valkey):
    async def scenario():
        async with workers(valkey.url, 2) as [one, two]:
            two.bus._subscriber.abort()
            await two.until(lambda: two.reconnects == 1)
            one.bus.send(2, b"x")
            await two.until(lambda: two.got)

    run(scenario())


@pytest.mark.parametrize("known", [True, False])
def test_a_bus_with_a_password(run, valkey, tmp_path, caplog, monkeypatch, known):
    (tmp_path / "password").write_text("Right1\n" if known else "Wrong1\n")
    monkeypatch.setattr(redis_module, "SUBSCRIBE_SECONDS", 0.5)
    address = BusConfig(valkey.url, str(tmp_path / "password")).address()

    async def main():
        async with workers(valkey.url, 1) as (worker,):
            await worker.bus._commands.ask("CONFIG", "SET", "requirepass", "Right1")
        async with workers(address, 2) as (one, two):
            one.bus.broadcast(b"hello")
            await two.until(lambda: two.got)

    if known:
        run(main())
        assert not [record for record in caplog.records if record.levelname in ("ERROR", "WARNING")]
    else:
        with pytest.raises(BusError, match="does not let us"):
            run(main())
        assert "WRONGPASS" in caplog.text


def test_a_password_that_cannot_be_read_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"bus.password_file cannot be read: .*No such file"):
        BusConfig("unix:///bus.sock", str(tmp_path / "none")).address()


def test_a_bus_that_takes_too_long_is_named_so(run, tmp_path, monkeypatch):
    monkeypatch.setattr("nestbox.bus.resp.CONNECT_SECONDS", 0)

    async def scenario():
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(f"{tmp_path}/bus.sock")
            silent.listen()
            with pytest.raises(BusError, match=r"cannot be reached: it does not answer$"):
                await RedisBus(f"unix://{tmp_path}/bus.sock", 1).start(print)

    run(scenario())


def test_no_bus_is_one_sentence(run, tmp_path):
    async def scenario():
        with pytest.raises(BusError, match=r"cannot be reached"):
            await RedisBus(f"unix://{tmp_path}/none.sock", 1).start(print)

    run(scenario())


@pytest.mark.parametrize("url", ["", "redis://", "http://localhost", "unix://", "valkey"])
def test_wrong_addresses_are_refused(url):
    with pytest.raises(ValueError, match="bus"):
        open_bus(url, 1)

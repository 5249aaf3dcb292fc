"""The bus, in one process and over a real Valkey or Redis."""

import asyncio
import contextlib
import os

import pytest

from nestbox.bus import BusError, open_bus
from nestbox.bus import redis as redis_module
from nestbox.bus.channel import Channel
from nestbox.bus.local import LocalBus
from nestbox.bus.redis import RedisBus
from nestbox.config import Bus as BusConfig
from nestbox.config import ConfigError


class Worker:
    """A bus with what came over it."""

    def __init__(self, url, number):
        self.bus = RedisBus(url, number)
        self.got, self.lost, self.undelivered, self.reconnects = [], [], [], 0
        self._news = asyncio.Event()
        self.bus.on_reconnect = self._reconnected
        self.bus.on_worker_lost = self._note(self.lost)
        self.bus.on_undelivered = lambda worker, payload: self._note(self.undelivered)((worker, payload))

    def _reconnected(self):
        self.reconnects += 1
        self._news.set()

    def _note(self, where):
        def note(what):
            where.append(what)
            self._news.set()

        return note

    async def until(self, condition):
        while not condition():
            self._news.clear()
            await self._news.wait()

    async def start(self):
        await self.bus.start(self._note(self.got))
        return self


@contextlib.asynccontextmanager
async def workers(url, count):
    started = [await Worker(url, number).start() for number in range(1, count + 1)]
    try:
        yield started
    finally:
        for worker in started:
            await worker.bus.close()


async def until_away(*buses):
    while any(bus.connected for bus in buses):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


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


@pytest.fixture
def fast_heart(monkeypatch):
    monkeypatch.setattr(redis_module, "HEARTBEAT_SECONDS", 0.5)
    monkeypatch.setattr(redis_module, "ALIVE_SECONDS", 3)


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
        async with workers(valkey.url, 1) as [one]:
            await asyncio.to_thread(valkey.stop)
            await until_away(one.bus)
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
        async with workers(valkey.url, 1) as [one]:
            await asyncio.to_thread(valkey.stop)
            await until_away(one.bus)
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
        async with workers(valkey.url, 1) as [one]:
            await asyncio.to_thread(valkey.stop)
            await until_away(one.bus)
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


def test_no_bus_is_one_sentence(run, tmp_path):
    async def scenario():
        with pytest.raises(BusError, match=r"cannot be reached"):
            await RedisBus(f"unix://{tmp_path}/none.sock", 1).start(print)

    run(scenario())


@pytest.mark.parametrize("url", ["", "redis://", "http://localhost", "unix://", "valkey"])
def test_wrong_addresses_are_refused(url):
    with pytest.raises(ValueError, match="bus"):
        open_bus(url, 1)

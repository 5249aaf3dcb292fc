"""Logins in turn: whoever has to wait does, the loop turns, and nobody is refused."""

from __future__ import annotations

import asyncio
import time

from nestbox.net import pace as module
from nestbox.net.pace import Pace


def work(log, name, seconds=0.002):
    def job():
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
        log.append(name)

    return job


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_while_there_is_little_to_do_it_is_done_at_once():
    pace, log = Pace(), []
    pace.take(work(log, "one", 0))
    pace.take(work(log, "two", 0), fresh=True)
    assert log == ["one", "two"] and (pace.waiting, pace.waited) == (0, 0)


async def test_the_loop_turns_between_slices():
    pace, log, turns = Pace(), [], 0
    for number in range(50):  # 100 ms of work
        pace.take(work(log, number))
    assert 0 < len(log) < 10, "one turn takes only a slice"
    longest, last = 0.0, time.perf_counter()
    while pace.waiting:
        await asyncio.sleep(0)
        now = time.perf_counter()
        longest, last, turns = max(longest, now - last), now, turns + 1
    assert log == list(range(50)) and pace.waited >= 40
    assert turns >= 5 and longest < 10 * module.SLICE


async def test_those_in_the_midst_of_a_login_go_first_and_newcomers_not_last(monkeypatch):
    monkeypatch.setattr(module, "SLICE", 0.0)
    pace, log = Pace(), []
    for number in range(6):
        pace.take(work(log, f"new {number}", 0), fresh=True)
    for number in range(6):
        pace.take(work(log, f"old {number}", 0))
    monkeypatch.setattr(module, "SLICE", 10.0)
    await until(lambda: not pace.waiting)
    assert len(log) == 12
    old = [entry for entry in log if entry.startswith("old")]
    assert old == sorted(old) and log.index("old 5") < log.index("new 3")
    assert log.index("new 0") < log.index("old 5"), "a newcomer's turn comes while others are busy"


async def test_what_is_asked_of_others_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 3)
    pace, asked, tasks = Pace(), [], []
    answers = [asyncio.get_running_loop().create_future() for _ in range(10)]

    def job(number):
        asked.append(number)
        tasks.append(asyncio.ensure_future(pace.answer(answers[number])))

    for number in range(10):
        pace.take(lambda number=number: job(number))
    for _ in range(5):
        await asyncio.sleep(0)
    assert asked == [0, 1, 2] and pace.waiting == 7
    answers[1].set_exception(ValueError())  # also when it goes wrong
    await until(lambda: len(asked) == 4)
    for answer in answers:
        answer.done() or answer.set_result(None)
    await until(lambda: len(asked) == 10)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert pace.waiting == 0


async def test_a_job_that_fails_holds_nobody_up(monkeypatch):
    monkeypatch.setattr(module, "SLICE", 0.0)
    pace, log = Pace(), []
    pace.take(lambda: 1 / 0)
    pace.take(work(log, "after", 0))
    monkeypatch.setattr(module, "SLICE", 0.01)
    await until(lambda: log)
    assert log == ["after"]

"""Iqs that the server asks: the answer reaches the worker that asked, from the one that was asked and nobody else."""

import asyncio

import pytest
from harness import DOMAIN, condition

from nestbox.core.errors import StanzaError
from nestbox.core.jid import parse_jid
from nestbox.wire import ns
from nestbox.wire.element import el

HOST = parse_jid(DOMAIN)


def ask(world, worker, client, seconds=3.0):
    ping = el(f"{{{ns.PING}}}ping")
    return asyncio.create_task(world.servers[worker].questions.ask(HOST, parse_jid(client.jid), "get", ping, seconds))


async def test_the_answer_comes_back_over_workers(world):
    bob = await world.client("bob", worker=2)
    asked = ask(world, 1, bob)
    question = await bob.expect("iq", type="get", from_=DOMAIN)
    await bob.send(f'<iq type="result" id="{question.id}" to="{DOMAIN}"/>')
    assert (await asked).type == "result"


async def test_only_the_one_who_was_asked_can_answer(world):
    bob, eve = await world.client("bob", worker=2), await world.client("eve")
    asked = ask(world, 1, bob)
    question = await bob.expect("iq", type="get")
    await eve.send(f'<iq type="error" id="{question.id}" to="{DOMAIN}"/>')
    assert not asked.done()
    await bob.send(f'<iq type="result" id="{question.id}" to="{DOMAIN}"/>')
    assert (await asked).type == "result"


async def test_no_answer_and_nobody_there(world):
    bob = await world.client("bob")
    with pytest.raises(StanzaError, match="remote-server-timeout"):
        await ask(world, 1, bob, 0.05)
    await bob.leave()
    answer = await ask(world, 1, bob)
    assert condition(answer) == "service-unavailable"

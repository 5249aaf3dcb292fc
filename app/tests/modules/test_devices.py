"""The list of an account's devices, and the log-out of one, by a command that any client can show."""

from __future__ import annotations

from xml.etree.ElementTree import Element

import pytest
from harness import DOMAIN, World
from test_modern_login import REQUEST, SASL2, Modern, bind, failure, modern

from nestbox.config import Limits

FORM = "{jabber:x:data}"
COMMAND = "{http://jabber.org/protocol/commands}"
ENABLE = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>"


@pytest.fixture
def limits() -> Limits:
    return Limits(devices=3)


class Phone(Modern):
    """A client that says what it is."""

    agent = "11111111-0001-4b9a-a7ec-3d1a6d6d9a00"

    async def authenticate(self, mechanism: str, initial: bytes, inline: str) -> Element:
        feed = self.pipe.feed
        about = b"<software>Talker</software><device>Pixel 7</device>"
        self.pipe.feed = lambda data: feed(data.replace(b"'/><", b"'>" + about + b"</user-agent><", 1))
        return await super().authenticate(mechanism, initial, inline)


async def phone(world: World) -> Phone:
    """Logged in with a token and a session that can be resumed."""
    await modern(world)
    client = Phone(world, "alice")
    await client.log_in(REQUEST + bind(ENABLE), worker=2)
    return client


async def run(client, payload: str = "", session: str = "") -> Element:
    which = f" sessionid='{session}'" if session else ""
    xml = f"<command xmlns='http://jabber.org/protocol/commands' node='devices'{which}>{payload}</command>"
    return (await client.iq("set", xml, to=DOMAIN)).payload


def options(answer: Element) -> dict[str, str]:
    found = answer.findall(f"{FORM}x/{FORM}field/{FORM}option")
    return {option.get("label"): option.findtext(f"{FORM}value") for option in found}


async def log_out(client, value: str) -> str:
    asked = await run(client)
    field = f"<field var='devices'><value>{value}</value></field>"
    done = await run(client, f"<x xmlns='jabber:x:data' type='submit'>{field}</x>", asked.get("sessionid"))
    assert done.get("status") == "completed"
    return done.findtext(f"{COMMAND}note")


async def test_a_device_that_is_logged_out_cannot_come_back(world: World) -> None:
    lost = await phone(world)
    desk = await world.client("alice")
    [(label, value)] = options(await run(desk)).items()
    assert label == "Talker on Pixel 7, connected now"
    assert await log_out(desk, value) == "Logged out: 1."
    await lost.until(lambda: lost.pipe.closed)
    await world.settle()
    assert list(world.servers[1].registry.of(f"alice@{DOMAIN}")) == [desk.session.entry.resource]
    assert failure(await lost.come_back(bind())) == "not-authorized"
    assert (await run(desk)).findtext(f"{COMMAND}note") == "Your account is used on this device only."


async def test_a_session_that_waits_to_be_resumed_ends_too(world: World) -> None:
    lost = await phone(world)
    stream = world.servers[2].registry.sessions[lost.full].sm_id
    lost.vanish()
    desk = await world.client("alice")
    [value] = options(await run(desk)).values()
    await log_out(desk, value)
    await world.settle()
    answer = await lost.log_in(f"<resume xmlns='urn:xmpp:sm:3' previd='{stream}' h='0'/>{bind()}")  # by the password
    assert answer.tag == f"{SASL2}success" and answer.find("{urn:xmpp:sm:3}failed") is not None


async def test_others_keep_what_they_have(world: World) -> None:
    lost = await phone(world)
    kept = Modern(world, "alice")
    await kept.log_in(REQUEST + bind())
    desk = await world.client("alice")
    found = options(await run(desk))
    assert len(found) == 2
    await log_out(desk, found["Talker on Pixel 7, connected now"])
    await lost.until(lambda: lost.pipe.closed)
    assert not kept.pipe.closed
    assert (await kept.come_back(bind())).tag == f"{SASL2}success"


async def test_nobody_sees_or_ends_what_is_not_theirs(world: World) -> None:
    victim = await phone(world)
    desk, mallory = await world.client("alice"), await world.client("mallory")
    await world.client("mallory", "second")
    [value] = options(await run(desk)).values()
    assert options(await run(mallory)) == {f"second, connected since {_today(mallory)}": "session:second"}
    for wrong in (value, f"session:{victim.full.partition('/')[2]}", "", "session:"):
        assert await log_out(mallory, wrong) == "Logged out: 0."
    assert not victim.pipe.closed


def _today(client) -> str:
    from nestbox.modules.devices import _day

    return _day(client.session.entry.since)


async def test_an_old_client_is_logged_out_by_its_session(world: World) -> None:
    desk, old = await world.client("alice"), await world.client("alice", "old", worker=2)
    assert await log_out(desk, "session:old") == "Logged out: 1."
    assert (await old.end_of_stream()).condition == "not-authorized"


async def test_devices_are_limited(world: World) -> None:
    await modern(world)
    store = world.servers[1].store
    user = await store.accounts.get("alice")
    for number in range(5):
        client = Modern(world, "alice")
        client.agent = f"agent-{number}"
        await client.log_in(bind())
        client.vanish()
    assert len(await store.devices.of(user.id)) == 3
    assert world.limits_hit() == {"devices": 2}


async def test_a_login_now_and_then_is_written_down_and_the_rest_is_not(world: World) -> None:
    client = await phone(world)
    store = world.servers[2].store
    user = await store.accounts.get("alice")
    [before] = await store.devices.of(user.id)
    assert before.name == "Talker on Pixel 7" and before.expires > before.seen
    await client.come_back(bind(), worker=2)
    [after] = await store.devices.of(user.id)
    assert (after.agent, after.seen) == (before.agent, before.seen)

"""The small services: ping, version, time, last activity, vCard, private storage, the old session."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import pytest
from harness import DOMAIN, condition

from nestbox import __version__
from nestbox.config import Limits

PING = "<ping xmlns='urn:xmpp:ping'/>"
LAST = "<query xmlns='jabber:iq:last'/>"
VCARD = "<vCard xmlns='vcard-temp'/>"


def private(inner: str) -> str:
    return f"<query xmlns='jabber:iq:private'>{inner}</query>"


async def test_ping(world):
    await world.friends("alice", "bob")
    alice = await world.client("alice")
    mallory = await world.client("mallory")
    for address in (None, DOMAIN, alice.bare, f"bob@{DOMAIN}"):
        assert (await alice.iq("get", PING, to=address)).type == "result"
    assert condition(await mallory.iq("get", PING, to=alice.bare)) == "service-unavailable"


async def test_version_tells_no_operating_system(world):
    alice = await world.client("alice")
    answer = (await alice.iq("get", "<query xmlns='jabber:iq:version'/>", to=DOMAIN)).payload
    assert {child.tag.rpartition("}")[2]: child.text for child in answer} == {
        "name": "Nestbox", "version": __version__,
    }  # fmt: skip


async def test_time_is_utc(world):
    alice = await world.client("alice")
    answer = (await alice.iq("get", "<time xmlns='urn:xmpp:time'/>", to=DOMAIN)).payload
    assert answer.find("{urn:xmpp:time}tzo").text == "+00:00"
    said = datetime.fromisoformat(answer.find("{urn:xmpp:time}utc").text)
    assert abs((datetime.now(UTC) - said).total_seconds()) < 5


async def test_the_old_session_is_granted(world):
    alice = await world.client("alice", presence=None)
    session = "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'/>"
    for address in (None, DOMAIN, alice.bare):
        assert (await alice.iq("set", session, to=address)).type == "result"
    await world.user("bob")
    assert condition(await alice.iq("set", session, to=f"bob@{DOMAIN}")) == "service-unavailable"


async def test_last_activity(world):
    await world.friends("alice", "bob")
    alice = await world.client("alice")
    bob = await world.client("bob", worker=2)
    mallory = await world.client("mallory")
    world.servers[1].started = time.time() - 3600
    assert int((await alice.iq("get", LAST, to=DOMAIN)).payload.get("seconds")) in (3600, 3601)
    assert (await alice.iq("get", LAST, to=bob.bare)).payload.get("seconds") == "0"
    await bob.leave()
    await world.settle()
    user_id = bob.session.user.id
    seconds, _ = await world.servers[1].store.accounts.last(user_id)
    assert abs(seconds - time.time()) < 5
    await world.servers[1].store.accounts.touch_last(user_id, int(time.time()) - 100)
    assert int((await alice.iq("get", LAST, to=bob.bare)).payload.get("seconds")) in (100, 101)
    for address in (bob.bare, alice.bare):
        assert condition(await mallory.iq("get", LAST, to=address)) == "forbidden"
    bob = await world.client("bob", worker=2)
    await bob.send("<presence type='unavailable'><status>Heading home</status></presence>")
    await bob.leave()
    await world.settle()
    last = (await alice.iq("get", LAST, to=bob.bare)).payload
    assert (last.get("seconds") in ("0", "1"), last.text) == (True, "Heading home")


async def test_the_last_activity_is_known_before_it_is_written(world, monkeypatch):
    alice, accounts, go_on = await world.client("alice"), world.servers[1].store.accounts, asyncio.Event()
    write = accounts.touch_many

    async def slowly(seen):
        await go_on.wait()
        await write(seen)

    monkeypatch.setattr(accounts, "touch_many", slowly)
    await alice.send("<presence type='unavailable'><status>Heading home</status></presence>")
    assert (await alice.iq("get", LAST)).payload.text == "Heading home"
    go_on.set()
    await world.settle()
    _, status = await accounts.last(alice.session.user.id)
    assert status == "Heading home"
    assert (await alice.iq("get", LAST)).payload.text == "Heading home"


async def test_vcards(world):
    alice = await world.client("alice")
    bob = await world.client("bob", worker=2)
    assert len((await alice.iq("get", VCARD)).payload) == 0
    for nobody_knows in (alice.bare, f"nobody@{DOMAIN}"):
        refused = await bob.iq("get", VCARD, to=nobody_knows)
        assert condition(refused) == "service-unavailable" and len(refused.find("{jabber:client}error")) == 1
    card = "<vCard xmlns='vcard-temp'><FN>Alice &lt;A&gt;</FN><N><GIVEN>Alice</GIVEN></N></vCard>"
    assert (await alice.iq("set", card)).type == "result"
    for client in (alice, bob):
        answer = (await client.iq("get", VCARD, to=alice.bare)).payload
        assert answer.find("{vcard-temp}FN").text == "Alice <A>"
    assert condition(await bob.iq("set", card, to=alice.bare)) == "forbidden"
    big = f"<vCard xmlns='vcard-temp'><PHOTO>{'x' * 200_000}</PHOTO></vCard>"
    assert condition(await alice.iq("set", big)) == "policy-violation"
    assert world.limits_hit() == {"vcard_bytes": 1}
    assert (await alice.iq("get", VCARD)).payload.find("{vcard-temp}FN") is not None


async def test_private_storage(world):
    alice = await world.client("alice")
    phone = await world.client("alice", "phone", worker=2)
    bob = await world.client("bob")
    missing = (await alice.iq("get", private("<a xmlns='x:1'/>"))).payload
    assert missing[0].tag == "{x:1}a" and len(missing[0]) == 0
    kept = "<a xmlns='x:1'><b c='&quot;'>t</b><d xmlns='x:2'/></a>"
    assert (await alice.iq("set", private(kept + "<e xmlns='x:1'>2</e>"))).type == "result"
    found = (await phone.iq("get", private("<a xmlns='x:1'/>"))).payload[0]
    assert (found[0].tag, found[0].get("c"), found[0].text, found[1].tag) == ("{x:1}b", '"', "t", "{x:2}d")
    assert (await phone.iq("get", private("<e xmlns='x:1'/>"))).payload[0].text == "2"
    for kind in ("get", "set"):
        assert condition(await bob.iq(kind, private("<a xmlns='x:1'/>"), to=alice.bare)) == "forbidden"


@pytest.mark.parametrize(
    ("kind", "inner", "expected"),
    [
        ("get", "", "bad-request"),
        ("get", "<a xmlns='x:1'/><b xmlns='x:1'/>", "bad-request"),
        ("set", "", "bad-request"),
        ("set", "<a/>", "not-acceptable"),
        ("set", "<a xmlns='jabber:client'/>", "not-acceptable"),
        ("set", "<a xmlns=''/>", "not-acceptable"),
        ("set", f"<a xmlns='{'x' * 600}'/>", "not-acceptable"),
    ],
)
async def test_bad_private_storage_is_refused(world, kind, inner, expected):
    alice = await world.client("alice")
    assert condition(await alice.iq(kind, private(inner))) == expected
    assert world.limits_hit() == ({"private_name_bytes": 1} if len(inner) > 512 else {})


class TestPrivateLimit:
    @pytest.fixture
    def limits(self):
        return Limits(private_bytes=1000)

    async def test_storage_is_limited_and_can_be_replaced(self, world):
        alice = await world.client("alice")
        assert (await alice.iq("set", private(f"<a xmlns='x:1'>{'x' * 800}</a>"))).type == "result"
        assert condition(await alice.iq("set", private(f"<b xmlns='x:1'>{'x' * 300}</b>"))) == "resource-constraint"
        assert world.limits_hit() == {"private_bytes": 1}
        assert (await alice.iq("set", private(f"<a xmlns='x:1'>{'y' * 790}</a>"))).type == "result"
        assert (await alice.iq("set", private("<a xmlns='x:1'/>"))).type == "result"
        assert (await alice.iq("set", private(f"<b xmlns='x:1'>{'x' * 300}</b>"))).type == "result"


async def test_unknown_queries_are_unavailable(world):
    alice = await world.client("alice")
    for address in (None, DOMAIN, f"nobody@{DOMAIN}"):
        assert condition(await alice.iq("get", "<query xmlns='no:such'/>", to=address)) == "service-unavailable"


async def test_many_ends_at_once_are_few_transactions(world, monkeypatch):
    accounts = world.servers[1].store.accounts
    clients = [await world.client(f"user{number}") for number in range(30)]
    written = []
    touch_many = accounts.touch_many
    monkeypatch.setattr(accounts, "touch_many", lambda seen: written.append(len(seen)) or touch_many(seen))
    for client in clients:
        await client.leave()
    await world.settle()
    assert sum(written) == 30 and len(written) < 15
    assert None not in [await accounts.last(client.session.user.id) for client in clients]

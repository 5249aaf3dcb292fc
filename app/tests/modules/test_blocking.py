"""XEP-0191, on two workers."""

from __future__ import annotations

import pytest
from harness import DOMAIN, condition

from nestbox.config import Limits
from nestbox.core.jid import parse_jid
from nestbox.core.users import User

LIST = "{urn:xmpp:blocking}blocklist"
BLOCKED = "{jabber:client}error/{urn:xmpp:blocking:errors}blocked"


def change(what: str, *jids: str) -> str:
    items = "".join(f"<item jid='{jid}'/>" for jid in jids)
    return f"<{what} xmlns='urn:xmpp:blocking'>{items}</{what}>"


async def blocklist(client) -> list[str]:
    answer = await client.iq("get", "<blocklist xmlns='urn:xmpp:blocking'/>")
    return [item.get("jid") for item in answer.find(LIST)]


@pytest.mark.parametrize(
    ("blocked", "address", "expected"),
    [
        ("bob@x.test/phone", "bob@x.test/phone", True),
        ("bob@x.test/phone", "bob@x.test/desk", False),
        ("bob@x.test/phone", "bob@x.test", False),
        ("bob@x.test", "bob@x.test/phone", True),
        ("bob@x.test", "bob@x.test", True),
        ("bob@x.test", "bobby@x.test", False),
        ("x.test", "bob@x.test/phone", True),
        ("x.test", "x.test", True),
        ("x.test", "bob@y.x.test", False),
        ("x.test/phone", "bob@x.test/phone", True),
        ("x.test/phone", "bob@x.test", False),
        ("nestbox.test", "alice@nestbox.test/other", False),  # never oneself
    ],
)
def test_what_an_entry_takes_in(blocked, address, expected):
    user = User("alice", "nestbox.test")
    user.blocked = frozenset((blocked,))
    assert user.blocks(parse_jid(address)) is expected


async def test_the_list_and_its_pushes(world):
    alice = await world.client("alice")
    other = await world.client("alice", "other", worker=2)
    deaf = await world.client("alice", "deaf", worker=2)
    assert await blocklist(alice) == await blocklist(other) == []
    assert (await alice.iq("set", change("block", f"bob@{DOMAIN}", "spam.test"))).type == "result"
    for client in (alice, other):
        push = await client.expect("iq", type="set", to=client.jid)
        assert {item.get("jid") for item in push.payload} == {f"bob@{DOMAIN}", "spam.test"}
    await deaf.nothing("iq")
    assert await blocklist(other) == [f"bob@{DOMAIN}", "spam.test"]
    assert (await other.iq("set", change("unblock", "spam.test"))).type == "result"
    push = await alice.expect("iq", type="set")
    assert push.payload.tag == "{urn:xmpp:blocking}unblock"
    assert await blocklist(alice) == [f"bob@{DOMAIN}"]
    assert (await other.iq("set", change("unblock"))).type == "result"
    push = await alice.expect("iq", type="set")
    assert len(push.payload) == 0
    assert await blocklist(alice) == []


@pytest.mark.parametrize("worker", [1, 2])
async def test_nothing_comes_in_and_nothing_goes_out(world, worker):
    await world.friends("alice", "bob")
    alice = await world.client("alice", worker=worker)
    bob = await world.client("bob", worker=2)
    await alice.iq("set", change("block", bob.bare))
    await bob.expect("presence", from_=alice.jid, type="unavailable")  # and what he sends from now on comes back
    alice.received.clear()
    bob.received.clear()

    await bob.send(f"<message to='{alice.bare}' type='chat'><body>hi</body></message>")
    assert condition(await bob.expect("message", type="error")) == "service-unavailable"
    for kind in ("get", "set"):
        assert condition(await bob.iq(kind, "<query xmlns='x'/>", to=alice.jid)) == "service-unavailable"
        answer = await bob.iq(kind, "<vCard xmlns='vcard-temp'/>", to=alice.bare)
        assert condition(answer) == "service-unavailable"
    await bob.send("<presence><show>away</show></presence>")
    await bob.send(f"<presence to='{alice.jid}'/>")
    await bob.send(f"<presence to='{alice.bare}' type='subscribe'/>")
    await bob.send(f"<presence to='{alice.bare}' type='probe'/>")
    await alice.nothing()
    await bob.nothing(lambda stanza: stanza.from_ != bob.jid)

    for xml in (
        f"<message to='{bob.bare}' type='chat'><body>hi</body></message>",
        f"<presence to='{bob.bare}'/>",
        f"<iq type='get' id='1' to='{bob.jid}'><query xmlns='x'/></iq>",
    ):
        await alice.send(xml)
        error = await alice.expect(lambda stanza: stanza.type == "error")
        assert condition(error) == "not-acceptable"
        assert error.find("{jabber:client}error").get("type") == "cancel"
        assert error.find(BLOCKED) is not None
    await alice.send("<presence><show>xa</show></presence>")
    again = await world.client("alice", "again")
    await again.nothing("presence", from_=bob.jid)
    await bob.nothing(lambda stanza: stanza.from_ != bob.jid)

    await alice.iq("set", change("unblock", bob.bare))
    await bob.expect("presence", from_=alice.jid, type=None)
    await bob.expect("presence", from_=again.jid, type=None)
    await bob.send(f"<message to='{alice.jid}' type='chat'><body>hi</body></message>")
    await alice.expect("message", type="chat")


async def test_presence_of_a_session_elsewhere_is_hidden_and_shown(world):
    """The block is set on one worker, the presence that it hides is on the other."""
    await world.friends("alice", "bob")
    phone = await world.client("alice", "phone", worker=2)
    desk = await world.client("alice", "desk", worker=1)
    bob = await world.client("bob", worker=1)
    await desk.iq("set", change("block", DOMAIN.replace("nestbox", "other"), bob.bare))
    await bob.expect("presence", from_=phone.jid, type="unavailable")
    await bob.expect("presence", from_=desk.jid, type="unavailable")
    await desk.iq("set", change("unblock"))
    await bob.expect("presence", from_=phone.jid, type=None)
    await bob.expect("presence", from_=desk.jid, type=None)


async def test_strangers_do_not_learn_of_being_blocked(world):
    alice = await world.client("alice")
    mallory = await world.client("mallory")
    await alice.iq("set", change("block", mallory.bare))
    await mallory.nothing()
    await alice.iq("set", change("unblock", mallory.bare))
    await mallory.nothing()


async def test_a_blocked_request_is_not_shown(world):
    alice = await world.client("alice", presence=None)
    bob = await world.client("bob")
    await bob.send(f"<presence to='{alice.bare}' type='subscribe'/>")
    await alice.iq("set", change("block", bob.bare))
    await alice.send("<presence/>")
    await alice.nothing("presence", from_=bob.bare)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (change("block"), "bad-request"),
        (change("block", "@"), "jid-malformed"),
        (change("block", f"alice@{DOMAIN}"), "not-allowed"),
        (change("block", f"alice@{DOMAIN}/phone"), "not-allowed"),
        (change("block", DOMAIN), "not-allowed"),
    ],
)
async def test_bad_blocks_are_refused(world, payload, expected):
    alice = await world.client("alice")
    assert condition(await alice.iq("set", payload)) == expected
    assert await blocklist(alice) == []


async def test_nobody_reads_or_writes_anothers_list(world):
    alice = await world.client("alice")
    bob = await world.client("bob")
    for kind, payload in (("get", "<blocklist xmlns='urn:xmpp:blocking'/>"), ("set", change("block", "x.test"))):
        assert condition(await alice.iq(kind, payload, to=bob.bare)) == "forbidden"


class TestLimit:
    @pytest.fixture
    def limits(self):
        return Limits(blocked_items=2)

    async def test_a_full_list_takes_no_more(self, world):
        alice = await world.client("alice")
        assert (await alice.iq("set", change("block", "a.test", "b.test"))).type == "result"
        assert condition(await alice.iq("set", change("block", "c.test"))) == "resource-constraint"
        assert (await alice.iq("set", change("block", "a.test"))).type == "result"

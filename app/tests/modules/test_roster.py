"""RFC 6121, section 2."""

from __future__ import annotations

import pytest
from harness import DOMAIN, condition

from nestbox.config import Limits

QUERY = "{jabber:iq:roster}query"
ITEM = "{jabber:iq:roster}item"
SIX_GROUPS = "".join(f"<group>{number}{'g' * 999}</group>" for number in range(6))


def roster_set(*items: str) -> str:
    return f"<query xmlns='jabber:iq:roster'>{''.join(items)}</query>"


async def get(client, ver: str | None = None):
    version = "" if ver is None else f" ver='{ver}'"
    return (await client.iq("get", f"<query xmlns='jabber:iq:roster'{version}/>")).find(QUERY)


async def test_an_item_is_kept_pushed_and_removed(world):
    alice = await world.client("alice")
    other = await world.client("alice", "other", worker=2)
    silent = await world.client("alice", "silent", worker=2)
    assert len(await get(alice)) == 0
    await get(other)
    item = f"<item jid='bob@{DOMAIN}' name='Bob &amp; Co'><group>Friends</group><group>Wörk</group></item>"
    assert (await alice.iq("set", roster_set(item))).type == "result"
    for client in (alice, other):
        push = await client.expect("iq", type="set", to=client.jid)
        assert push.from_ is None and push.id
        assert push.find(QUERY)[0].attrib == {
            "jid": f"bob@{DOMAIN}", "name": "Bob & Co", "subscription": "none",
        }  # fmt: skip
        assert {group.text for group in push.find(QUERY)[0]} == {"Friends", "Wörk"}
    found = (await get(silent))[0]
    assert found.get("name") == "Bob & Co" and len(found) == 2
    assert (await other.iq("set", roster_set(f"<item jid='bob@{DOMAIN}' subscription='remove'/>"))).type == "result"
    for client in (alice, other, silent):
        push = await client.expect("iq", type="set")
        assert push.find(QUERY)[0].get("subscription") == "remove"
    assert len(await get(alice)) == 0


async def test_a_client_cannot_write_subscriptions(world):
    alice = await world.client("alice")
    await alice.iq("set", roster_set(f"<item jid='bob@{DOMAIN}' subscription='both' ask='subscribe' approved='true'/>"))
    assert (await get(alice))[0].attrib == {"jid": f"bob@{DOMAIN}", "subscription": "none"}


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([], "bad-request"),
        ([f"<item jid='a@{DOMAIN}'/>", f"<item jid='b@{DOMAIN}'/>"], "bad-request"),
        (["<item/>"], "jid-malformed"),
        (["<item jid='@'/>"], "jid-malformed"),
        ([f"<item jid='a@{DOMAIN}/x'/>"], "bad-request"),
        ([f"<item jid='alice@{DOMAIN}'/>"], "not-allowed"),
        ([f"<item jid='a@{DOMAIN}'><group>G</group><group>G</group></item>"], "bad-request"),
        ([f"<item jid='a@{DOMAIN}'><group/></item>"], "not-acceptable"),
        ([f"<item jid='a@{DOMAIN}' name='{'n' * 1024}'/>"], "not-acceptable"),
        ([f"<item jid='a@{DOMAIN}'><group>{'g' * 1024}</group></item>"], "not-acceptable"),
        ([f"<item jid='a@{DOMAIN}'>{SIX_GROUPS}</item>"],
         "not-acceptable"),
        ([f"<item jid='nobody@{DOMAIN}' subscription='remove'/>"], "item-not-found"),
    ],
)  # fmt: skip
async def test_bad_items_are_refused(world, items, expected):
    alice = await world.client("alice")
    assert condition(await alice.iq("set", roster_set(*items))) == expected
    assert world.limits_hit() == ({"roster_name_bytes": 1} if len("".join(items)) > 1000 else {})
    assert len(await get(alice)) == 0


async def test_the_longest_name_is_kept(world):
    alice = await world.client("alice")
    assert (await alice.iq("set", roster_set(f"<item jid='a@{DOMAIN}' name='{'n' * 1023}'/>"))).type == "result"


async def test_nobody_reads_or_writes_anothers_roster(world):
    alice = await world.client("alice")
    await world.client("bob")
    for kind, payload in (("get", roster_set()), ("set", roster_set(f"<item jid='x@{DOMAIN}'/>"))):
        assert condition(await alice.iq(kind, payload, to=f"bob@{DOMAIN}")) == "forbidden"


async def test_a_push_cannot_be_forged(world):
    """A set to another's full address is delivered as what it is: from its sender, never from the server."""
    alice = await world.client("alice")
    mallory = await world.client("mallory", worker=2)
    item = f"<item jid='m@{DOMAIN}'/>"
    await mallory.send(f"<iq type='set' id='p' to='{alice.jid}'>{roster_set(item)}</iq>")
    forged = await alice.expect("iq", type="set")
    assert forged.from_ == mallory.jid
    assert len(await get(alice)) == 0


async def test_a_known_version_gets_only_the_changes(world):
    alice = await world.client("alice")
    for name in ("a", "b", "c"):
        await alice.iq("set", roster_set(f"<item jid='{name}@{DOMAIN}'/>"))
    full = await get(alice, "")
    assert len(full) == 3
    ver = full.get("ver")
    again = await world.client("alice", "again", worker=2)
    assert await get(again, ver) is None  # section 2.6.3: an empty result
    await again.nothing()
    await alice.iq("set", roster_set(f"<item jid='b@{DOMAIN}' name='B'/>"))
    await alice.iq("set", roster_set(f"<item jid='c@{DOMAIN}' subscription='remove'/>"))
    late = await world.client("alice", "late")
    assert await get(late, ver) is None
    pushes = [(await late.expect("iq", type="set")).find(QUERY) for _ in range(2)]
    assert [(push[0].get("jid"), push[0].get("subscription")) for push in pushes] == [
        (f"b@{DOMAIN}", "none"),
        (f"c@{DOMAIN}", "remove"),
    ]
    assert int(ver) < int(pushes[0].get("ver")) < int(pushes[1].get("ver"))
    newest = pushes[1].get("ver")
    last = await world.client("alice", "last")
    assert await get(last, newest) is None
    await last.nothing()


@pytest.mark.parametrize("ver", ["abc", "-1", "99999", "9" * 30, "١"])
async def test_an_unknown_version_gets_all(world, ver):
    alice = await world.client("alice")
    await alice.iq("set", roster_set(f"<item jid='a@{DOMAIN}'/>"))
    assert len(await get(alice, ver)) == 1


async def test_versions_and_approval_are_advertised(world):
    features = b"".join(world.servers[1].stream_features)
    assert b'<ver xmlns="urn:xmpp:features:rosterver"/>' in features
    assert b'<sub xmlns="urn:xmpp:features:pre-approval"/>' in features


async def test_a_subscription_changed_on_another_worker_counts_at_once(world):
    """Bob's presence goes to Alice as soon as her approval by another worker is through."""
    alice = await world.client("alice", worker=1)
    bob = await world.client("bob", worker=2)
    await bob.send("<presence><status>before</status></presence>")
    await alice.send(f"<presence to='{bob.bare}' type='subscribe'/>")
    phone = await world.client("bob", "phone", worker=1)  # the approval comes from another worker than the presence
    await phone.send(f"<presence to='{alice.bare}' type='subscribed'/>")
    await world.settle()
    alice.received.clear()
    await bob.send("<presence><status>after</status></presence>")
    seen = await alice.expect("presence", from_=bob.jid)
    assert seen.find("{jabber:client}status").text == "after"


class TestLimit:
    @pytest.fixture
    def limits(self):
        return Limits(roster_items=2)

    async def test_a_full_roster_takes_no_more(self, world):
        alice = await world.client("alice")
        for name in ("a", "b"):
            assert (await alice.iq("set", roster_set(f"<item jid='{name}@{DOMAIN}'/>"))).type == "result"
        assert condition(await alice.iq("set", roster_set(f"<item jid='c@{DOMAIN}'/>"))) == "resource-constraint"
        assert (await alice.iq("set", roster_set(f"<item jid='a@{DOMAIN}' name='A'/>"))).type == "result"
        await alice.send(f"<presence to='d@{DOMAIN}' type='subscribe'/>")
        assert condition(await alice.expect("presence", type="error")) == "resource-constraint"
        await alice.iq("set", roster_set(f"<item jid='a@{DOMAIN}' subscription='remove'/>"))
        assert (await alice.iq("set", roster_set(f"<item jid='c@{DOMAIN}'/>"))).type == "result"

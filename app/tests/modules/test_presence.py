"""RFC 6121, section 4, on two workers."""

from __future__ import annotations

import pytest
from harness import DOMAIN, condition

from nestbox.config import Limits
from nestbox.core.jid import parse_jid
from nestbox.wire.stanza import parse_stanza


async def test_contacts_see_each_other_come_change_and_go(world):
    await world.friends("alice", "bob")
    alice = await world.client("alice", "a")
    bob = await world.client("bob", "b", worker=2, presence=None)
    await bob.send("<presence><show>away</show></presence>")
    seen = await alice.expect("presence", from_=bob.jid)
    assert seen.find("{jabber:client}show").text == "away"
    assert seen.to == alice.bare
    await bob.expect("presence", from_=alice.jid, type=None)  # the answer to the probe
    await bob.expect("presence", from_=bob.jid, type=None)  # section 4.2.2: itself, too
    await bob.send("<presence><status>back</status></presence>")
    seen = await alice.expect("presence", from_=bob.jid)
    assert seen.find("{jabber:client}status").text == "back"
    await bob.nothing("presence", from_=alice.jid)  # no second probe
    await bob.send("<presence type='unavailable'><status>bye</status></presence>")
    seen = await alice.expect("presence", from_=bob.jid, type="unavailable")
    assert seen.find("{jabber:client}status").text == "bye"
    await bob.leave()
    await alice.nothing("presence")


@pytest.mark.parametrize("worker", [1, 2])
async def test_own_resources_see_each_other(world, worker):
    one = await world.client("alice", "one")
    two = await world.client("alice", "two", worker=worker, presence=None)
    await two.send("<presence/>")
    await one.expect("presence", from_=two.jid)
    await two.expect("presence", from_=one.jid)
    await two.leave()
    await one.expect("presence", from_=two.jid, type="unavailable")


async def test_strangers_see_nothing(world):
    alice = await world.client("alice")
    bob = await world.client("bob", worker=2)
    await bob.send(f"<presence to='{alice.bare}' type='probe'/>")
    await bob.send("<presence><status>x</status></presence>")
    await alice.nothing("presence")
    await bob.expect("presence", from_=bob.jid)
    await bob.nothing("presence")


async def test_a_contact_may_probe(world):
    await world.friends("alice", "bob")
    alice = await world.client("alice")
    bob = await world.client("bob", worker=2)
    await bob.send(f"<presence to='{alice.bare}' type='probe'/>")
    await bob.expect("presence", from_=alice.jid, to=bob.jid, type=None)
    await alice.leave()
    await bob.expect("presence", from_=alice.jid, type="unavailable")
    await bob.send(f"<presence to='{alice.bare}' type='probe'/>")
    await bob.expect("presence", from_=alice.bare, to=bob.jid, type="unavailable")


async def test_a_stranger_that_probes_hears_nothing(world):
    await world.client("alice")
    bob = await world.client("bob", worker=2)
    await bob.send("<presence to='alice@nestbox.test' type='probe'/>")
    await bob.nothing("presence")


@pytest.mark.parametrize("end", ["leave", "vanish", "kick"])
async def test_the_end_of_a_session_is_told(world, end):
    await world.friends("alice", "bob")
    alice = await world.client("alice")
    bob = await world.client("bob", worker=2)
    if end == "kick":
        await world.client("bob", bob.session.entry.resource, worker=1, presence=None)
        assert (await bob.end_of_stream()).condition == "conflict"
    else:
        await getattr(bob, end)()
    await alice.expect("presence", from_=bob.jid, type="unavailable")


async def test_a_dead_workers_sessions_are_taken_back(world):
    await world.friends("alice", "bob")
    alice = await world.client("alice")
    bob = await world.client("bob", worker=2)
    await alice.drain()
    del world.hub.buses[2]
    await world.servers[1].registry.worker_lost(2)
    await alice.expect("presence", from_=bob.jid, type="unavailable")
    await alice.nothing("presence")


async def test_both_arrive_at_once_on_two_workers(world):
    """Whoever is first, both see both: nobody waits for the bus between binding and presence."""
    await world.friends("alice", "bob")
    alice = await world.client("alice", presence=None)
    bob = await world.client("bob", worker=2, presence=None)
    await alice.send("<presence/>")
    await bob.send("<presence/>")
    await alice.expect("presence", from_=bob.jid)
    await bob.expect("presence", from_=alice.jid)


@pytest.mark.parametrize("text", ["128", "-129", "high", ""])
async def test_wrong_priorities_are_refused(world, text):
    alice = await world.client("alice", presence=None)
    await alice.send(f"<presence><priority>{text}</priority></presence>")
    assert condition(await alice.expect("presence", type="error")) == "bad-request"
    assert alice.session.entry.priority is None


async def test_priorities_reach_all_workers(world):
    alice = await world.client("alice", presence="<presence><priority>-5</priority></presence>")
    assert world.servers[2].registry.of(alice.bare)[alice.session.entry.resource].priority == -5
    await alice.send("<presence><priority>7</priority></presence>")
    await world.settle()
    assert world.servers[2].registry.of(alice.bare)[alice.session.entry.resource].priority == 7


async def test_session_available_runs_when_messages_may_come(world):
    seen = []
    world.servers[1].hooks.session_available.add(lambda session: seen.append(session.entry.priority))
    alice = await world.client("alice", presence="<presence><priority>-1</priority></presence>")
    assert seen == [-1]
    await alice.send("<presence><priority>3</priority></presence>")
    await alice.send("<presence><show>dnd</show><priority>4</priority></presence>")
    assert seen == [-1, 3]
    await alice.send("<presence type='unavailable'/>")
    await alice.send("<presence/>")
    assert seen == [-1, 3, 0]


async def test_directed_presence_is_taken_back(world):
    alice = await world.client("alice")
    bob = await world.client("bob", worker=2)
    await alice.send(f"<presence to='{bob.jid}'><show>chat</show></presence>")
    seen = await bob.expect("presence", from_=alice.jid)
    assert seen.to == bob.jid
    await alice.send("<presence><show>away</show></presence>")
    await bob.nothing("presence")
    await alice.leave()
    await bob.expect("presence", from_=alice.jid, type="unavailable")
    await bob.nothing("presence")


async def test_unavailable_takes_back_directed_presence_where_there_was_no_other(world):
    """Section 4.6.3: somebody may be in a room without having sent presence to anybody else."""
    alice = await world.client("alice", presence=None)
    bob = await world.client("bob", worker=2)
    await alice.send(f"<presence to='{bob.jid}'/>")
    await bob.expect("presence", from_=alice.jid, type=None)
    await alice.send("<presence type='unavailable'/>")
    await bob.expect("presence", from_=alice.jid, type="unavailable")
    await alice.leave()
    await bob.nothing("presence")


async def test_directed_unavailable_ends_it(world):
    alice = await world.client("alice")
    bob = await world.client("bob")
    await alice.send(f"<presence to='{bob.bare}'/>")
    await alice.send(f"<presence to='{bob.bare}' type='unavailable'/>")
    await bob.expect("presence", type="unavailable")
    await bob.expect("presence", type=None)
    await alice.leave()
    await bob.nothing("presence")


class TestLimits:
    @pytest.fixture
    def limits(self):
        return Limits(directed_presences=2)

    async def test_directed_presences_are_limited(self, world):
        alice = await world.client("alice")
        for name in ("a", "b", "a"):
            await alice.send(f"<presence to='{name}@{DOMAIN}'/>")
        await alice.nothing("presence")
        await alice.send(f"<presence to='c@{DOMAIN}'/>")
        assert condition(await alice.expect("presence", type="error")) == "policy-violation"
        assert len(alice.session.directed) == 2
        assert world.limits_hit() == {"directed_presences": 1}


async def test_a_huge_presence_is_refused(world):
    alice = await world.client("alice", presence=None)
    await alice.send(f"<presence><status>{'x' * 17000}</status></presence>")
    assert condition(await alice.expect("presence", type="error")) == "policy-violation"
    assert world.limits_hit() == {"presence_bytes": 1}


async def test_presence_to_nobody_is_silent(world):
    alice = await world.client("alice")
    for address in (f"nobody@{DOMAIN}", f"nobody@{DOMAIN}/x", DOMAIN):
        for kind in ("", "type='unavailable'", "type='probe'", "type='error'"):
            await alice.send(f"<presence to='{address}' {kind}/>")
    await alice.nothing()


async def test_an_unknown_type_is_refused(world):
    alice = await world.client("alice")
    await alice.send("<presence type='hello'/>")
    assert condition(await alice.expect("presence", type="error")) == "bad-request"


async def test_a_new_holder_of_the_address_is_not_taken_back(world):
    """The old session's end must not hide the new one from the contacts."""
    await world.friends("alice", "bob")
    alice = await world.client("alice")
    old = await world.client("bob", "phone", worker=2)
    server = world.servers[1]
    new = await world.client("bob", "phone", worker=1)
    await alice.drain()
    assert old.closed
    assert server.registry.of("bob@nestbox.test")["phone"].worker == 1
    await new.send("<presence><show>xa</show></presence>")
    await alice.expect("presence", from_=new.jid, type=None)
    await alice.nothing("presence", type="unavailable")


async def test_services_of_the_domain_get_presence(world):
    """A room gets directed presence and learns when the session is gone; a subscribed service gets all presence."""
    got = []
    rooms = f"rooms.{DOMAIN}"
    for server in world.servers.values():
        server.router.hosts[rooms] = lambda sender, to, stanza, session: got.append((str(to), stanza.type)) or 0
    alice = await world.client("alice")
    await alice.send(f"<presence to='tea@{rooms}/al'/>")
    await alice.send(f"<presence to='bot@{rooms}' type='subscribe'/>")
    assert got == [(f"tea@{rooms}/al", None), (f"bot@{rooms}", "subscribe")]
    service = world.servers[2].router  # the answer comes from wherever the service is
    answer = f"<presence from='bot@{rooms}' to='{alice.bare}' type='subscribe'/>"
    await service.route(parse_jid(f"bot@{rooms}"), parse_jid(alice.bare), parse_stanza(answer.encode()))
    await alice.expect("presence", type="subscribe")
    await alice.send(f"<presence to='bot@{rooms}' type='subscribed'/>")
    got.clear()
    await alice.send("<presence><show>away</show></presence>")
    assert got == [(f"bot@{rooms}", None)]
    got.clear()
    await alice.leave()
    await world.settle()
    assert sorted(got) == [(f"bot@{rooms}", "unavailable"), (f"tea@{rooms}/al", "unavailable")]

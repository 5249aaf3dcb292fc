"""RFC 6121, section 3 and appendix A: subscriptions between two accounts, on two workers."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass, field

import pytest
from harness import DOMAIN, World, condition
from hypothesis import given, settings
from hypothesis import strategies as st

from nestbox.config import Config, Limits
from nestbox.modules.subscriptions import INBOUND, OUTBOUND, state_of, with_state
from nestbox.store.roster import Contact

ITEM = "{jabber:iq:roster}query/{jabber:iq:roster}item"
STATES = ("none", "none+out", "none+in", "none+out+in", "to", "to+in", "from", "from+out", "both")
# Appendix A.2, table by table: for each of the nine states whether the stanza is routed, and the new state.
SENT = {
    "subscribe": "yes none+out, yes none+out, yes none+out+in, yes none+out+in, yes to, yes to+in,"
    " yes from+out, yes from+out, yes both",
    "unsubscribe": "yes none, yes none, yes none+in, yes none+in, yes none, yes none+in, yes from, yes from, yes from",
    "subscribed": "no none, no none+out, yes from, yes from+out, no to, yes both, no from, no from+out, no both",
    "unsubscribed": "no none, no none+out, yes none, yes none+out, no to, yes to, yes none, yes none+out, yes to",
}
# Appendix A.3: for each state whether the stanza is delivered, and the new state.
RECEIVED = {
    "subscribe": "yes none+in, yes none+out+in, no none+in, no none+out+in, yes to+in, no to+in,"
    " no from, no from+out, no both",
    "unsubscribe": "no none, no none+out, yes none, yes none+out, no to, yes to, yes none, yes none+out, yes to",
    "subscribed": "no none, yes to, no none+in, yes to+in, no to, no to+in, no from, yes both, no both",
    "unsubscribed": "no none, yes none, no none+in, yes none+in, yes none, yes none+in, no from, yes from, yes from",
}


def table(text: str) -> dict[str, tuple[bool, str]]:
    rows = [row.split() for row in text.split(",")]
    return {state: (passed == "yes", new) for state, (passed, new) in zip(STATES, rows, strict=True)}


SENT_TABLE = {kind: table(text) for kind, text in SENT.items()}
RECEIVED_TABLE = {kind: table(text) for kind, text in RECEIVED.items()}


@pytest.mark.parametrize("kind", SENT)
@pytest.mark.parametrize("state", STATES)
def test_the_tables_are_those_of_the_appendix(kind, state):
    passed, new = SENT_TABLE[kind][state]
    assert OUTBOUND[kind].get(state, state) == new
    assert passed == (new != state or kind in ("subscribe", "unsubscribe"))  # the rule the code goes by
    passed, new = RECEIVED_TABLE[kind][state]
    assert INBOUND[kind].get(state, state) == new
    assert passed == (new != state)


@pytest.mark.parametrize("state", STATES)
def test_a_contact_can_be_in_every_state(state):
    assert state_of(with_state(Contact(None, None), "bob@x", state, b"request")) == state


@dataclass
class Model:
    """One side by the book."""

    state: str = "none"
    approved: bool = False
    delivered: list[str] = field(default_factory=list)

    def send(self, kind: str, peer: Model) -> None:
        routed, new = SENT_TABLE[kind][self.state]
        if kind == "subscribed" and self.state in ("none", "none+out", "to"):
            self.approved = True  # section 3.4.2
        if kind == "unsubscribed":
            self.approved = False
        self.state = new
        if routed:
            peer.receive(kind, self)

    def receive(self, kind: str, peer: Model) -> None:
        if kind == "subscribe" and self.approved and self.state in ("none", "none+out", "to"):
            self.approved = False
            self.state = {"none": "from", "none+out": "from+out", "to": "both"}[self.state]
            peer.receive("subscribed", self)
            return
        if kind == "subscribe" and self.state in ("from", "from+out", "both"):
            peer.receive("subscribed", self)  # appendix A.3.1: on the user's behalf
            return
        delivered, self.state = RECEIVED_TABLE[kind][self.state]
        if delivered:
            self.delivered.append(kind)


def check_joint(one: Model, other: Model) -> None:
    """What one side sees the other shows, what one asks the other has been asked."""
    for a, b in ((one, other), (other, one)):
        assert a.state.startswith(("to", "both")) == b.state.startswith(("from", "both"))
        assert ("+out" in a.state) == ("+in" in b.state)


steps = st.lists(st.tuples(st.booleans(), st.sampled_from(list(SENT))), max_size=10)


def test_any_sequence_leaves_both_rosters_as_the_tables_say(tmp_path, empty_database):
    """Real server, two workers, two accounts: states, deliveries and pushes are the model's after every step."""
    shutil.copy(empty_database, tmp_path / "nestbox.db")
    config = Config(domain=DOMAIN)
    config.database.url = f"sqlite:///{tmp_path}/nestbox.db"
    with asyncio.Runner() as runner:
        world = World(config)
        runner.run(world.start(2))
        examples = iter(range(10**6))

        @settings(max_examples=15, deadline=None, database=None)
        @given(steps)
        def run(sequence):
            runner.run(play(world, f"x{next(examples)}", sequence))

        run()
        runner.run(world.stop())


async def play(world: World, prefix: str, sequence: list[tuple[bool, str]]) -> None:
    clients = [await world.client(f"{prefix}{side}", worker=side) for side in (1, 2)]
    for client in clients:
        await client.iq("get", "<query xmlns='jabber:iq:roster'/>")
        client.received.clear()
    models = [Model(), Model()]
    for first, kind in sequence:
        sender = 0 if first else 1
        models[sender].send(kind, models[1 - sender])
        await clients[sender].send(f"<presence to='{clients[1 - sender].bare}' type='{kind}'/>")
        check_joint(*models)
        for client, model, peer in zip(clients, models, reversed(clients), strict=True):
            user = client.session.user
            contact = (await client.server.store.roster.change(user.id, peer.bare, lambda c: c, 9))[0]
            assert (state_of(contact), contact.item is not None and contact.item.approved) == (
                model.state,
                model.approved,
            ), (sequence, kind)
            stanzas = await client.drain()
            assert [s.type for s in stanzas if s.kind == "presence" and s.type in SENT] == model.delivered, sequence
            model.delivered.clear()
            pushed = [s.find(ITEM).get("subscription") for s in stanzas if s.kind == "iq"]
            assert not pushed or pushed[-1] == model.state.partition("+")[0]
    for client in clients:
        await client.leave()


async def test_asking_and_granting(world):
    alice = await world.client("alice")
    bob = await world.client("bob", worker=2)
    for client in (alice, bob):
        await client.iq("get", "<query xmlns='jabber:iq:roster'/>")
    await alice.send(f"<presence to='{bob.jid}' type='subscribe' id='s1'><status>It is me</status></presence>")
    push = await alice.expect("iq", type="set")
    assert push.find(ITEM).attrib == {"jid": bob.bare, "subscription": "none", "ask": "subscribe"}
    asked = await bob.expect("presence", type="subscribe", from_=alice.bare, to=bob.bare)
    assert asked.find("{jabber:client}status").text == "It is me"
    await bob.nothing("iq")  # a request alone is not in the roster
    await bob.send(f"<presence to='{alice.bare}' type='subscribed'/>")
    answer = alice.received.popleft() if alice.received else await alice.expect("presence")
    # Section 3.1.6: before the push, and for the account.
    assert (answer.type, answer.from_, answer.to) == ("subscribed", bob.bare, alice.bare)
    push = await alice.expect("iq", type="set")
    assert push.find(ITEM).attrib == {"jid": bob.bare, "subscription": "to"}
    await alice.expect("presence", from_=bob.jid, type=None)
    push = await bob.expect("iq", type="set")
    assert push.find(ITEM).attrib == {"jid": alice.bare, "subscription": "from"}
    await bob.nothing("presence", from_=alice.jid)


async def test_a_request_waits_until_it_is_answered(world):
    alice = await world.client("alice")
    await alice.iq("get", "<query xmlns='jabber:iq:roster'/>")
    bob = await world.client("bob", presence=None)
    await alice.send(f"<presence to='bob@{DOMAIN}' type='subscribe'/>")
    await alice.send(f"<presence to='bob@{DOMAIN}' type='subscribe'/>")
    await bob.nothing()
    for _ in range(2):
        bob = await world.client("bob", worker=2, presence=None)
        await bob.send("<presence/>")
        await bob.expect("presence", type="subscribe", from_=alice.bare)
        await bob.nothing("presence", type="subscribe")
    await bob.send(f"<presence to='{alice.bare}' type='unsubscribed'/>")
    await alice.expect("presence", type="unsubscribed", from_=bob.bare)
    bob = await world.client("bob", presence=None)
    await bob.send("<presence/>")
    await bob.nothing("presence", type="subscribe")


async def test_approval_in_advance(world):
    alice = await world.client("alice")
    bob = await world.client("bob", worker=2)
    for client in (alice, bob):
        await client.iq("get", "<query xmlns='jabber:iq:roster'/>")
    await bob.send(f"<presence to='{alice.bare}' type='subscribed'/>")
    push = await bob.expect("iq", type="set")
    assert push.find(ITEM).attrib == {"jid": alice.bare, "subscription": "none", "approved": "true"}
    await alice.nothing()
    await alice.send(f"<presence to='{bob.bare}' type='subscribe'/>")
    await alice.expect("presence", type="subscribed", from_=bob.bare)
    await alice.expect("presence", from_=bob.jid, type=None)
    push = await bob.expect("iq", type="set")
    assert push.find(ITEM).attrib == {"jid": alice.bare, "subscription": "from"}
    await bob.nothing("presence", type="subscribe")


@pytest.mark.parametrize(("kind", "hidden"), [("unsubscribed", "bob"), ("unsubscribe", "alice")])
async def test_the_end_of_a_subscription_hides_presence(world, kind, hidden):
    await world.friends("alice", "bob")
    alice = await world.client("alice")
    bob = await world.client("bob", worker=2)
    await alice.drain()
    await bob.drain()
    await bob.send(f"<presence to='{alice.bare}' type='{kind}'/>")
    watcher, gone = (alice, bob) if hidden == "bob" else (bob, alice)
    await watcher.expect("presence", from_=gone.jid, type="unavailable")
    await gone.nothing("presence", type="unavailable")
    await gone.send("<presence><show>away</show></presence>")
    await watcher.nothing("presence", from_=gone.jid)
    await watcher.send("<presence><show>away</show></presence>")
    await gone.expect("presence", from_=watcher.jid)


class TestLimits:
    @pytest.fixture
    def limits(self):
        return Limits(roster_items=1)

    async def test_a_full_roster_takes_no_new_subscription(self, world):
        alice, bob = await world.client("alice"), await world.client("bob")
        await alice.send(f"<presence to='carol@{DOMAIN}' type='subscribe'/>")
        await alice.nothing("presence")
        await alice.send(f"<presence to='{bob.bare}' type='subscribe'/>")
        assert condition(await alice.expect("presence", type="error")) == "resource-constraint"
        await bob.nothing("presence")
        assert world.limits_hit() == {"roster_items": 1}

    async def test_requests_that_wait_are_limited(self, world, monkeypatch):
        """The asker is told nothing, as by an account that does not answer; it is counted all the same."""
        monkeypatch.setattr("nestbox.store.roster.MAX_REQUESTS", 1)
        alice = await world.client("alice")
        for name in ("bob", "carol"):
            client = await world.client(name)
            await client.send(f"<presence to='{alice.bare}' type='subscribe'/>")
            await client.nothing("presence")
        await alice.expect("presence", type="subscribe", from_=f"bob@{DOMAIN}")
        await alice.nothing("presence")
        assert world.limits_hit() == {"roster_requests": 1}


async def test_removing_a_contact_ends_both_subscriptions(world):
    await world.friends("alice", "bob")
    alice = await world.client("alice")
    bob = await world.client("bob", worker=2)
    await bob.iq("get", "<query xmlns='jabber:iq:roster'/>")
    await bob.drain()
    item = f"<item jid='{bob.bare}' subscription='remove'/>"
    assert (await alice.iq("set", f"<query xmlns='jabber:iq:roster'>{item}</query>")).type == "result"
    await bob.expect("presence", type="unsubscribe", from_=alice.bare)
    await bob.expect("presence", type="unsubscribed", from_=alice.bare)
    await bob.expect("presence", type="unavailable", from_=alice.jid)
    await world.settle()
    pushes = [await bob.expect("iq", type="set") for _ in range(2)]
    assert [push.find(ITEM).get("subscription") for push in pushes] == ["to", "none"]
    await alice.expect("presence", type="unavailable", from_=bob.jid)


async def test_asking_nobody_looks_like_asking_somebody(world):
    """Section 8.5.1: no answer tells who has an account; the roster says that the request is open."""
    alice = await world.client("alice")
    await alice.iq("get", "<query xmlns='jabber:iq:roster'/>")
    await alice.send(f"<presence to='nobody@{DOMAIN}' type='subscribe'/>")
    push = await alice.expect("iq", type="set")
    assert push.find(ITEM).get("ask") == "subscribe"
    await alice.nothing()


async def test_nobody_subscribes_to_himself_or_elsewhere(world):
    alice = await world.client("alice")
    for address, expected in ((alice.bare, "not-allowed"), ("bob@elsewhere.test", "remote-server-not-found")):
        await alice.send(f"<presence to='{address}' type='subscribe'/>")
        assert condition(await alice.expect("presence", type="error")) == expected
    await alice.send("<presence type='subscribe'/>")
    assert condition(await alice.expect("presence", type="error")) == "bad-request"


async def test_two_workers_change_one_contact_at_once(world):
    """Both sides answer at the same time, each on its own worker: neither roster may lose the other's change."""
    for number in range(5):
        alice = await world.client(f"alice{number}")
        bob = await world.client(f"bob{number}", worker=2)
        await alice.send(f"<presence to='{bob.bare}' type='subscribe'/>")
        await bob.send(f"<presence to='{alice.bare}' type='subscribe'/>")
        await asyncio.gather(
            alice.send(f"<presence to='{bob.bare}' type='subscribed'/>"),
            bob.send(f"<presence to='{alice.bare}' type='subscribed'/>"),
        )
        for client in (alice, bob):
            items = await client.server.store.roster.items(client.session.user.id)
            assert [(item.subscription, item.ask) for item in items] == [("both", False)]

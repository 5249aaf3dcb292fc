"""Who may do what with whose node: every kind of asker with every access model, at home and at the host's service."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from harness import DOMAIN, condition
from pep import SERVICE, affiliate, ask, configure, create, items, publish, specific, subscribe

NODE = "x:node"
MODELS = ("open", "presence", "roster", "authorize", "whitelist")


class Refused(NamedTuple):
    condition: str
    specific: str | None = None


PRESENCE = Refused("not-authorized", "presence-subscription-required")
GROUP = Refused("not-authorized", "not-in-roster-group")
UNAPPROVED = Refused("not-authorized", "not-subscribed")
CLOSED = Refused("not-allowed", "closed-node")
FORBIDDEN = Refused("forbidden")
BLOCKED = Refused("service-unavailable")
OK = None

# What each may read under each model, in the order of MODELS. A friend is in a group of the roster that may read,
# a contact in none; the administrator of the server is nobody in particular here.
READS = {
    "owner": (OK, OK, OK, OK, OK),
    "friend": (OK, OK, OK, UNAPPROVED, CLOSED),
    "contact": (OK, OK, GROUP, UNAPPROVED, CLOSED),
    "stranger": (OK, PRESENCE, GROUP, UNAPPROVED, CLOSED),
    "admin": (OK, PRESENCE, GROUP, UNAPPROVED, CLOSED),
    "member": (OK, OK, OK, OK, OK),
    "publisher": (OK, OK, OK, OK, OK),
    "outcast": (FORBIDDEN, FORBIDDEN, FORBIDDEN, FORBIDDEN, FORBIDDEN),
    "blocked": (BLOCKED, BLOCKED, BLOCKED, BLOCKED, BLOCKED),
}


def outcome(answer) -> Refused | None:
    return None if answer.type == "result" else Refused(condition(answer), specific(answer))


@pytest.fixture
def config(config):
    config.admins = ["admin"]
    return config


async def people(world, home: str | None):
    """A client of each kind, with a node of the owner's."""
    for name in ("friend", "contact", "outcast", "blocked"):
        await world.friends("owner", name)
    clients = {name: await world.client(name, worker=index % 2 + 1) for index, name in enumerate(READS)}
    owner = clients["owner"]
    group = f"<item jid='friend@{DOMAIN}'><group>Friends</group></item>"
    await owner.iq("set", f"<query xmlns='jabber:iq:roster'>{group}</query>")
    await owner.iq("set", f"<block xmlns='urn:xmpp:blocking'><item jid='blocked@{DOMAIN}'/></block>")
    assert (await create(owner, NODE, home, roster_groups_allowed="Friends", max_items=20)).type == "result"
    done = await affiliate(owner, NODE, home, member="member", publisher="publisher", outcast="outcast")
    assert done.type == "result"
    assert (await publish(owner, NODE, "first", to=home)).type == "result"
    return clients


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("at_home", [True, False], ids=["account", "host"])
async def test_the_matrix(world, model, at_home):
    home = None if at_home else SERVICE
    clients = await people(world, home)
    owner = clients["owner"]
    assert (await configure(owner, NODE, home, access_model=model)).type == "result"
    address = owner.bare if at_home else SERVICE
    for kind, client in clients.items():
        expected = READS[kind][MODELS.index(model)]
        if expected == BLOCKED and not at_home:
            expected = READS["contact"][MODELS.index(model)]  # who blocks does not block others at the host's service
        assert outcome(await items(client, NODE, address)) == expected, f"{kind} retrieves"
        info = f"<query xmlns='http://jabber.org/protocol/disco#items' node='{NODE}'/>"
        listed = await client.iq("get", info, address)
        if at_home and expected != OK and kind not in ("friend", "contact", "outcast"):  # the others see no owner
            assert outcome(listed) == OK and len(listed.payload) == 0, f"{kind} discovers nothing"
        else:
            assert outcome(listed) == expected, f"{kind} discovers"
        subscribed = await subscribe(client, NODE, address)
        if expected == UNAPPROVED:
            assert subscribed.payload[0].get("subscription") == "pending"
            assert specific(await subscribe(client, NODE, address)) == "pending-subscription"
            assert outcome(await items(client, NODE, address)) == UNAPPROVED
        else:
            assert outcome(subscribed) == expected, f"{kind} subscribes"
        may = kind in ("owner", "publisher")
        refused = BLOCKED if kind == "blocked" and at_home else FORBIDDEN
        published = outcome(await publish(client, NODE, f"by-{kind}", to=address))
        assert published == (OK if may else refused), f"{kind} publishes"
        retract = await ask(client, "set", f"<retract node='{NODE}'><item id='first'/></retract>", address)
        if may:
            assert retract.type == "result"
            await publish(owner, NODE, "first", to=home)
        else:
            assert outcome(retract) == refused, f"{kind} retracts"
        if kind != "owner":
            for inner in (
                f"<configure node='{NODE}'/>",
                f"<subscriptions node='{NODE}'/>",
                f"<affiliations node='{NODE}'/>",
            ):
                assert outcome(await ask(client, "get", inner, address, owner=True)) == refused, (kind, inner)
            for inner in (f"<delete node='{NODE}'/>", f"<purge node='{NODE}'/>"):
                assert outcome(await ask(client, "set", inner, address, owner=True)) == refused, (kind, inner)
            assert outcome(await configure(client, NODE, address, access_model="open")) == refused
            assert outcome(await affiliate(client, NODE, address, **{kind: "owner"})) == refused
        if kind != "owner" and at_home:
            assert outcome(await create(client, "x:other", address)) == refused
            assert outcome(await publish(client, "x:other", to=address)) in (refused, Refused("item-not-found"))
    assert outcome(await ask(owner, "set", f"<delete node='{NODE}'/>", home, owner=True)) is OK


async def test_who_is_shut_out_loses_the_subscription(world):
    owner, bob = await world.client("owner"), await world.client("bob", worker=2)
    await create(owner, NODE, SERVICE)
    await subscribe(bob, NODE, SERVICE)
    await affiliate(owner, NODE, SERVICE, bob="outcast")
    await publish(owner, NODE, to=SERVICE)
    await bob.nothing("message")
    await affiliate(owner, NODE, SERVICE, bob="none")
    await publish(owner, NODE, to=SERVICE)
    await bob.nothing("message")


async def test_a_new_account_does_not_inherit_the_rights_of_its_name(world):
    owner, bob = await world.client("owner"), await world.client("bob")
    await create(owner, NODE, SERVICE, access_model="whitelist")
    await affiliate(owner, NODE, SERVICE, bob="publisher")
    await subscribe(bob, NODE, SERVICE)
    await bob.leave()
    await world.settle()
    await world.servers[1].store.accounts.delete("bob")
    for server in world.servers.values():
        await server.users.changed("bob")
    bob = await world.client("bob")
    assert outcome(await items(bob, NODE, SERVICE)) == CLOSED
    listed = await ask(owner, "get", f"<subscriptions node='{NODE}'/>", SERVICE, owner=True)
    assert len(listed.payload[0]) == 0


@pytest.mark.parametrize(("model", "stranger", "subscriber"), [
    ("publishers", FORBIDDEN, FORBIDDEN), ("subscribers", FORBIDDEN, OK), ("open", OK, OK),
])  # fmt: skip
async def test_who_may_publish(world, model, stranger, subscriber):
    owner, bob, eve = [await world.client(name) for name in ("owner", "bob", "eve")]
    await create(owner, NODE, SERVICE, publish_model=model)
    await subscribe(bob, NODE, SERVICE)
    assert outcome(await publish(bob, NODE, "b", to=SERVICE)) == subscriber
    assert outcome(await publish(eve, NODE, "e", to=SERVICE)) == stranger
    if subscriber is OK:
        await publish(owner, NODE, "o", to=SERVICE)
        assert outcome(await publish(bob, NODE, "o", to=SERVICE)) == FORBIDDEN  # somebody else's item
        for item, expected in (("o", FORBIDDEN), ("b", OK)):
            retract = f"<retract node='{NODE}'><item id='{item}'/></retract>"
            assert outcome(await ask(bob, "set", retract, SERVICE)) == expected

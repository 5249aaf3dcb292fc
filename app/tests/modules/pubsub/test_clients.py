"""What clients really do: OMEMO (XEP-0384), private data (XEP-0223), displayed markers (XEP-0490)."""

from __future__ import annotations

import pytest
from harness import condition
from pep import configure, event, ids, items, listener, no_event, publish, specific

OLD_DEVICES, OLD_BUNDLE = "eu.siacs.conversations.axolotl.devicelist", "eu.siacs.conversations.axolotl.bundles:123"
NEW_DEVICES, NEW_BUNDLES = "urn:xmpp:omemo:2:devices", "urn:xmpp:omemo:2:bundles"
MDS = "urn:xmpp:mds:displayed:0"


@pytest.mark.parametrize(("devices", "bundles", "bundle", "options"), [
    (OLD_DEVICES, OLD_BUNDLE, "current", {}),
    (NEW_DEVICES, NEW_BUNDLES, "123", {"max_items": "max"}),
])  # fmt: skip
async def test_omemo_keys_are_published_open_and_fetched_by_strangers(world, devices, bundles, bundle, options):
    await world.friends("alice", "bob")
    alice = await listener(world, "alice", devices)
    bob = await listener(world, "bob", devices, worker=2)
    eve = await world.client("eve", worker=2)
    payload = "<devices xmlns='x:omemo'><device id='123'/></devices>"
    open_node = {"access_model": "open", "persist_items": "true"}
    assert (await publish(alice, devices, "current", payload, **open_node)).type == "result"
    for client in (alice, bob):
        await event(client, devices, sender=alice.bare)
    assert (await publish(alice, bundles, bundle, "<bundle xmlns='x:omemo'/>", **open_node, **options)).type == "result"
    assert ids(await items(eve, devices, alice.bare)) == ["current"]
    assert ids(await items(eve, bundles, alice.bare, f"<item id='{bundle}'/>")) == [bundle]
    if options:  # the bundles of all devices are in one node
        await publish(alice, bundles, "456", "<bundle xmlns='x:omemo'/>", **open_node, **options)
        assert ids(await items(eve, bundles, alice.bare)) == ["123", "456"]
    await no_event(eve)


async def test_a_node_that_is_not_open_is_put_right_as_clients_do_it(world):
    """The publish-options are not met: the client configures the node and publishes again."""
    alice, eve = await world.client("alice"), await world.client("eve", worker=2)
    payload = "<devices xmlns='x:omemo'/>"
    assert (await publish(alice, OLD_DEVICES, "current", payload)).type == "result"
    refused = await publish(alice, OLD_DEVICES, "current", payload, access_model="open")
    assert (condition(refused), specific(refused)) == ("conflict", "precondition-not-met")
    assert specific(await items(eve, OLD_DEVICES, alice.bare)) == "presence-subscription-required"
    assert (await configure(alice, OLD_DEVICES, access_model="open")).type == "result"
    assert (await publish(alice, OLD_DEVICES, "current", payload, access_model="open")).type == "result"
    assert ids(await items(eve, OLD_DEVICES, alice.bare)) == ["current"]


async def test_an_option_that_is_not_known_is_not_met(world):
    alice = await world.client("alice")
    refused = await publish(alice, "x:new", what_is_this="1")
    assert (condition(refused), specific(refused)) == ("conflict", "precondition-not-met")
    assert condition(await items(alice, "x:new")) == "item-not-found"


async def test_max_items_as_asked_is_met_again(world):
    alice = await world.client("alice")
    for _ in range(2):
        assert (await publish(alice, "x:many", max_items="10000")).type == "result"
    assert condition(await publish(alice, "x:many", max_items="max")) == "conflict"


async def test_private_data_is_private(world):
    await world.friends("alice", "bob")
    alice = await listener(world, "alice", "x:secret")
    bob = await listener(world, "bob", "x:secret", worker=2)
    await publish(alice, "x:secret", persist_items="true", access_model="whitelist")
    await event(alice, "x:secret")
    await no_event(bob)
    refused = await items(bob, "x:secret", alice.bare)
    assert (condition(refused), specific(refused)) == ("not-allowed", "closed-node")
    listed = await bob.iq("get", "<query xmlns='http://jabber.org/protocol/disco#items'/>", alice.bare)
    assert listed.type == "result" and len(listed.payload) == 0
    listed = await alice.iq("get", "<query xmlns='http://jabber.org/protocol/disco#items'/>", alice.bare)
    assert [each.attrib for each in listed.payload] == [{"jid": alice.bare, "node": "x:secret"}]


async def test_what_was_displayed_reaches_the_other_devices(world):
    phone = await listener(world, "alice", MDS)
    pc = await listener(world, "alice", MDS, resource="pc", worker=2)
    options = {
        "persist_items": "true", "max_items": "max", "send_last_published_item": "never", "access_model": "whitelist",
    }  # fmt: skip
    displayed = f"<displayed xmlns='{MDS}'><stanza-id xmlns='urn:xmpp:sid:0' by='x' id='1'/></displayed>"
    for peer in ("bob@x.org", "carol@x.org", "bob@x.org"):
        assert (await publish(phone, MDS, peer, displayed, **options)).type == "result"
        assert (await event(pc, MDS))[0].get("id") == peer
    assert ids(await items(pc, MDS)) == ["carol@x.org", "bob@x.org"]

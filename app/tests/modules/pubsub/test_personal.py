"""XEP-0163: every account's own nodes, and who hears of what is published there."""

from __future__ import annotations

from harness import DOMAIN, condition
from pep import EVENT, INFO, affiliate, ask, event, ids, items, listen, listener, no_event, publish

MOOD = "http://jabber.org/protocol/mood"
TUNE = "http://jabber.org/protocol/tune"
SAD = f"<mood xmlns='{MOOD}'><sad/></mood>"


async def test_an_account_says_that_it_has_nodes(world):
    alice = await world.client("alice")
    info = (await alice.iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", alice.bare)).payload
    identities = {(each.get("category"), each.get("type")) for each in info.iter(INFO + "identity")}
    assert identities == {("account", "registered"), ("pubsub", "pep")}
    found = {each.get("var").removeprefix("http://jabber.org/protocol/pubsub#") for each in info.iter(INFO + "feature")}
    assert {
        "publish-options", "auto-create", "access-presence", "access-open", "access-whitelist", "access-authorize",
        "access-roster", "persistent-items", "retrieve-items", "item-ids", "multi-items", "config-node",
        "config-node-max", "delete-items", "retract-items", "last-published", "filtered-notifications", "publish",
        "retrieve-default", "purge-nodes", "delete-nodes", "subscribe", "retrieve-subscriptions",
        "retrieve-affiliations", "modify-affiliations", "meta-data", "create-nodes", "create-and-configure",
        "instant-nodes",
    } <= found  # fmt: skip


async def test_what_is_published_reaches_contacts_and_own_resources_that_ask(world):
    await world.friends("alice", "bob")
    alice = await listener(world, "alice", MOOD)
    phone = await listener(world, "alice", MOOD, resource="phone", worker=2)
    deaf = await world.client("alice", "deaf")
    bob = await listener(world, "bob", MOOD, worker=2)
    tuned = await listener(world, "bob", TUNE, resource="tune")
    stranger = await listener(world, "eve", MOOD)
    assert (await publish(alice, MOOD, "1", SAD)).type == "result"
    for client in (alice, phone, bob):
        said = await event(client, MOOD, sender=alice.bare)
        assert said[0].get("id") == "1" and said[0][0][0].tag == f"{{{MOOD}}}sad"
    for client in (deaf, tuned, stranger):
        await no_event(client)
    for client in (alice, phone, bob):
        await no_event(client)  # once each


async def test_notifications_are_headlines_that_wait_for_nobody(world):
    await world.friends("alice", "bob")
    alice = await world.client("alice")
    bob = await listener(world, "bob", MOOD)
    await publish(alice, MOOD, payload=SAD)
    message = await bob.expect("message", tag=EVENT + "event")
    assert message.type == "headline" and message.id
    assert message.find("{urn:xmpp:delay}delay") is None
    await bob.leave()
    await publish(alice, MOOD, payload=SAD)
    await world.settle()
    assert await world.servers[1].store.offline.count(bob.session.user.id) == 0


async def test_who_comes_online_on_another_worker_gets_the_last_items(world):
    await world.friends("alice", "bob")
    alice = await world.client("alice", worker=1)
    for number in (1, 2):
        await publish(alice, MOOD, str(number), SAD)
    await publish(alice, TUNE, "t", "<tune xmlns='http://jabber.org/protocol/tune'/>")
    bob = await listener(world, "bob", MOOD, worker=2)
    assert (await event(bob, MOOD, sender=alice.bare))[0].get("id") == "2"
    await no_event(bob)
    phone = await listener(world, "alice", MOOD, TUNE, resource="phone", worker=2)
    for node in (MOOD, TUNE):
        await event(phone, node, sender=alice.bare)
    await no_event(phone)


async def test_a_presence_update_brings_only_what_is_new(world):
    await world.friends("alice", "bob")
    alice = await world.client("alice")
    await publish(alice, MOOD, payload=SAD)
    await publish(alice, TUNE, payload=SAD)
    bob = await listener(world, "bob", MOOD)
    await event(bob, MOOD)
    await listen(bob, MOOD, TUNE)
    await event(bob, TUNE)
    await no_event(bob)
    await bob.send("<presence type='unavailable'/>")
    await publish(alice, MOOD, payload=SAD)
    await no_event(bob)
    await listen(bob, MOOD)
    await event(bob, MOOD)


async def test_who_may_see_from_now_on_gets_the_last_items(world):
    alice = await world.client("alice", worker=2)
    bob = await listener(world, "bob", MOOD)
    await publish(alice, MOOD, payload=SAD)
    await bob.send(f"<presence to='{alice.bare}' type='subscribe'/>")
    await no_event(bob)
    await alice.send(f"<presence to='{bob.bare}' type='subscribed'/>")
    await event(bob, MOOD, sender=alice.bare)
    await no_event(bob)


async def test_who_may_not_see_any_more_hears_nothing(world):
    await world.friends("alice", "bob")
    alice, bob = await world.client("alice"), await listener(world, "bob", MOOD, worker=2)
    await alice.send(f"<presence to='{bob.bare}' type='unsubscribed'/>")
    await publish(alice, MOOD, payload=SAD)
    await no_event(bob)
    assert condition(await items(bob, MOOD, alice.bare)) == "not-authorized"


async def test_the_blocked_hear_nothing_now_and_later(world):
    await world.friends("alice", "bob")
    alice, bob = await world.client("alice"), await listener(world, "bob", MOOD, worker=2)
    await alice.iq("set", f"<block xmlns='urn:xmpp:blocking'><item jid='{bob.bare}'/></block>")
    await publish(alice, MOOD, payload=SAD, access_model="open")
    await no_event(bob)
    await bob.leave()
    bob = await listener(world, "bob", MOOD)
    await no_event(bob)
    assert condition(await items(bob, MOOD, alice.bare)) == "service-unavailable"


async def test_who_blocks_the_publisher_hears_nothing(world):
    await world.friends("alice", "bob")
    alice, bob = await world.client("alice"), await listener(world, "bob", MOOD, worker=2)
    await bob.iq("set", f"<block xmlns='urn:xmpp:blocking'><item jid='{alice.bare}'/></block>")
    await publish(alice, MOOD, payload=SAD)
    await no_event(bob)
    await bob.leave()
    await no_event(await listener(world, "bob", MOOD))


async def test_a_contact_on_no_list_hears_nothing_of_a_closed_node(world):
    await world.friends("alice", "bob")
    alice, bob = await listener(world, "alice", MOOD), await listener(world, "bob", MOOD, worker=2)
    await publish(alice, MOOD, "1", SAD, access_model="whitelist")
    await event(alice, MOOD)
    await no_event(bob)
    await affiliate(alice, MOOD, bob="member")
    await publish(alice, MOOD, "2", SAD)
    assert (await event(bob, MOOD))[0].get("id") == "2"


async def test_the_last_item_is_not_sent_where_the_node_says_so(world):
    alice = await world.client("alice")
    await publish(alice, MOOD, payload=SAD, send_last_published_item="never")
    await publish(alice, TUNE, payload=SAD, send_last_published_item="on_sub")
    await no_event(await listener(world, "alice", MOOD, TUNE, resource="phone", worker=2))


async def test_retracting_purging_and_deleting_are_told(world):
    await world.friends("alice", "bob")
    alice = await world.client("alice")
    bob = await listener(world, "bob", MOOD, worker=2)
    await publish(alice, MOOD, "1", SAD)
    await event(bob, MOOD)
    retract = f"<retract node='{MOOD}' notify='true'><item id='1'/></retract>"
    assert (await ask(alice, "set", retract)).type == "result"
    assert (await event(bob, MOOD))[0].attrib == {"id": "1"}
    assert condition(await ask(alice, "set", retract)) == "item-not-found"
    assert ids(await items(alice, MOOD)) == []
    await publish(alice, MOOD, "2", SAD)
    await event(bob, MOOD)
    assert (await ask(alice, "set", f"<purge node='{MOOD}'/>", owner=True)).type == "result"
    await event(bob, MOOD, "purge")
    assert (await ask(alice, "set", f"<delete node='{MOOD}'/>", owner=True)).type == "result"
    await event(bob, MOOD, "delete")
    assert condition(await items(alice, MOOD)) == "item-not-found"


async def test_a_large_last_item_comes_too(world):
    alice = await world.client("alice")
    await publish(alice, MOOD, payload=f"<mood xmlns='{MOOD}'>{'x' * 50_000}</mood>")
    other = await listener(world, "alice", MOOD, resource="pc", worker=2)
    assert len((await event(other, MOOD))[0][0].text) == 50_000


async def test_an_inactive_client_is_not_woken(world):
    alice = await world.client("alice")
    phone = await listener(world, "alice", MOOD, resource="phone", worker=2)
    phone.server.nonzas["{urn:xmpp:csi:0}inactive"](phone.session, None)
    await publish(alice, MOOD, payload=SAD)
    await no_event(phone)
    phone.server.nonzas["{urn:xmpp:csi:0}active"](phone.session, None)
    await event(phone, MOOD)


async def test_a_quiet_login_asks_the_store_for_nothing_more(world, monkeypatch):
    await world.friends("alice", "bob")
    alice = await world.client("alice")
    await publish(alice, MOOD, payload=SAD)
    asked = []
    store = world.servers[2].store.pubsub_items
    last = store.last
    monkeypatch.setattr(store, "last", lambda *args: asked.append(args) or last(*args))
    await world.client("bob", worker=2)
    assert asked == []
    await event(await listener(world, "bob", MOOD, resource="pc", worker=2), MOOD)
    assert len(asked) == 1


async def test_nodes_go_with_the_account(world):
    alice = await world.client("alice")
    await publish(alice, MOOD, payload=SAD)
    store = world.servers[1].store
    await alice.leave()
    await world.settle()
    await store.accounts.delete("alice")
    assert await store.pubsub.views(f"alice@{DOMAIN}", "") == []

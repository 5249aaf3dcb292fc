"""Nodes, items and who has to do with them, on both databases, with two workers at once."""

from __future__ import annotations

import asyncio
import json

import pytest

from nestbox.store import Store, StoreError, open_store
from nestbox.store.errors import NoSuchAccount, StoreFull
from nestbox.store.pubsub_items import Item
from nestbox.store.pubsub_people import Subscription

HOST = "pubsub.example.org"


@pytest.fixture
async def alice(store: Store) -> int:
    return (await store.accounts.create("alice", "x")).id


@pytest.fixture
async def other(store: Store, database_url: str):
    """Another worker's store."""
    other = await open_store(database_url)
    yield other
    await other.close()


async def node(store: Store, user_id: int, name: str = "node", home: str = HOST) -> int:
    assert await store.pubsub.create(user_id, home, name, b"{}", 1, 100, None)
    return (await store.pubsub.view(home, name, "")).node.id


def item(name: str, seq: int = 1, size: int = 1, publisher: str = "alice@x.org") -> Item:
    return Item(name, b"x" * size, publisher, seq)


async def names(store: Store, node_id: int) -> list[str]:
    return [each.name for each in (await store.pubsub_items.page(node_id, limit=1000, max_bytes=10**9)).items]


async def test_of_two_who_make_a_node_one_does(store, other, alice):
    bob = (await store.accounts.create("bob", "x")).id
    for number in range(10):
        made = await asyncio.gather(
            store.pubsub.create(alice, HOST, str(number), b"{}", 1, 100, "alice@x.org"),
            other.pubsub.create(bob, HOST, str(number), b"{}", 1, 100, "bob@x.org"),
        )
        assert sorted(made) == [False, True]
        owner = (await store.pubsub.view(HOST, str(number), "")).node.owner
        assert owner == ("alice" if made[0] else "bob")
        view = await store.pubsub.view(HOST, str(number), f"{owner}@x.org")
        assert view.affiliation == "owner"


async def test_the_limit_of_nodes_holds_for_both_at_once(store, other, alice):
    results = await asyncio.gather(
        *(each.pubsub.create(alice, HOST, f"{index}", b"{}", 1, 5) for index, each in enumerate([store, other] * 5)),
        return_exceptions=True,
    )
    assert sum(result is True for result in results) == 5
    assert all(result is True or isinstance(result, StoreFull) for result in results)
    with pytest.raises(NoSuchAccount):
        await store.pubsub.create(alice + 100, HOST, "x", b"{}", 1, 5)


async def test_publishing_at_once_keeps_all_and_the_order(store, other, alice):
    node_id = await node(store, alice)
    await asyncio.gather(
        *(
            each.pubsub_items.publish(node_id, alice, item(f"{index}"), 15, 10**6)
            for index, each in enumerate([store, other] * 10)
        )
    )
    kept = (await store.pubsub_items.page(node_id, limit=100, max_bytes=10**6)).items
    assert len(kept) == 15
    assert [each.seq for each in kept] == list(range(6, 21))  # each got a place of its own


async def test_what_was_published_last_comes_last_whatever_the_clock_says(store, alice):
    node_id = await node(store, alice)
    for name, seq in (("a", 1000), ("b", 5), ("c", 2000), ("a", 1)):
        await store.pubsub_items.publish(node_id, alice, item(name, seq), 10, 10**6)
    assert await names(store, node_id) == ["b", "c", "a"]


async def test_a_full_account_keeps_what_it_had(store, alice):
    node_id = await node(store, alice)
    await store.pubsub_items.publish(node_id, alice, item("a", size=500), 10, 1000)
    with pytest.raises(StoreFull):
        await store.pubsub_items.publish(node_id, alice, item("b", size=500), 10, 1000)
    assert await names(store, node_id) == ["a"]
    assert await store.pubsub_items.publish(node_id, alice, item("b", size=500), 1, 1000)  # in place of the other
    assert await names(store, node_id) == ["b"]


async def test_an_item_of_another_publisher_stays(store, alice):
    node_id = await node(store, alice)
    await store.pubsub_items.publish(node_id, alice, item("a", publisher="bob@x.org"), 10, 10**6, "bob@x.org")
    assert await store.pubsub_items.publish(node_id, alice, item("a"), 10, 10**6, "alice@x.org") is False
    assert await store.pubsub_items.retract(node_id, "a", "alice@x.org") is False
    assert await store.pubsub_items.retract(node_id, "a", "bob@x.org") is True
    assert await store.pubsub_items.retract(node_id, "a") is None


async def test_a_node_that_is_gone_takes_nothing(store, alice):
    node_id = await node(store, alice)
    await store.pubsub_items.publish(node_id, alice, item("a"), 10, 10**6)
    assert await store.pubsub.delete(node_id) and not await store.pubsub.delete(node_id)
    assert await store.pubsub_items.publish(node_id, alice, item("b"), 10, 10**6) is None
    subscription = Subscription("node", "a@b", "a@b", "subscribed", "1")
    assert await store.pubsub_people.subscribe(node_id, alice, None, subscription, 10) is None
    assert await store.pubsub_people.affiliate(node_id, alice, {"a@b": ("member", None)}, 10, False)
    assert await store.pubsub_people.affiliations(node_id) == {}


async def test_the_longest_names_and_letters_of_any_case(store, alice):
    long_home, long_name = "h" * 2047, "é" * 500
    node_id = await node(store, alice, long_name, long_home)
    await node(store, alice, long_name.upper(), long_home)
    await store.pubsub_items.publish(node_id, alice, item("i" * 1000), 10, 10**6)
    await store.pubsub_items.publish(node_id, alice, item("I" * 1000), 10, 10**6)
    assert await names(store, node_id) == ["i" * 1000, "I" * 1000]
    jid = "l" * 1023 + "@" + "d" * 1023 + "/" + "r" * 1012
    subscription = Subscription(long_name, jid, jid.partition("/")[0], "pending", "s" * 32)
    assert await store.pubsub_people.subscribe(node_id, alice, None, subscription, 10) == subscription
    assert await store.pubsub_people.subscriptions(node_id) == [subscription]
    assert [view.state for view in await store.pubsub.views(long_home, jid.partition("/")[0])] == ["", "pending"]


async def test_the_better_subscription_counts(store, alice):
    node_id = await node(store, alice)
    for jid, state in (("b@x/1", "subscribed"), ("b@x/2", "pending")):
        await store.pubsub_people.subscribe(node_id, alice, None, Subscription("node", jid, "b@x", state, "1"), 10)
    assert (await store.pubsub.view(HOST, "node", "b@x")).state == "subscribed"


async def test_whose_last_items_somebody_gets(store, alice):
    bob = (await store.accounts.create("bob", "x")).id
    for user_id, home in ((alice, "alice@x.org"), (bob, "bob@x.org")):
        for name in ("mood", "tune", "empty"):
            node_id = await node(store, user_id, name, home)
            if name != "empty":
                for number in range(3):
                    await store.pubsub_items.publish(node_id, user_id, item(f"{name}{number}"), 10, 10**6)
    await store.pubsub_people.affiliate(node_id, bob, {"c@x.org": ("member", None)}, 10, False)

    async def last(homes, wanted, asker="c@x.org"):
        rows = await store.pubsub_items.last(homes, wanted, asker, {asker, "x.org", f"{asker}/r"})
        return sorted((row.home, row.node, row.item.name) for row in rows)

    homes = [f"nobody{number}@x.org" for number in range(500)] + ["alice@x.org", "bob@x.org"]
    assert await last(homes, ["mood", "empty"]) == [("alice@x.org", "mood", "mood2"), ("bob@x.org", "mood", "mood2")]
    assert len(await last(homes, ["mood", "tune"])) == 4
    for blocked in ("c@x.org", "c@x.org/r", "x.org"):
        await store.blocking.add(alice, [blocked])
        assert await last(homes, ["mood"]) == [("bob@x.org", "mood", "mood2")]
        assert await last(["alice@x.org"], ["mood"], "alice@x.org") == [("alice@x.org", "mood", "mood2")]
        await store.blocking.clear(alice)


async def test_a_large_last_item_is_left_to_be_fetched_alone(store, alice):
    node_id = await node(store, alice, "n", "alice@x.org")
    for size, whole in ((16_000, True), (17_000, False)):
        await store.pubsub_items.publish(node_id, alice, item("a", size=size), 10, 10**6)
        last = (await store.pubsub_items.last(["alice@x.org"], ["n"], "alice@x.org", ["alice@x.org"]))[0]
        assert (last.node_id, last.item.payload is not None) == (node_id, whole)
    found = await store.pubsub_items.named(node_id, ["a"], 0)
    assert len(found.items[0].payload) == 17_000 and found.count == 1


async def test_what_is_about_a_deleted_account_goes_with_it(store, alice):
    bob = (await store.accounts.create("bob", "x")).id
    node_id = await node(store, alice)
    await store.pubsub_people.affiliate(node_id, alice, {"bob@x.org": ("publisher", bob)}, 10, False)
    subscription = Subscription("node", "bob@x.org", "bob@x.org", "subscribed", "1")
    await store.pubsub_people.subscribe(node_id, alice, bob, subscription, 10)
    await store.pubsub_items.publish(node_id, alice, item("a", publisher="bob@x.org"), 10, 10**6)
    await store.accounts.delete("bob")
    assert await store.pubsub_people.affiliations(node_id) == {}
    assert await store.pubsub_people.subscriptions(node_id) == []
    assert await names(store, node_id) == ["a"]
    await store.accounts.delete("alice")
    assert await store.pubsub.view(HOST, "node", "") is None


async def test_the_picture_is_read_with_the_account(store, alice):
    await store.accounts.set_photo(alice, "ab" * 20)
    assert (await store.accounts.get("alice")).photo == "ab" * 20
    await store.accounts.set_photo(alice, "")
    assert (await store.accounts.get("alice")).photo == ""


async def test_names_are_values_and_never_sql(store, alice):
    node_id = await node(store, alice, "n' OR '1'='1")
    await store.pubsub_items.publish(node_id, alice, item("a"), 10, 10**6)
    assert await store.pubsub.view(HOST, "' OR '1'='1", "") is None
    assert await store.pubsub_items.page(node_id, limit=10, max_bytes=100, after="' OR '1'='1") is None
    assert await store.pubsub_items.named(node_id, ["' OR '1'='1"], 100) == ([], 0)


async def test_a_configuration_is_kept_and_trims(store, alice):
    node_id = await node(store, alice)
    for number in range(5):
        await store.pubsub_items.publish(node_id, alice, item(str(number)), 10, 10**6)
    await store.pubsub.configure(node_id, json.dumps({"max_items": "2"}).encode(), 2)
    assert await names(store, node_id) == ["3", "4"]
    assert json.loads((await store.pubsub.view(HOST, "node", "")).node.config) == {"max_items": "2"}
    with pytest.raises(StoreError):
        await store.pubsub_items.publish(node_id, alice + 100, item("x"), 10, 10**6)  # no such account

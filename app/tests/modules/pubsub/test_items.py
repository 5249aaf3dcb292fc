"""Retrieving items: all, by id, the latest, and page by page (XEP-0060, section 6.5; XEP-0059)."""

from __future__ import annotations

import pytest
from harness import condition
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pep import SERVICE, ask, create, ids, items, publish

from nestbox.config import Limits
from nestbox.modules.pubsub import items as items_module
from nestbox.store import open_store
from nestbox.store.pubsub_items import Item

NODE = "x:node"
RSM = "{http://jabber.org/protocol/rsm}"


def page(inner: str) -> str:
    return f"<set xmlns='http://jabber.org/protocol/rsm'>{inner}</set>"


def of_set(answer, name: str) -> str | None:
    found = answer.payload.find(RSM + "set")
    return None if found is None else found.findtext(RSM + name)


async def filled(world, count: int):
    alice = await world.client("alice")
    await create(alice, NODE, max_items="max")
    for number in range(count):
        await publish(alice, NODE, f"i{number}", f"<x xmlns='x:1'>{number}</x>")
    return alice


async def test_all_in_the_order_of_publication(world):
    alice = await filled(world, 4)
    answer = await items(alice, NODE)
    assert ids(answer) == ["i0", "i1", "i2", "i3"]
    assert [item[0].text for item in answer.payload[0]] == ["0", "1", "2", "3"]
    assert answer.payload.find(RSM + "set") is None
    await publish(alice, NODE, "i1", "<x xmlns='x:1'>new</x>")
    answer = await items(alice, NODE)
    assert ids(answer) == ["i0", "i2", "i3", "i1"] and answer.payload[0][3][0].text == "new"


async def test_the_latest_and_those_of_an_id(world):
    alice = await filled(world, 4)
    assert ids(await items(alice, NODE, max_items=2)) == ["i2", "i3"]
    assert ids(await items(alice, NODE, inner="<item id='i3'/><item id='i1'/><item id='no'/>")) == ["i1", "i3"]
    for wrong in ("0", "-1", "x", ""):
        assert condition(await items(alice, NODE, max_items=wrong)) == "bad-request"


async def test_pages(world):
    alice = await filled(world, 5)
    first = await items(alice, NODE, more=page("<max>2</max>"))
    assert ids(first) == ["i0", "i1"]
    assert [of_set(first, name) for name in ("first", "last", "count")] == ["i0", "i1", "5"]
    assert ids(await items(alice, NODE, more=page("<max>2</max><after>i1</after>"))) == ["i2", "i3"]
    assert ids(await items(alice, NODE, more=page("<max>2</max><before/>"))) == ["i3", "i4"]
    assert ids(await items(alice, NODE, more=page("<max>2</max><before>i3</before>"))) == ["i1", "i2"]
    turned = page("<max>1</max>") + f"<items node='{NODE}'/>"  # the set before the items
    assert ids(await ask(alice, "get", turned)) == ["i0"]
    count = await items(alice, NODE, more=page("<max>0</max>"))
    assert ids(count) == [] and of_set(count, "count") == "5" and of_set(count, "first") is None
    for place in ("after", "before"):
        assert condition(await items(alice, NODE, more=page(f"<{place}>no</{place}>"))) == "item-not-found"
    injected = "' OR 1=1 --"
    assert condition(await items(alice, NODE, more=page(f"<after>{injected}</after>"))) == "item-not-found"


async def test_what_does_not_fit_into_an_answer_is_left_for_the_next_page(world, monkeypatch):
    monkeypatch.setattr(items_module, "ANSWER_BYTES", 1000)
    alice = await world.client("alice")
    await create(alice, NODE, max_items="max")
    for number in range(5):
        await publish(alice, NODE, str(number), f"<x xmlns='x:1'>{'x' * 300}</x>")
    answer = await items(alice, NODE)
    assert ids(answer) == ["0", "1"] and of_set(answer, "count") == "5"
    assert ids(await items(alice, NODE, more=page("<after>1</after>"))) == ["2", "3"]
    assert ids(await items(alice, NODE, max_items=4)) == ["3", "4"]
    some = await items(alice, NODE, inner="<item id='4'/><item id='0'/><item id='2'/>")
    assert ids(some) == ["0", "2"] and of_set(some, "count") == "3"


async def test_only_the_newest_stay(world):
    alice = await world.client("alice")
    await create(alice, NODE, max_items=2)
    for number in range(4):
        await publish(alice, NODE, str(number))
    assert ids(await items(alice, NODE)) == ["2", "3"]


async def test_a_payload_stays_what_it_was(world):
    alice = await world.client("alice")
    payload = "<x xmlns='x:1' a='&quot;&amp;'>t<b xmlns='jabber:client'/>u<c xmlns=''/></x>"
    await publish(alice, NODE, "1", payload)
    element = (await items(alice, NODE)).payload[0][0][0]
    assert [each.tag for each in element.iter()] == ["{x:1}x", "{jabber:client}b", "c"]
    assert (element.text, element[0].tail, element.get("a")) == ("t", "u", '"&')
    for tag in ("<body xmlns='jabber:client'/>", "<bare xmlns=''/>"):
        await publish(alice, NODE, "1", tag)
        assert (await items(alice, NODE)).payload[0][0][0].tag in ("{jabber:client}body", "bare")


@pytest.fixture
async def store(config):
    store = await open_store(config.database.url)
    await store.migrate()
    yield store
    await store.close()


async def walk(store, node_id: int, size: int, backward: bool, max_bytes: int) -> list[str]:
    """Everything in a node, page after page."""
    found: list[str] = []
    place = None
    for _ in range(200):
        where = {"before": place} if backward else {"after": place}
        answer = await store.pubsub_items.page(
            node_id, limit=size, max_bytes=max_bytes, backward=backward, **(where if place is not None else {})
        )
        if not answer.items:
            return found
        names = [item.name for item in answer.items]
        found = names + found if backward else found + names
        place = names[0] if backward else names[-1]
    raise AssertionError("the pages have no end")


PUBLISHED = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 300)), max_size=20)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PUBLISHED, st.integers(1, 7), st.integers(1, 1000), st.sets(st.integers(0, 12)))
async def test_pages_of_any_size_in_both_directions_are_the_whole_list(store, published, size, max_bytes, retracted):
    if await store.accounts.get("alice") is None:
        await store.accounts.create("alice", "x")
    user_id = (await store.accounts.get("alice")).id
    view = await store.pubsub.view("h", "n", "")
    if view is not None:
        await store.pubsub.delete(view.node.id)
    await store.pubsub.create(user_id, "h", "n", b"{}", 0, 9)
    node_id = (await store.pubsub.view("h", "n", "")).node.id
    expected: dict[str, int] = {}
    for number, length in published:
        await store.pubsub_items.publish(node_id, user_id, Item(str(number), b"x" * length, "a@b", 1), 100, 10**6)
        expected.pop(str(number), None)
        expected[str(number)] = length
    for number in retracted:
        assert (await store.pubsub_items.retract(node_id, str(number)) is None) == (str(number) not in expected)
        expected.pop(str(number), None)
    whole = await store.pubsub_items.page(node_id, limit=100, max_bytes=10**6)
    assert [(item.name, len(item.payload)) for item in whole.items] == list(expected.items())
    assert whole.count == len(expected)
    for backward in (False, True):
        assert await walk(store, node_id, size, backward, max_bytes) == list(expected)


class TestLimits:
    @pytest.fixture
    def limits(self):
        return Limits(pubsub_items=3, pubsub_nodes=2, pubsub_item_bytes=500, pubsub_bytes=1200, pubsub_subscriptions=1)

    async def test_max_means_the_limit(self, world):
        alice = await world.client("alice")
        await create(alice, NODE, max_items="max")
        for number in range(5):
            await publish(alice, NODE, str(number))
        assert ids(await items(alice, NODE)) == ["2", "3", "4"]

    async def test_too_many_nodes(self, world):
        alice = await world.client("alice")
        for name in ("a", "b"):
            assert (await create(alice, name)).type == "result"
        for answer in (await create(alice, "c"), await publish(alice, "d"), await create(alice, "e", SERVICE)):
            assert condition(answer) == "conflict"
            assert answer.element[0][-1].tag.endswith("max-nodes-exceeded")
        assert world.limits_hit() == {"pubsub_nodes": 3}
        await ask(alice, "set", "<delete node='a'/>", owner=True)
        assert (await create(alice, "c")).type == "result"

    async def test_too_big_an_item(self, world):
        alice = await world.client("alice")
        answer = await publish(alice, NODE, payload=f"<x xmlns='x:1'>{'x' * 500}</x>")
        assert condition(answer) == "not-acceptable"
        assert answer.element[0][-1].tag.endswith("payload-too-big")
        assert world.limits_hit() == {"pubsub_item_bytes": 1}

    async def test_too_many_bytes_of_an_account(self, world):
        alice = await world.client("alice")
        await create(alice, NODE, max_items="max")
        payload = f"<x xmlns='x:1'>{'x' * 400}</x>"
        for number in range(2):
            assert (await publish(alice, NODE, str(number), payload)).type == "result"
        assert condition(await publish(alice, "x:other", "2", payload)) == "resource-constraint"
        assert ids(await items(alice, NODE)) == ["0", "1"]
        assert (await publish(alice, NODE, "1", payload)).type == "result"  # in its own place
        assert world.limits_hit() == {"pubsub_bytes": 1}

"""XEP-0402, and the two older places for bookmarks (XEP-0048) joined with it."""

from __future__ import annotations

from harness import condition
from pep import ask, create, event, ids, items, listener, no_event, publish

from nestbox.modules import bookmarks

NEW, OLD = "urn:xmpp:bookmarks:1", "storage:bookmarks"
OPTIONS = {
    "persist_items": "true",
    "max_items": "max",
    "send_last_published_item": "never",
    "access_model": "whitelist",
}


def bookmark(name: str, *, autojoin: bool = True, extra: str = "") -> str:
    flag = str(autojoin).lower()
    return f"<conference xmlns='{NEW}' name='{name}' autojoin='{flag}'><nick>Al</nick>{extra}</conference>"


def storage(*conferences: str, more: str = "") -> str:
    return f"<storage xmlns='{OLD}'>{''.join(conferences)}{more}</storage>"


def old(jid: str, name: str, autojoin: str = "1") -> str:
    return f"<conference jid='{jid}' name='{name}' autojoin='{autojoin}'><nick>Al</nick></conference>"


async def private(client) -> list[tuple[str, ...]]:
    """The rooms in private storage."""
    query = f"<query xmlns='jabber:iq:private'><storage xmlns='{OLD}'/></query>"
    return rooms((await client.iq("get", query)).payload[0])


async def set_private(client, xml: str) -> None:
    assert (await client.iq("set", f"<query xmlns='jabber:iq:private'>{xml}</query>")).type == "result"


def rooms(element) -> list[tuple[str, ...]]:
    found = element.findall(f"{{{OLD}}}conference")
    return [
        (each.get("jid"), each.get("name"), each.get("autojoin"), each.findtext(f"{{{OLD}}}nick")) for each in found
    ]


async def test_bookmarks_of_all_devices(world):
    alice = await listener(world, "alice", NEW)
    phone = await listener(world, "alice", NEW, resource="phone", worker=2)
    for room in ("a@r.org", "b@r.org"):
        assert (await publish(alice, NEW, room, bookmark("Room"), **OPTIONS)).type == "result"
        assert (await event(phone, NEW))[0].get("id") == room
    assert ids(await items(phone, NEW)) == ["a@r.org", "b@r.org"]
    assert (
        await ask(phone, "set", f"<retract node='{NEW}' notify='1'><item id='a@r.org'/></retract>")
    ).type == "result"
    for _ in range(3):
        said = await event(alice, NEW)
    assert said[0].tag.endswith("retract") and said[0].get("id") == "a@r.org"
    other = await listener(world, "alice", NEW, resource="new")
    await no_event(other)  # send_last_published_item is never
    eve = await world.client("eve")
    assert condition(await items(eve, NEW, alice.bare)) == "not-allowed"


async def test_old_clients_see_what_new_ones_bookmark(world):
    alice = await world.client("alice")
    legacy = await listener(world, "alice", OLD, resource="legacy", worker=2)
    await publish(alice, NEW, "a@r.org", bookmark("A"), **OPTIONS)
    await publish(alice, NEW, "b@r.org", bookmark("B", autojoin=False), **OPTIONS)
    expected = [("a@r.org", "A", "true", "Al"), ("b@r.org", "B", "false", "Al")]
    assert await private(legacy) == expected
    await event(legacy, OLD)
    assert rooms((await event(legacy, OLD))[0][0]) == expected
    assert ids(await items(legacy, OLD)) == ["current"]
    await ask(alice, "set", f"<retract node='{NEW}'><item id='a@r.org'/></retract>")
    assert await private(legacy) == expected[1:]
    assert rooms((await event(legacy, OLD))[0][0]) == expected[1:]


async def test_new_clients_see_what_old_ones_store(world):
    phone = await listener(world, "alice", NEW, worker=2)
    legacy = await world.client("alice", "legacy")
    page = "<url name='Page' url='https://x.org'/>"
    await set_private(legacy, storage(old("a@r.org", "A"), old("b@r.org", "B"), more=page))
    assert {(await event(phone, NEW))[0].get("id") for _ in range(2)} == {"a@r.org", "b@r.org"}
    extra = "<extensions><x xmlns='x:1'/></extensions>"
    await publish(phone, NEW, "a@r.org", bookmark("A", extra=extra))
    await event(phone, NEW)
    await set_private(legacy, storage(old("a@r.org", "A2"), old("b@r.org", "B", "true"), more=page))
    said = (await event(phone, NEW))[0]
    assert said.get("id") == "a@r.org"
    assert said[0].get("name") == "A2" and said[0].find(f"{{{NEW}}}extensions")[0].tag == "{x:1}x"
    await no_event(phone)  # b is the same as before
    await set_private(legacy, storage(old("b@r.org", "B"), more=page))
    assert (await event(phone, NEW))[0].get("id") == "a@r.org"
    assert ids(await items(phone, NEW)) == ["b@r.org"]
    query = f"<query xmlns='jabber:iq:private'><storage xmlns='{OLD}'/></query>"
    kept = (await legacy.iq("get", query)).payload[0]
    assert kept.find(f"{{{OLD}}}url").get("url") == "https://x.org"


async def test_the_list_in_one_pep_item_is_joined_too(world):
    phone = await listener(world, "alice", NEW, worker=2)
    legacy = await world.client("alice", "legacy")
    private_node = {"persist_items": "true", "access_model": "whitelist"}
    await publish(legacy, OLD, "current", storage(old("a@r.org", "A"), old("not a jid", "X")), **private_node)
    assert (await event(phone, NEW))[0].get("id") == "a@r.org"
    assert await private(phone) == [("a@r.org", "A", "true", "Al")]
    await publish(legacy, OLD, "current", storage(), **private_node)
    assert ids(await items(phone, NEW)) == []
    assert await private(phone) == []


async def test_what_was_stored_before_there_were_items_is_taken_over(world):
    alice = await world.client("alice")
    data = storage(old("a@r.org", "A")).encode()
    store = world.servers[1].store
    await store.private.put(alice.session.user.id, f"{{{OLD}}}storage", data)  # by an older release
    await publish(alice, NEW, "b@r.org", bookmark("B"), **OPTIONS)
    assert set(ids(await items(alice, NEW))) == {"a@r.org", "b@r.org"}
    assert {room[0] for room in await private(alice)} == {"a@r.org", "b@r.org"}


async def test_writing_the_same_list_again_says_nothing(world):
    alice = await listener(world, "alice", NEW, OLD)
    for _ in range(2):
        await set_private(alice, storage(old("a@r.org", "A")))
    await event(alice, NEW)
    await event(alice, OLD)
    await no_event(alice)


async def test_more_than_the_older_places_take_is_not_joined(world, monkeypatch):
    monkeypatch.setattr(bookmarks, "JOINED_BYTES", 500)
    alice = await world.client("alice")
    await publish(alice, NEW, "a@r.org", bookmark("A"), **OPTIONS)
    await publish(alice, NEW, "b@r.org", bookmark("B" * 500), **OPTIONS)
    assert [room[0] for room in await private(alice)] == ["a@r.org"]
    await set_private(alice, storage(old("c@r.org", "C")))
    assert ids(await items(alice, NEW)) == ["a@r.org", "b@r.org"]  # nothing was taken for removed


async def test_the_account_says_that_it_joins_them(world):
    alice = await world.client("alice")
    info = (await alice.iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", alice.bare)).payload
    assert {f"{NEW}#compat", f"{NEW}#compat-pep"} <= {each.get("var") for each in info}


async def test_what_is_private_does_not_go_into_a_node_that_others_read(world):
    await world.friends("alice", "bob")
    alice = await world.client("alice")
    assert (await create(alice, OLD)).type == "result"  # as for contacts
    bob = await listener(world, "bob", OLD, NEW, worker=2)
    await set_private(alice, storage(old("tea@rooms.x.test", "Tea")))
    await no_event(bob)
    assert ids(await items(alice, OLD)) == []
    assert ids(await items(alice, NEW)) == ["tea@rooms.x.test"]  # which is private, as nobody has made it before
    assert condition(await items(bob, NEW, alice.bare)) == "not-allowed"


async def test_a_node_that_keeps_too_few_is_not_joined(world):
    alice = await world.client("alice")
    assert (await create(alice, NEW, access_model="whitelist", max_items="1")).type == "result"
    await set_private(alice, storage(*(old(f"{name}@rooms.x.test", name) for name in ("one", "two"))))
    assert [room[1] for room in await private(alice)] == ["one", "two"]
    await publish(alice, NEW, "three@rooms.x.test", bookmark("three"))
    assert [room[1] for room in await private(alice)] == ["one", "two"]


async def test_a_bookmark_is_private_where_the_client_forgot_to_say_so(world):
    await world.friends("alice", "bob")
    alice, bob = await world.client("alice"), await world.client("bob", worker=2)
    for name in ("one", "two"):
        await publish(alice, NEW, f"{name}@rooms.x.test", bookmark(name))
    assert condition(await items(bob, NEW, alice.bare)) == "not-allowed"
    assert [room[1] for room in await private(alice)] == ["one", "two"]

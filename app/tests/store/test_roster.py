from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from nestbox.store import NoSuchAccount, RosterItem, Store
from nestbox.store.errors import StoreFull
from nestbox.store.roster import KEPT_REMOVALS, Contact, Decide


@pytest.fixture
async def alice(store: Store) -> int:
    return (await store.accounts.create("alice", "x")).id


async def test_items_are_written_read_and_replaced(store: Store, alice: int) -> None:
    item = RosterItem("bob@x", "Bób 🐦", "both", True, True, ["Friends", "Wörk"])
    assert await store.roster.put(alice, item) == item.ver == 1
    assert await store.roster.get(alice, "bob@x") == item
    assert await store.roster.put(alice, RosterItem("bob@x", "Bob")) == 2
    assert await store.roster.items(alice) == [RosterItem("bob@x", "Bob", ver=2)]
    assert await store.roster.get(alice, "BOB@x") is None


async def test_changes_since_a_version_include_removals(store: Store, alice: int) -> None:
    for name in ("a@x", "b@x", "c@x"):
        await store.roster.put(alice, RosterItem(name, "Name"))
    assert await store.roster.remove(alice, "a@x") == 4
    assert await store.roster.version(alice) == 4
    assert [item.jid for item in await store.roster.items(alice)] == ["b@x", "c@x"]
    assert await store.roster.get(alice, "a@x") is None
    changes = await store.roster.changes(alice, 2)
    assert [(item.jid, item.subscription, item.name) for item in changes] == [
        ("c@x", "none", "Name"),
        ("a@x", "remove", ""),
    ]
    assert await store.roster.changes(alice, 4) == []
    assert await store.roster.changes(alice, 5) is None
    assert await store.roster.changes(alice, -1) is None


async def test_removals_do_not_pile_up(store: Store, alice: int) -> None:
    for index in range(KEPT_REMOVALS + 10):
        await store.roster.put(alice, RosterItem(f"u{index}@x"))
        last = await store.roster.remove(alice, f"u{index}@x")
    assert await store.roster.changes(alice, 0) is None
    assert len(await store.roster.changes(alice, last - 2 * KEPT_REMOVALS)) == KEPT_REMOVALS


async def test_a_roster_of_a_deleted_account_is_not_written(store: Store, alice: int) -> None:
    await store.accounts.delete("alice")
    with pytest.raises(NoSuchAccount):
        await store.roster.put(alice, RosterItem("bob@x"))


async def test_requests_wait_once_per_asker_and_are_bounded(store: Store, alice: int, monkeypatch) -> None:
    monkeypatch.setattr("nestbox.store.roster.MAX_REQUESTS", 2)
    assert await store.roster.add_request(alice, "b@x", b"<presence id='1'/>")
    assert await store.roster.add_request(alice, "c@x", b"<presence/>")
    assert await store.roster.add_request(alice, "b@x", b"<presence id='2'/>")
    assert not await store.roster.add_request(alice, "d@x", b"<presence/>")
    assert sorted(await store.roster.requests(alice)) == [("b@x", b"<presence id='2'/>"), ("c@x", b"<presence/>")]
    assert await store.roster.remove_request(alice, "b@x")
    assert not await store.roster.remove_request(alice, "b@x")


async def test_vcard_private_and_blocking(store: Store, alice: int) -> None:
    assert await store.vcards.get(alice) is None
    for xml in (b"<vCard>1</vCard>", b"<vCard>\xf0\x9f\x90\xa6" + b"x" * 200_000 + b"</vCard>"):
        await store.vcards.put(alice, xml)
        assert await store.vcards.get(alice) == xml
    assert await store.private.get(alice, "{a}b") is None and await store.private.size(alice) == 0
    await store.private.put(alice, "{a}b", b"<b/>")
    await store.private.put(alice, "{a}b", b"<b>2</b>")
    assert await store.private.get(alice, "{a}b") == b"<b>2</b>"
    assert await store.private.size(alice) == len(b"<b>2</b>") + len("{a}b") + 16
    await store.blocking.add(alice, ["z@x", "a@x/r", "z@x"])
    assert await store.blocking.list(alice) == ["a@x/r", "z@x"]
    await store.blocking.remove(alice, ["z@x", "no@x"])
    assert await store.blocking.list(alice) == ["a@x/r"]
    await store.blocking.clear(alice)
    assert await store.blocking.list(alice) == []


async def test_the_longest_addresses_are_kept_whole(store: Store, alice: int) -> None:
    bare = "l" * 1023 + "@" + "d" * 1023
    await store.roster.put(alice, RosterItem(bare))
    await store.roster.put(alice, RosterItem(bare[:-1]))
    assert [item.jid for item in await store.roster.items(alice)] == [bare[:-1], bare]
    await store.blocking.add(alice, [bare + "/" + "r" * 1000])
    assert await store.blocking.list(alice) == [bare + "/" + "r" * 1000]


async def test_offline_messages_stay_until_deleted(store: Store, alice: int) -> None:
    for index in range(1200):
        store.committer.offline(alice, 1000 + index, b"<message>%d</message>" % index)
    await store.committer.flush()
    assert await store.offline.count(alice) == 1200
    page = await store.offline.fetch(alice, 700)
    assert page == [(1000 + index, b"<message>%d</message>" % index) for index in range(700)]
    await store.offline.delete(alice, [id_ for id_, _ in page])
    assert [id_ for id_, _ in await store.offline.fetch(alice, 1000)] == list(range(1700, 2200))


async def test_changes_at_the_same_time_all_count(store: Store) -> None:
    """Each decides by what the one before has written: with a stale read an approval would be lost."""
    alice = await store.accounts.create("alice", "x")

    def add_group(name: str) -> Decide:
        def decide(contact: Contact) -> Contact:
            item = contact.item or RosterItem("bob@x")
            return Contact(replace(item, groups=[*item.groups, name]), contact.request)

        return decide

    names = [str(number) for number in range(8)]
    await asyncio.gather(*(store.roster.change(alice.id, "bob@x", add_group(name), 1) for name in names))
    item = await store.roster.get(alice.id, "bob@x")
    assert sorted(item.groups) == names and item.ver == 8


async def test_a_change_may_be_refused_and_removes(store: Store) -> None:
    alice = await store.accounts.create("alice", "x")
    asked = Contact(RosterItem("bob@x"), b"<presence/>")
    before, after, ver = await store.roster.change(alice.id, "bob@x", lambda contact: asked, 1)
    assert before == (None, None) and (after, ver) == (asked, 1)
    assert await store.roster.requests(alice.id) == [("bob@x", b"<presence/>")]
    with pytest.raises(StoreFull):
        await store.roster.change(alice.id, "carol@x", lambda contact: Contact(RosterItem("carol@x"), None), 1)
    same = await store.roster.change(alice.id, "bob@x", lambda contact: contact, 1)
    assert same[2] == 0 and same[0] == same[1]
    _, after, ver = await store.roster.change(alice.id, "bob@x", lambda contact: Contact(None, None), 1)
    assert after == (None, None) and ver == 2
    assert await store.roster.items(alice.id) == [] and await store.roster.requests(alice.id) == []
    assert [(item.jid, item.subscription) for item in await store.roster.changes(alice.id, 1)] == [("bob@x", "remove")]

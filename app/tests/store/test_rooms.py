from __future__ import annotations

import pytest

from nestbox.core.ids import ms_to_id
from nestbox.store import Affiliate, RoomRow, Store, StoreError
from nestbox.store.rooms import archive_owner


def row(name: str, *affiliates: Affiliate) -> RoomRow:
    return RoomRow(0, name, b"s" * 32, b"{}", b"[]", list(affiliates))


async def test_a_room_is_read_as_it_was_written(store: Store) -> None:
    owner = Affiliate("anna@x", "owner", "Änna", "made it")
    room_id = await store.rooms.create(row("tea", owner), listed=True)
    found = await store.rooms.get("tea")
    assert found == RoomRow(room_id, "tea", b"s" * 32, b"{}", b"[]", [owner])
    assert await store.rooms.get("Tea") is None
    await store.rooms.set_config(room_id, b"{1}", listed=False)
    await store.rooms.set_subject(room_id, b"[2]")
    await store.rooms.set_vcard(room_id, b"{3}", b"<card/>")
    found = await store.rooms.get("tea")
    assert (found.config, found.subject) == (b"{3}", b"[2]") and await store.rooms.vcard(room_id) == b"<card/>"
    with pytest.raises(StoreError):
        await store.rooms.create(row("tea"), listed=True)


async def test_affiliations_are_replaced_and_erased(store: Store) -> None:
    room_id = await store.rooms.create(row("tea", Affiliate("anna@x", "owner")), listed=True)
    await store.rooms.affiliate(room_id, [Affiliate("ben@x", "member", "Ben"), Affiliate("eve@x", "outcast")])
    await store.rooms.affiliate(room_id, [Affiliate("ben@x", "admin"), Affiliate("eve@x", "none")])
    found = {each.jid: each for each in (await store.rooms.get("tea")).affiliates}
    assert found == {"anna@x": Affiliate("anna@x", "owner"), "ben@x": Affiliate("ben@x", "admin")}


async def test_rooms_are_listed_in_pages(store: Store) -> None:
    for name in ("b", "d", "a", "c", "hidden"):
        await store.rooms.create(row(name), listed=name != "hidden")
    names = lambda page: [name for name, _ in page]  # noqa: E731
    assert names(await store.rooms.listed(2)) == ["a", "b"]
    assert names(await store.rooms.listed(2, after="b")) == ["c", "d"]
    assert names(await store.rooms.listed(2, backward=True)) == ["c", "d"]
    assert names(await store.rooms.listed(2, before="c", backward=True)) == ["a", "b"]
    assert await store.rooms.count_listed() == 4


async def test_a_deleted_account_leaves_no_rights_behind(store: Store) -> None:
    await store.accounts.create("anna", "secret password")
    user_id = (await store.accounts.get("anna")).id
    await store.rooms.create(row("tea", Affiliate("anna@x", "owner", user_id=user_id)), listed=True)
    assert await store.rooms.count_owned(user_id) == 1
    await store.accounts.delete("anna")
    assert (await store.rooms.get("tea")).affiliates == []


async def test_a_rooms_archive_stays_until_the_room_goes(store: Store) -> None:
    room_id = await store.rooms.create(row("tea", Affiliate("anna@x", "owner")), listed=True)
    owner = archive_owner(room_id)
    for number in (1, 2):
        store.committer.archive(owner, ms_to_id(1_800_000_000_000) + number, "tea@rooms.x/anna", b"<message/>")
    await store.committer.flush()
    await store.archive.maintain()
    assert await store.archive.count(owner) == 2
    await store.archive.replace(owner, ms_to_id(1_800_000_000_000) + 1, b"<message>gone</message>")
    rows = (await store.archive.query(owner)).rows
    assert [each.stanza for each in rows] == [b"<message>gone</message>", b"<message/>"]
    await store.rooms.delete(room_id)
    assert await store.rooms.get("tea") is None and await store.archive.count(owner) == 0
    store.committer.archive(owner, ms_to_id(1_800_000_000_000) + 3, "tea@rooms.x/anna", b"<message/>")
    await store.committer.flush()
    await store.archive.maintain()
    assert await store.archive.count(owner) == 0

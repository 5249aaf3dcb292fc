"""Slots and quotas on both databases."""

from __future__ import annotations

import asyncio

import pytest

from nestbox.store import Store
from nestbox.store.uploads import DAY, Quota, Upload, UploadRefused

NOW = 1_700_000_000
QUOTA = Quota(total_bytes=100, daily_bytes=50, files=4, days=10, slot_seconds=60)


def upload(user_id: int, token: str, size: int, created: int = NOW) -> Upload:
    return Upload(token, user_id, "très cool 😀.jpg", size, "image/jpeg", created)


async def test_a_slot_is_reserved_completed_and_forgotten(store: Store) -> None:
    user = await store.accounts.create("alice", "password")
    slot = upload(user.id, "t1", 7)
    await store.uploads.reserve(slot, QUOTA)
    assert await store.uploads.get("t1") == slot
    assert await store.uploads.get("T1") is None
    assert await store.uploads.complete("t1", NOW + 1)
    assert not await store.uploads.complete("t1", NOW + 2)
    assert (await store.uploads.get("t1")).stored == NOW + 1
    assert await store.uploads.usage() == (1, 7) and await store.uploads.tokens(user.id) == {"t1"}
    await store.uploads.forget(["t1"])
    assert await store.uploads.get("t1") is None and await store.uploads.usage() == (0, 0)


async def test_what_is_refused_says_until_when(store: Store) -> None:
    user = await store.accounts.create("alice", "password")
    for number, created in enumerate((NOW - 3 * DAY, NOW - 2 * DAY)):
        await store.uploads.reserve(upload(user.id, f"old{number}", 40, created), QUOTA)
        await store.uploads.complete(f"old{number}", created)
    with pytest.raises(UploadRefused, match="keep 100 bytes") as caught:
        await store.uploads.reserve(upload(user.id, "x", 30), QUOTA)
    assert caught.value.retry == NOW - 3 * DAY + 10 * DAY
    await store.uploads.reserve(upload(user.id, "new", 20), QUOTA)
    with pytest.raises(UploadRefused, match="50 bytes within a day") as caught:
        await store.uploads.reserve(upload(user.id, "x", 31), QUOTA)
    assert caught.value.retry == NOW + DAY
    with pytest.raises(UploadRefused) as caught:
        await store.uploads.reserve(upload(user.id, "x", 51), QUOTA)
    assert caught.value.retry is None


async def test_slots_of_one_account_wait_for_each_other(store: Store) -> None:
    user = await store.accounts.create("alice", "password")
    slots = [store.uploads.reserve(upload(user.id, f"t{number}", 20), QUOTA) for number in range(5)]
    outcomes = await asyncio.gather(*slots, return_exceptions=True)
    assert [isinstance(outcome, UploadRefused) for outcome in outcomes].count(False) == 2


async def test_what_is_expired(store: Store) -> None:
    user = await store.accounts.create("alice", "password")
    for token, created in (("a", NOW - DAY), ("b", NOW), ("c", NOW - DAY), ("d", NOW)):
        await store.uploads.reserve(upload(user.id, token, 1, created), Quota(100, 100, 10, 10, DAY * 5))
    for token in ("a", "b"):
        await store.uploads.complete(token, NOW - DAY if token == "a" else NOW)
    found = await store.uploads.expired(stored_before=NOW, unused_before=NOW, limit=10)
    assert [slot.token for slot in found] == ["a", "c"]
    assert len(await store.uploads.expired(stored_before=NOW, unused_before=NOW, limit=1)) == 1


async def test_slots_go_with_the_account(store: Store) -> None:
    user = await store.accounts.create("alice", "password")
    await store.uploads.reserve(upload(user.id, "t", 1), QUOTA)
    await store.accounts.delete("alice")
    assert await store.uploads.get("t") is None

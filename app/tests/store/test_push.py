"""Push registrations on both databases."""

from __future__ import annotations

import pytest

from nestbox.store import Registration, Store
from nestbox.store.errors import StoreFull

SERVICE = "push.example.org"


async def _user(store: Store, name: str = "anna") -> int:
    await store.accounts.create(name, "correct horse")
    return (await store.accounts.get(name)).id


async def test_registrations_are_kept_by_service_and_node(store: Store) -> None:
    anna, ben = await _user(store), await _user(store, "ben")
    first = Registration(SERVICE, "1", "phone", b"<x/>")
    await store.push.enable(anna, first, 9)
    await store.push.enable(anna, Registration(SERVICE, "", "tablet"), 9)
    await store.push.enable(ben, first, 9)
    assert await store.push.list(anna) == [Registration(SERVICE, "", "tablet"), first]
    again = Registration(SERVICE, "1", "new", b"")
    await store.push.enable(anna, again, 9)
    assert again in await store.push.list(anna) and len(await store.push.list(anna)) == 2
    assert await store.push.list(ben) == [first]


async def test_the_longest_are_kept(store: Store) -> None:
    anna = await _user(store)
    longest = Registration("a" * 1023 + "@" + "b" * 1000 + "/" + "c" * 1000, "é" * 512, "r" * 1023, b"x" * 100_000)
    other = Registration(longest.jid, longest.node[:-1], "r")
    await store.push.enable(anna, longest, 9)
    await store.push.enable(anna, other, 9)
    assert set(await store.push.list(anna)) == {longest, other}


async def test_disabling_one_and_all(store: Store) -> None:
    anna = await _user(store)
    for service, node in ((SERVICE, "1"), (SERVICE, "2"), (SERVICE, ""), ("other", "1")):
        await store.push.enable(anna, Registration(service, node, "phone"), 9)
    assert await store.push.disable(anna, SERVICE, "")
    assert not await store.push.disable(anna, SERVICE, "")
    assert [r.node for r in await store.push.list(anna)] == ["1", "1", "2"]
    assert await store.push.disable(anna, SERVICE, None)
    assert [r.jid for r in await store.push.list(anna)] == ["other"]


async def test_so_many_and_no_more(store: Store) -> None:
    anna = await _user(store)
    for node in ("1", "2", "2", "1"):
        await store.push.enable(anna, Registration(SERVICE, node, "phone"), 2)
    with pytest.raises(StoreFull, match="At most 2"):
        await store.push.enable(anna, Registration(SERVICE, "3", "phone"), 2)
    assert len(await store.push.list(anna)) == 2


async def test_failures_are_counted_until_it_works(store: Store) -> None:
    anna = await _user(store)
    one, other = Registration(SERVICE, "1", "phone"), Registration(SERVICE, "2", "phone")
    for registration in (one, other):
        await store.push.enable(anna, registration, 9)
    assert [await store.push.failed(anna, one) for _ in range(3)] == [1, 2, 3]
    assert await store.push.failed(anna, other) == 1
    await store.push.worked(anna, one)
    assert await store.push.failed(anna, one) == 1
    await store.push.enable(anna, one, 9)
    assert await store.push.failed(anna, one) == 1
    assert await store.push.failed(anna, Registration(SERVICE, "gone", "phone")) == 0


async def test_they_go_with_the_account(store: Store) -> None:
    anna = await _user(store)
    await store.push.enable(anna, Registration(SERVICE, "1", "phone"), 9)
    await store.accounts.delete("anna")
    assert await store.push.list(anna) == []

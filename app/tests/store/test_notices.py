"""Standing messages and who has had them, on both databases."""

from __future__ import annotations

import asyncio

from nestbox.store import Store
from nestbox.store.notices import Notice


async def test_notices_are_set_changed_and_unset(store: Store) -> None:
    assert await store.notices.all() == {}
    await store.notices.put("motd", Notice(1, "Grüß Gott"))
    await store.notices.put("welcome", Notice(2, "Hello"))
    await store.notices.put("motd", Notice(3, "Good day"))
    assert await store.notices.all() == {"motd": Notice(3, "Good day"), "welcome": Notice(2, "Hello")}
    await store.notices.remove("motd")
    assert set(await store.notices.all()) == {"welcome"}


async def test_an_account_claims_a_notice_once(store: Store) -> None:
    alice = await store.accounts.create("alice", "x")
    claims = await asyncio.gather(*(store.notices.claim(alice.id, "motd", 1) for _ in range(4)))
    assert sorted(claims) == [False, False, False, True]
    assert await store.notices.claim(alice.id, "motd", 2)
    assert await store.notices.claim(alice.id, "welcome", 2)
    assert not await store.notices.claim(alice.id, "motd", 2)
    assert not await store.notices.claim(alice.id + 1, "motd", 2)  # there is no such account

"""Invitations on both databases."""

from __future__ import annotations

import asyncio

import pytest

from nestbox.store import AccountExists, Store
from nestbox.store.errors import StoreFull
from nestbox.store.invites import Invite, InviteGone, new_token
from nestbox.store.passwords import derive

NOW = 1_700_000_000


def invite(user_id: int | None = None, username: str = "", uses: int = 1, expires: int = NOW + 60) -> Invite:
    return Invite(new_token(), user_id, username, True, user_id is not None, uses, NOW, expires)


async def test_an_invitation_is_found_listed_and_taken_back(store: Store) -> None:
    alice = await store.accounts.create("alice", "x")
    hers, operators = invite(alice.id), invite()
    for one in (hers, operators, invite(expires=NOW), invite(uses=0)):
        await store.invites.create(one)
    hers.inviter = "alice"
    assert await store.invites.get(hers.token) == hers and await store.invites.get(operators.token) == operators
    assert await store.invites.get("nothing") is None
    assert {one.token for one in await store.invites.list(NOW)} == {hers.token, operators.token}
    assert await store.invites.revoke(hers.token) and not await store.invites.revoke(hers.token)
    assert await store.invites.get(hers.token) is None
    await store.invites.forget(NOW + 61)
    assert await store.invites.get(operators.token) is None


async def test_an_invitation_is_used_as_often_as_it_says(store: Store) -> None:
    one = invite(uses=3)
    await store.invites.create(one)
    used = await asyncio.gather(*(store.invites.use(one.token) for _ in range(8)))
    assert used.count(True) == 3


async def test_account_and_use_are_one(store: Store) -> None:
    one, keys = invite(uses=2), await derive("x")
    await store.invites.create(one)
    await store.invites.register(one.token, "carol", keys)
    with pytest.raises(AccountExists):
        await store.invites.register(one.token, "carol", keys)
    assert (await store.invites.get(one.token)).uses_left == 1  # what failed has used nothing
    await store.invites.register(one.token, "dave", keys)
    with pytest.raises(InviteGone):
        await store.invites.register(one.token, "erin", keys)
    assert await store.accounts.get("erin") is None
    assert set((await store.accounts.get("dave")).keys) == {"SHA-1", "SHA-256", "SHA-512"}


async def test_one_invitation_makes_one_account_whoever_comes_at_once(store: Store) -> None:
    one, keys = invite(), await derive("x")
    await store.invites.create(one)
    names = [f"user{number}" for number in range(4)]
    outcomes = await asyncio.gather(
        *(store.invites.register(one.token, name, keys) for name in names), return_exceptions=True
    )
    assert outcomes.count(None) == 1 and len(await store.accounts.existing(names)) == 1


async def test_a_promised_name_is_kept_while_the_invitation_is_open(store: Store) -> None:
    one = invite(username="juliet")
    await store.invites.create(one)
    assert await store.invites.reserved("juliet", NOW)
    assert not await store.invites.reserved("juliet", NOW, one.token)
    assert not await store.invites.reserved("juliet", NOW + 60)
    with pytest.raises(AccountExists):
        await store.invites.create(invite(username="juliet"))
    await store.accounts.create("romeo", "x")
    with pytest.raises(AccountExists):
        await store.invites.create(invite(username="romeo"))


async def test_the_limit_holds_for_those_who_come_at_once(store: Store) -> None:
    alice = await store.accounts.create("alice", "x")
    outcomes = await asyncio.gather(
        *(store.invites.create(invite(alice.id), limit=2) for _ in range(5)), return_exceptions=True
    )
    assert [isinstance(outcome, StoreFull) for outcome in outcomes].count(True) == 3

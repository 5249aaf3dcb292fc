"""The reads of every login: right answers, few statements, and nothing that is out of date."""

from __future__ import annotations

import asyncio

import pytest

from nestbox.store import Prefs, RosterItem, Store, StoreError, open_store
from nestbox.store.reader import Lookup
from nestbox.store.tokens import TokenRow
from tests.databases import MariaDB


async def test_a_profile_has_all_that_a_login_needs(store: Store) -> None:
    alice = await store.accounts.create("alice", "x")
    await store.accounts.create_many([("old", {"SHA-1": alice.keys["SHA-1"]})])
    profile = await store.profiles.get("alice")
    assert profile.account == await store.accounts.get("alice")
    assert (profile.prefs, profile.blocked, profile.offline, profile.requests) == (Prefs(), frozenset(), False, False)
    await store.archive.set_prefs(alice.id, Prefs("roster", ["a@b"], ["c@d"]))
    await store.blocking.add(alice.id, ["eve@example.org", "spam.example"])
    await store.roster.add_request(alice.id, "dave@example.org", b"<presence/>")
    await store.accounts.set_photo(alice.id, "ab" * 20)
    await store.accounts.set_enabled("alice", False)
    store.committer.offline(alice.id, 1 << 56, b"<message/>")
    await store.committer.flush()
    profile = await store.profiles.get("alice")
    assert profile.prefs == Prefs("roster", ["a@b"], ["c@d"])
    assert profile.blocked == {"eve@example.org", "spam.example"}
    assert (profile.offline, profile.requests, profile.account.enabled) == (True, True, False)
    assert profile.account.photo == "ab" * 20
    assert set((await store.profiles.get("old")).account.keys) == {"SHA-1"}
    assert profile.empty_roster == 0
    await store.roster.put(alice.id, RosterItem("a@x"))
    assert (await store.profiles.get("alice")).empty_roster is None
    await store.roster.remove(alice.id, "a@x")
    assert (await store.profiles.get("alice")).empty_roster == 2
    assert await store.profiles.get("nobody") is None
    assert await store.profiles.get("Alice") is None  # names are compared byte by byte
    assert await store.profiles.get("x' OR 1=1 -- ") is None


async def test_a_roster_is_whole_and_in_order(store: Store) -> None:
    alice = await store.accounts.create("alice", "x")
    assert await store.roster.load(alice.id) == (0, [])
    names = ["c@x", "a@x", "ü@x", "b@x"]
    for name in names:
        await store.roster.put(alice.id, RosterItem(name, "N\u00fc", "both", True, True, ["F", "\u00fc"]))
    await store.roster.remove(alice.id, "b@x")
    version, items = await store.roster.load(alice.id)
    assert items == await store.roster.items(alice.id)
    assert [item.jid for item in items] == ["a@x", "c@x", "ü@x"]
    assert version == await store.roster.version(alice.id) == 5
    for name in ("a@x", "c@x", "ü@x"):
        await store.roster.remove(alice.id, name)
    assert await store.roster.load(alice.id) == (8, [])


async def test_tokens_of_one_client(store: Store) -> None:
    alice = await store.accounts.create("alice", "x")
    row = TokenRow("agent", True, "HT-SHA-256-NONE", b"nonce", 2**33, 0)
    await store.tokens.issue(alice.id, row, 9)
    await store.tokens.issue(alice.id, TokenRow("other", True, "HT-SHA-256-NONE", b"x", 2**33, 0), 9)
    assert await store.tokens.of("alice", "agent") == [row]
    assert await store.tokens.use(alice.id, "agent", b"nonce", 3)
    newer = TokenRow("agent", True, "HT-SHA-256-NONE", b"newer", 2**33, 0)
    await store.tokens.issue(alice.id, newer, 9)
    used = TokenRow("agent", False, "HT-SHA-256-NONE", b"nonce", 2**33, 3)
    assert await store.tokens.of("alice", "agent") == [newer, used]
    assert await store.tokens.use(alice.id, "agent", b"newer", 0)
    assert await store.tokens.of("alice", "agent") == [TokenRow("agent", False, "HT-SHA-256-NONE", b"newer", 2**33, 0)]
    assert not await store.tokens.use(alice.id, "agent", b"nonce", 9)
    await store.accounts.set_enabled("alice", False)
    assert await store.tokens.of("alice", "agent") == []


async def test_many_askers_share_a_statement(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = await store.accounts.create("alice", "x")
    await store.accounts.create_many([(f"u{number}", alice.keys) for number in range(250)])
    rows, statements = store.reader.rows, []

    async def counted(statement, keys):
        statements.append(len(keys))
        return await rows(statement, keys)

    monkeypatch.setattr(store.reader, "rows", counted)
    profiles = await asyncio.gather(*(store.profiles.get(f"u{number}") for number in range(300)))
    assert [profile and profile.account.username for profile in profiles] == [
        f"u{number}" if number < 250 else None for number in range(300)
    ]
    assert len(statements) <= 4
    assert max(statements) <= 100


async def test_who_asks_late_sees_what_was_committed_before(store: Store) -> None:
    """An answer that was on its way already is not shared with who asks after a change."""
    await store.accounts.create("alice", "x")
    gate, rows = asyncio.Event(), store.reader.rows

    class Slow:
        async def rows(self, statement, keys):
            answer = await rows(statement, keys)
            await gate.wait()
            return answer

    lookup = Lookup(Slow(), "SELECT username, enabled FROM accounts WHERE username IN ({})")
    early = asyncio.create_task(lookup.get("alice"))
    await asyncio.sleep(0.05)
    await store.accounts.set_enabled("alice", False)
    late = asyncio.create_task(lookup.get("alice"))
    await asyncio.sleep(0)
    gate.set()
    assert [row[1] for row in await early] == [1]
    assert [row[1] for row in await late] == [0]


async def test_an_error_is_told_to_all_and_then_forgotten(store: Store) -> None:
    await store.accounts.create("alice", "x")
    broken = Lookup(store.reader, "SELECT nonsense FROM accounts WHERE username IN ({})")
    answers = await asyncio.gather(broken.get("alice"), broken.get("bob"), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreError, StoreError]
    assert (await store.profiles.get("alice")).account.username == "alice"


async def test_who_gives_up_does_not_spoil_it_for_others(store: Store) -> None:
    await store.accounts.create("alice", "x")
    one = asyncio.create_task(store.profiles.get("alice"))
    other = asyncio.create_task(store.profiles.get("alice"))
    await asyncio.sleep(0)
    one.cancel()
    assert (await other).account.username == "alice"


async def test_mariadb_may_be_restarted(mariadb: MariaDB, mariadb_url: str) -> None:
    store = await open_store(mariadb_url)
    await store.migrate()
    await store.accounts.create("alice", "x")
    assert await store.profiles.get("alice") is not None
    mariadb.stop()
    with pytest.raises(StoreError):
        await store.profiles.get("alice")
    mariadb.start()
    assert await store.profiles.get("alice") is not None
    mariadb.kill()
    mariadb.start()
    assert await store.profiles.get("alice") is not None
    await store.close()

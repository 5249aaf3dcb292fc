from __future__ import annotations

import pytest
from scramp import ScramClient, ScramMechanism
from sqlalchemy import inspect, text

from nestbox.store import AccountExists, NoSuchAccount, PasswordError, Prefs, RosterItem, Store
from nestbox.store.accounts import account_columns
from nestbox.store.invites import Invite
from nestbox.store.passwords import ITERATIONS, derive
from nestbox.store.pubsub_items import Item
from nestbox.store.pubsub_people import Subscription
from nestbox.store.push import Registration
from nestbox.store.rooms import Affiliate, RoomRow
from nestbox.store.schema import metadata
from nestbox.store.tokens import TokenRow
from nestbox.store.uploads import Quota, Upload


async def test_an_account_is_created_and_found(store: Store) -> None:
    created = await store.accounts.create("Alice", "secret")
    found = await store.accounts.get("alice")
    assert found == created and found.enabled and set(found.keys) == {"SHA-1", "SHA-256", "SHA-512"}
    assert await store.accounts.get("bob") is None
    with pytest.raises(AccountExists):
        await store.accounts.create("ALICE", "other")
    assert (await store.accounts.get("alice")).keys == created.keys


@pytest.mark.parametrize("name", ["", "a b", "a@b", "a/b", "x" * 1024, "\u0000", "<a>"])
async def test_a_name_that_xmpp_forbids_is_refused(store: Store, name: str) -> None:
    with pytest.raises(ValueError):
        await store.accounts.create(name, "secret")
    assert await store.accounts.count() == 0


@pytest.mark.parametrize("password", ["", "\u0007", "x" * 1024, "\u00ad"])
async def test_a_password_that_no_client_can_send_is_refused(store: Store, password: str) -> None:
    with pytest.raises(PasswordError):
        await store.accounts.create("alice", password)
    assert await store.accounts.get("alice") is None


@pytest.mark.parametrize("digest", ["SHA-1", "SHA-256", "SHA-512"])
async def test_the_keys_let_a_scram_client_in_and_no_other(digest: str) -> None:
    password = "pässw\u00a0örd Ⅸ"  # SASLprep maps the space and the numeral
    keys = (await derive(password))[digest]
    assert keys.iterations == ITERATIONS[digest] >= 4096

    def login(attempt: str) -> None:
        info = (keys.salt, keys.stored_key, keys.server_key, keys.iterations)
        server = ScramMechanism(f"SCRAM-{digest}").make_server(lambda _: info)
        client = ScramClient([f"SCRAM-{digest}"], "alice", attempt)
        server.set_client_first(client.get_client_first())
        client.set_server_first(server.get_server_first())
        server.set_client_final(client.get_client_final())
        client.set_server_final(server.get_server_final())

    login(password)
    with pytest.raises(Exception, match="proof"):
        login("password")


async def test_passwords_change_and_accounts_are_disabled(store: Store) -> None:
    before = await store.accounts.create("alice", "one")
    await store.accounts.set_password("alice", "two")
    after = await store.accounts.get("alice")
    assert all(after.keys[digest] != before.keys[digest] for digest in before.keys)
    await store.accounts.set_enabled("alice", False)
    assert not (await store.accounts.get("alice")).enabled
    for change in (
        store.accounts.set_password("bob", "x"),
        store.accounts.set_enabled("bob", True),
        store.accounts.delete("bob"),
    ):
        with pytest.raises(NoSuchAccount, match=r"There is no user bob\."):
            await change


async def test_many_are_created_and_those_there_are_left_alone(store: Store) -> None:
    alice = await store.accounts.create("alice", "secret")
    names = [f"user{index:04}" for index in range(1200)]
    keys = await derive("x")
    assert await store.accounts.create_many([("Alice", keys), *((name, keys) for name in names)]) == ["alice"]
    assert await store.accounts.get("alice") == alice
    assert await store.accounts.count() == 1201
    assert (await store.accounts.get("user1199")).keys == keys
    found, after = [], ""
    while page := await store.accounts.list("user", after, limit=500):
        found += [account.username for account in page]
        after = page[-1].username
    assert found == names


async def test_names_are_compared_by_their_bytes(store: Store) -> None:
    await store.accounts.create("straße", "x")
    assert await store.accounts.get("strasse") is None
    await store.accounts.create("strasse", "x")
    await store.accounts.create("jose", "x")
    assert await store.accounts.get("josé") is None
    assert [account.username for account in await store.accounts.list("stra")] == ["strasse", "straße"]


async def test_the_last_activity_is_kept(store: Store) -> None:
    alice = await store.accounts.create("alice", "x")
    assert await store.accounts.last(alice.id) is None
    await store.accounts.touch_last(alice.id, 1_800_000_000, "gone fishing " + "ü" * 2000)
    seconds, status = await store.accounts.last(alice.id)
    assert seconds == 1_800_000_000 and status.startswith("gone fishing ü") and len(status.encode()) <= 1024


NOBODYS = {"alembic_version", "notices", "rooms"}  # tables without a row of any account


async def test_deleting_erases_every_row_of_the_account_and_no_other(store: Store) -> None:
    users = [await store.accounts.create(name, "x") for name in ("alice", "bob")]
    for user in users:
        await store.roster.put(user.id, RosterItem("carol@example.org", groups=["Friends"]))
        await store.roster.add_request(user.id, "dave@example.org", b"<presence/>")
        await store.vcards.put(user.id, b"<vCard/>")
        await store.private.put(user.id, "{ns}tag", b"<tag/>")
        await store.blocking.add(user.id, ["eve@example.org"])
        assert await store.notices.claim(user.id, "motd", 1)
        affiliates = [Affiliate(f"{user.username}@example.org", "owner", user_id=user.id)]
        await store.rooms.create(RoomRow(0, user.username, b"secret", b"{}", b"{}", affiliates), listed=False)
        await store.pubsub.create(user.id, "pubsub.example.org", user.username, b"{}", 0, 9, f"{user.username}@x.org")
        node = (await store.pubsub.view("pubsub.example.org", user.username, "")).node
        await store.pubsub_items.publish(node.id, user.id, Item("i", b"<x/>", "alice@x.org", 1), 9, 999)
        await store.pubsub_people.subscribe(
            node.id, user.id, user.id, Subscription("", "a@b", "a@b", "pending", "1"), 9
        )
        await store.uploads.reserve(Upload(user.username, user.id, "a.jpg", 1, "", 0), Quota(1, 1, 1, 0, 1))
        await store.tokens.issue(user.id, TokenRow("agent", True, "HT-SHA-256-NONE", b"nonce", 2**33, 0), 9)
        await store.devices.note(user.id, "agent", "client", "Talker", 9)
        await store.invites.create(Invite(user.username, user.id, "", True, True, 1, 0, 1))
        await store.push.enable(user.id, Registration("push.x.org", "node", "phone"), 9)
        await store.archive.set_prefs(user.id, Prefs("roster"))
        store.committer.archive(user.id, 1 << 56, "carol@example.org", b"<message/>")
        store.committer.mark(store.committer.offline(user.id, 1 << 56, b"<message/>"), user.username, user.id, 1)
    await store.committer.flush()
    assert {table.name for table, _ in account_columns()} == set(metadata.tables) - NOBODYS

    async def rows(user_id: int) -> dict[str, int]:
        # The database says which columns there are, so that a new table is not forgotten here.
        async with store.database.read() as connection:
            found = {}
            for name, columns in (await connection.run_sync(lambda c: inspect(c).get_multi_columns())).items():
                name, names = name[1], {column["name"] for column in columns}
                if name in NOBODYS:
                    continue
                column = next(key for key in ("user_id", "owner", "id") if key in names)
                query = text(f"SELECT COUNT(*) FROM {name} WHERE {column} = {user_id}")
                found[name] = (await connection.execute(query)).scalar_one()
        return found

    for user in users:
        assert all((await rows(user.id)).values()), "the test must fill every table"
    await store.accounts.delete("alice")
    assert not any((await rows(users[0].id)).values())
    assert all((await rows(users[1].id)).values())
    assert (await store.accounts.create("alice", "x")).id not in {user.id for user in users}

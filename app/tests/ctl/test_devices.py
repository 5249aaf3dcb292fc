"""nestboxctl device, and what an erased user leaves with others: over a real bus."""

from __future__ import annotations

import asyncio
import json
import time

from nestbox.store import RosterItem, open_store
from nestbox.store.tokens import TokenRow
from tests.ctl.conftest import Ctl
from tests.ctl.test_server import Appliance, appliance
from tests.databases import valkey

__all__ = ["appliance", "valkey"]

AGENT = "3f2a9c0d41be" + "0" * 52


async def test_a_device_is_listed_and_logged_out(appliance: Appliance) -> None:
    ctl, one, two = appliance
    await ctl.ok("user", "add", "alice")
    store = await open_store(ctl.settings["database"]["url"])
    user = await store.accounts.get("alice")
    await store.devices.note(user.id, AGENT, "AbCdEfGhIjKl", "Talker on Pixel 7", 10)
    await store.devices.note(user.id, "f" * 64, "other", "", 10)
    expires = int(time.time()) + 86_400
    await store.tokens.issue(user.id, TokenRow(AGENT, True, "HT-SHA-256-NONE", b"n" * 16, expires, 0), 10)
    await one.join("alice@nestbox.test", "Talker/AbCdEfGhIjKl")
    await one.join("alice@nestbox.test", "else")
    await one.join("bob@nestbox.test", "AbCdEfGhIjKl")
    listed = json.loads(await ctl.ok("device", "list", "alice", "--json"))
    assert {(entry["id"], entry["name"], entry["token_expires"]) for entry in listed} == {
        (AGENT, "Talker on Pixel 7", expires),
        ("f" * 64, "", None),
    }
    assert "token until" in (await ctl.ok("device", "list", "alice@nestbox.test"))
    assert "has no device 'none'" in await ctl.fails("device", "logout", "alice", "none")
    assert "has no device ''" in await ctl.fails("device", "logout", "alice", "")
    assert await ctl.fails("device", "list", "nobody") == "There is no user nobody."
    done = await ctl.ok("device", "logout", "alice", AGENT[:12])
    assert done == "Logged Talker on Pixel 7 of alice@nestbox.test out.\n"
    async with asyncio.timeout(5):
        while not (one.kicked and two.kicked):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert [(kick.bare, kick.resource) for kick in one.kicked] == [("alice@nestbox.test", "Talker/AbCdEfGhIjKl")]
    assert await store.tokens.of("alice", AGENT) == []
    assert [device.agent for device in await store.devices.of(user.id)] == ["f" * 64]
    await store.close()


async def test_an_erased_user_leaves_no_subscription_behind(ctl: Ctl) -> None:
    store = await open_store(ctl.settings["database"]["url"])
    ids = {}
    for name in ("alice", "bob", "carol", "dave"):
        await ctl.ok("user", "add", name)
        ids[name] = (await store.accounts.get(name)).id
    alice = "alice@nestbox.test"
    # bob: friends; carol: only alice sees her; dave: alice has asked him; the last is nobody's.
    for name, hers, theirs in (("bob", "both", "both"), ("carol", "to", "from")):
        await store.roster.put(ids["alice"], RosterItem(f"{name}@nestbox.test", subscription=hers))
        await store.roster.put(ids[name], RosterItem(alice, "Al", subscription=theirs, groups=["Work"]))
    await store.roster.put(ids["alice"], RosterItem("dave@nestbox.test", ask=True))
    await store.roster.add_request(ids["dave"], alice, b"<presence type='subscribe'/>")
    await store.roster.put(ids["alice"], RosterItem("gone@nestbox.test", subscription="both"))
    await store.roster.put(ids["alice"], RosterItem("far@elsewhere.test", subscription="both"))
    await ctl.ok("user", "delete", "alice", "--yes")
    for name in ("bob", "carol"):
        item = await store.roster.get(ids[name], alice)
        assert (item.subscription, item.ask, item.name, item.groups) == ("none", False, "Al", ["Work"])
    assert await store.roster.requests(ids["dave"]) == []
    assert await store.roster.get(ids["dave"], alice) is None
    await store.close()

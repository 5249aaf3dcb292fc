"""What nestboxctl does to uploaded files."""

from __future__ import annotations

import time
from pathlib import Path

from nestbox.store import open_store
from nestbox.store.uploads import DAY, Quota, Upload
from tests.ctl.conftest import Ctl


async def put(ctl: Ctl, name: str, token: str, age: int) -> Path:
    """A file of an account (made if need be) that came ``age`` seconds ago."""
    store = await open_store(ctl.settings["database"]["url"])
    account = await store.accounts.get(name) or await store.accounts.create(name, "password")
    then = int(time.time()) - age
    await store.uploads.reserve(Upload(token, account.id, "a", 2, "", then), Quota(10, 10, 10, 0, DAY))
    await store.uploads.complete(token, then)
    await store.close()
    path = ctl.folder / "uploads" / str(account.id) / token
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("hi")
    return path


async def test_maintenance_removes_files_that_are_too_old(tmp_path: Path) -> None:
    ctl = Ctl(tmp_path, uploads={"days": 7})
    await ctl.ok("migrate")
    old, new = await put(ctl, "alice", "old", 8 * DAY), await put(ctl, "alice", "new", 6 * DAY)
    assert "Removed 1 old files." in await ctl.ok("maintenance")
    assert not old.exists() and new.exists()
    assert "old files" not in await ctl.ok("maintenance")


async def test_a_users_files_go_with_the_user(ctl: Ctl) -> None:
    hers, his = await put(ctl, "alice", "hers", 0), await put(ctl, "bob", "his", 0)
    await ctl.ok("user", "delete", "alice", "--yes")
    assert not hers.parent.exists() and his.exists()

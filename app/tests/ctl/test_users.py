from __future__ import annotations

import csv
import json
import os
import resource
import stat
import time
from pathlib import Path

import pytest

from nestbox.core.ids import ms_to_id
from nestbox.store import open_store
from nestbox.store.passwords import ITERATIONS
from tests.ctl.conftest import Ctl


async def users(ctl: Ctl) -> dict[str, bool]:
    return {user["username"]: user["enabled"] for user in json.loads(await ctl.ok("user", "list", "--json"))}


async def test_users_come_change_and_go(database_url: str, tmp_path: Path) -> None:
    ctl = Ctl(tmp_path, database={"url": database_url})
    assert "run nestboxctl migrate" in await ctl.fails("user", "list")
    assert "migrated to revision" in await ctl.ok("migrate")
    assert "migrated" not in await ctl.ok("migrate")
    first = await ctl.ok("user", "add", "Alice")
    assert first.startswith("Added alice@nestbox.test.\nPassword: ")
    assert first != await ctl.ok("user", "add", "bob@nestbox.test", "--generate")
    assert "Password" not in await ctl.ok("user", "add", "josé", "--password-stdin", input="correct horse\n")
    assert await users(ctl) == {"alice": True, "bob": True, "josé": True}
    assert await ctl.fails("user", "add", "ALICE") == "There is already a user alice."
    await ctl.ok("user", "disable", "alice")
    assert "alice  (disabled)" in await ctl.ok("user", "list")
    await ctl.ok("user", "enable", "alice")
    assert "Password: " in await ctl.ok("user", "passwd", "alice")
    assert "--yes" in await ctl.fails("user", "delete", "alice")
    await ctl.ok("user", "delete", "alice", "--yes")
    assert await users(ctl) == {"bob": True, "josé": True}
    await ctl.ok("user", "add", "carol")
    assert await ctl.ok("user", "delete", "carol", "josé", "--yes") == (
        "Erased carol@nestbox.test.\nErased josé@nestbox.test.\n"
    )
    assert await users(ctl) == {"bob": True}
    for command in (["passwd"], ["disable"], ["enable"], ["delete", "--yes"]):
        assert await ctl.fails("user", command[0], "alice", *command[1:]) == "There is no user alice."


async def test_a_user_may_have_messages_kept_for_a_shorter_time(tmp_path: Path) -> None:
    ctl = Ctl(tmp_path, archive={"days": 90})
    await ctl.ok("migrate")
    await ctl.ok("user", "add", "alice")
    store = await open_store(ctl.settings["database"]["url"])
    alice = (await store.accounts.get("alice")).id
    for days in (40, 20, 1):
        store.committer.archive(alice, ms_to_id(int((time.time() - days * 86_400) * 1000)), "bob@x", b"<message/>")
    await store.committer.flush()
    assert "kept for 30 days" in await ctl.ok("user", "set", "alice", "--archive-days", "30")
    assert await ctl.ok("maintenance") == "Removed 1 old messages.\n"
    assert await store.archive.count(alice) == 2
    assert "90 days" in await ctl.fails("user", "set", "alice", "--archive-days", "91")
    assert "as long as everybody's" in await ctl.ok("user", "set", "alice", "--archive-days", "0")
    assert await ctl.ok("maintenance") == ""
    assert await ctl.fails("user", "set", "bob", "--archive-days", "1") == "There is no user bob."
    assert (await ctl.run("user", "set", "alice", "--archive-days", "-1")).status == 2
    await store.close()


@pytest.mark.parametrize("name", ["", "a b", "alice@elsewhere.test", "a/b", "<x>", "x" * 1024])
async def test_a_wrong_name_is_one_sentence(ctl: Ctl, name: str) -> None:
    assert "cannot be a username" in await ctl.fails("user", "add", name)


@pytest.mark.parametrize("password", ["", "\n", "\u0007\n", "short\n", "12345678\n"])
async def test_a_wrong_password_is_one_sentence(ctl: Ctl, password: str) -> None:
    assert (await ctl.fails("user", "add", "alice", "--password-stdin", input=password)).startswith("The password ")
    assert await users(ctl) == {}


async def test_nothing_is_imported_when_a_line_is_bad(ctl: Ctl) -> None:
    lines = "username,password\r\nalice,correct horse\r\n\r\na b,battery staple\r\nbob\r\n"
    lines += "alice,correct horse\r\ncarol,\r\ndave,ok,more\r\n"
    lines += "eve,short\r\nfay,password\r\n"
    (ctl.folder / "users.csv").write_text(lines)
    done = await ctl.run("user", "import", str(ctl.folder / "users.csv"))
    assert done.status == 1 and done.err.splitlines() == [
        "line 4: 'a b' cannot be a username: it is empty, too long, or has characters that XMPP forbids.",
        "line 5: it has 1 fields, not username,password.",
        "line 6: alice is there twice.",
        "line 7: the password is empty.",
        "line 8: it has 3 fields, not username,password.",
        "line 9: the password is too short: it needs at least 8 characters.",
        "line 10: the password is among those that leaked most often and that everybody tries first.",
        "nestboxctl: Nothing was imported: 7 lines are bad.",
    ]
    assert await users(ctl) == {}
    assert await ctl.ok("user", "import", "-", "--weak-passwords", input="fay,password\n") == "Imported 1 users.\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "The file has no users."),
        (b"username,password\n", "The file has no users."),
        (b"alice,\xff\n", "The file is not UTF-8 at line 1."),
        (b'alice,"x\n', "is no CSV"),
    ],
)
async def test_a_file_that_is_no_list_is_one_sentence(ctl: Ctl, content: bytes, sentence: str) -> None:
    (ctl.folder / "users.csv").write_bytes(content)
    assert sentence in await ctl.fails("user", "import", str(ctl.folder / "users.csv"))


async def test_a_missing_file_is_one_sentence(ctl: Ctl) -> None:
    assert "cannot be read: No such file" in await ctl.fails("user", "import", "/nowhere/users.csv")
    assert "cannot be written: No such file" in await ctl.fails("user", "export", "/nowhere/users.csv")


async def test_who_is_there_already_is_left_and_reported(ctl: Ctl) -> None:
    before = await ctl.ok("user", "add", "bob", "--password-stdin", input="bob's own\n")
    assert before == "Added bob@nestbox.test.\n"
    report = await ctl.ok("user", "import", "-", input='\ufeffalice,"with, comma"\nBob,another one\n')
    assert report == "Imported 1 users.\n1 were there already and are left as they are: bob.\n"
    assert (await ctl.ok("user", "import", "-", input="alice,something else\n")).startswith("Imported 0 users.")


async def test_an_export_moves_the_users_to_another_server(ctl: Ctl, tmp_path: Path) -> None:
    await ctl.ok("user", "import", "-", input="alice,correct horse\nbob,battery staple\n")
    await ctl.ok("user", "disable", "bob")
    file = tmp_path / "export.csv"
    file.write_text("something old and longer than what comes" * 100)
    await ctl.ok("user", "export", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [row[0] for row in csv.reader(file.open())] == ["username", "alice", "bob"]
    assert file.read_text() == await ctl.ok("user", "export", "-")
    (tmp_path / "other").mkdir()
    other = Ctl(tmp_path / "other")
    await other.ok("migrate")
    assert await other.ok("user", "import", str(file)) == "Imported 2 users.\n"
    assert await users(other) == {"alice": True, "bob": False}
    keys = []
    for server in (ctl, other):
        store = await open_store(server.settings["database"]["url"])
        keys.append((await store.accounts.get("alice")).keys)
        await store.close()
    assert keys[0] == keys[1] and set(keys[0]) == set(ITERATIONS)
    file.write_text(file.read_text().replace("alice,yes,SCRAM-SHA-1$", "alice,yes,SCRAM-SHA-256$"))
    (tmp_path / "third").mkdir()
    third = Ctl(tmp_path / "third")
    await third.ok("migrate")
    assert "1 lines are bad" in await third.fails("user", "import", str(file))


async def test_four_thousand_users_are_imported_within_a_minute(ctl: Ctl) -> None:
    lines = "".join(f"user{index:04},password {index}\n" for index in range(4000))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert await ctl.ok("user", "import", "-", input=lines) == "Imported 4000 users.\n"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # CPU time over cores, not the clock: other tests may be using the machine. All cores hash at once.
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert cpu / (os.cpu_count() or 1) < 60
    assert len(await users(ctl)) == 4000

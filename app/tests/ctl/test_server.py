"""What nestboxctl tells a running server and asks of it, over a real bus."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest

from nestbox.bus import open_bus
from nestbox.compliance import ROWS
from nestbox.core.registry import KEY, Account, Entry, Kick, Registry, encode
from nestbox.ctl import main
from tests.ctl.conftest import Ctl
from tests.databases import Valkey


class Worker:
    """As much of a worker as nestboxctl sees."""

    def __init__(self, ctl: Ctl, url: str, number: int) -> None:
        self.number = number
        self._url = url
        self.status = "ok"
        self.accounts: list[str] = []
        self.kicked: list[Kick] = []
        self.obeys = True
        self._socket = ctl.folder / f"http{number}.sock"
        self._tasks: set[asyncio.Task[object]] = set()

    async def start(self) -> None:
        self.bus = open_bus(self._url, self.number)
        registry = Registry(self.bus)
        registry.on(Kick, self._kick)
        registry.on(Account, lambda op: self.accounts.append(op.username))
        await self.bus.start(registry.receive)
        self._server = await asyncio.start_unix_server(self._answer, self._socket)

    async def stop(self) -> None:
        self._server.close()
        self._socket.unlink(missing_ok=True)
        await self.bus.close()

    async def join(self, bare: str, resource: str) -> None:
        entry = Entry(bare, resource, self.number, 7, 0, since=1_800_000_000, address="192.0.2.1", transport="tcp")
        await self.bus.hset(KEY, entry.jid, encode(entry))

    def _kick(self, op: Kick) -> None:
        self.kicked.append(op)
        if self.obeys:
            task = asyncio.create_task(self.bus.hdel(KEY, f"{op.bare}/{op.resource}"))
            self._tasks.add(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"status": self.status, "worker": self.number}).encode()
        head = "200 OK" if self.status == "ok" else "503 Service Unavailable"
        writer.write(f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        writer.close()


Appliance = tuple[Ctl, Worker, Worker]


@pytest.fixture
async def appliance(valkey: Valkey, tmp_path: Path) -> AsyncIterator[Appliance]:
    """nestboxctl for two workers with a bus."""
    ctl = Ctl(tmp_path, workers=2, bus={"url": valkey.url})
    await ctl.ok("migrate")
    workers = [Worker(ctl, valkey.url, number) for number in (1, 2)]
    for worker in workers:
        await worker.start()
    yield ctl, *workers
    for worker in workers:
        await worker.stop()


@asynccontextmanager
async def within(seconds: float, condition: Callable[[], bool]) -> AsyncIterator[None]:
    yield
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_the_workers_hear_of_every_change_of_an_account(appliance: Appliance) -> None:
    ctl, one, two = appliance
    commands: list[tuple[str, ...]] = [("add",), ("disable",), ("enable",), ("passwd",), ("delete", "--yes")]
    for count, (command, *options) in enumerate(commands, 1):
        async with within(5, lambda count=count: len(one.accounts) == len(two.accounts) == count):
            await ctl.ok("user", command, "alice", *options)
    async with within(5, lambda: one.accounts[5:] == two.accounts[5:] == ["bob", "carol"]):
        await ctl.ok("user", "import", "-", input="bob,correct horse\ncarol,battery staple\n")
    assert one.accounts[:5] == ["alice"] * 5


async def test_sessions_are_listed_and_kicked(appliance: Appliance) -> None:
    ctl, one, two = appliance
    assert json.loads(await ctl.ok("session", "list", "--json")) == []
    await one.join("alice@nestbox.test", "phone")
    await two.join("alice@nestbox.test", "web")
    await two.join("bob@nestbox.test", "web")
    listed = json.loads(await ctl.ok("session", "list", "--json"))
    assert [(entry["jid"], entry["worker"]) for entry in listed] == [
        ("alice@nestbox.test/phone", 1),
        ("alice@nestbox.test/web", 2),
        ("bob@nestbox.test/web", 2),
    ]
    assert "alice@nestbox.test/phone  worker 1  2027-01-15 08:00 UTC  tcp 192.0.2.1" in await ctl.ok("session", "list")
    assert await ctl.ok("session", "kick", "alice@nestbox.test/web") == "Ended 1 session of alice@nestbox.test/web.\n"
    assert two.kicked == one.kicked == [two.kicked[0]] and two.kicked[0].uid == 7
    await ctl.ok("session", "kick", "alice@nestbox.test")
    left = json.loads(await ctl.ok("session", "list", "--json"))
    assert [entry["jid"] for entry in left] == ["bob@nestbox.test/web"]
    assert await ctl.fails("session", "kick", "alice@nestbox.test") == "There is no session of alice@nestbox.test."
    assert await ctl.fails("session", "kick", "@@") == "'@@' is no address."
    one.obeys = two.obeys = False
    assert "did not end" in await ctl.fails("session", "kick", "bob@nestbox.test")


async def test_the_status_is_good_only_when_all_is_well(appliance: Appliance, valkey: Valkey) -> None:
    ctl, one, two = appliance
    await ctl.ok("user", "add", "alice")
    await two.join("alice@nestbox.test", "phone")
    state = json.loads(await ctl.ok("status", "--json"))
    assert state["ok"] and state["problems"] == [] and state["domain"] == "nestbox.test"
    assert state["users"] == 1 and state["sessions"] == 1 and state["database"]["ok"] and state["bus"]["ok"]
    assert [(worker["ok"], worker["sessions"]) for worker in state["workers"]] == [(True, 0), (True, 1)]
    table = await ctl.ok("status")
    assert "Worker 2  ok, 1 sessions" in table and "Problem" not in table
    # Little room for uploads is a warning: the exit status stays.
    ctl.config.write_text(json.dumps({**ctl.settings, "uploads": {"min_free_bytes": 10**18}}))
    state = json.loads(await ctl.ok("status", "--json"))
    assert state["ok"] and [(one["check"], one["state"]) for one in state["checks"]] == [("disk", "warning")]
    ctl.config.write_text(json.dumps(ctl.settings))

    async def problems() -> list[str]:
        done = await ctl.run("status", "--json")
        state = json.loads(done.out)
        assert done.status == 1 and not state["ok"]
        return state["problems"]

    one.status = "draining"
    assert await problems() == ["Worker 1 is not well: draining."]
    one.status = "ok"
    await two.stop()
    assert (await problems())[0].startswith("Worker 2 is not well: it is not running")
    await two.start()
    valkey.stop()
    assert any(problem.startswith("The bus fails") for problem in await problems())
    done = await ctl.run("status")
    assert done.status == 1 and "Bus       FAULT" in done.out


async def test_without_the_bus_a_change_is_stored_and_that_is_said(appliance: Appliance, valkey: Valkey) -> None:
    ctl, *_ = appliance
    valkey.stop()
    assert "The change is stored, but the workers could not be told" in await ctl.fails("user", "add", "alice")
    assert "alice" in await ctl.ok("user", "list")
    assert (await ctl.fails("session", "list")).startswith("The bus fails")


async def test_a_broken_database_is_one_sentence_everywhere(ctl: Ctl) -> None:
    (ctl.folder / "nestbox.db").write_bytes(b"not a database at all" * 100)
    for command in (["user", "list"], ["migrate"], ["maintenance"], ["user", "export", "-"]):
        assert "database" in await ctl.fails(*command)
    done = await ctl.run("status", "--json")
    assert done.status == 1 and not json.loads(done.out)["database"]["ok"]


async def test_the_configuration_is_checked(ctl: Ctl, tmp_path: Path) -> None:
    assert "is right" in await ctl.ok("config", "check")
    wrong = tmp_path / "wrong.yml"
    for text, sentence in (
        ("domain: [", "while parsing"),
        ("domain: nestbox.test\ndomian: x\n", "domian"),
        ("domain: not a name\n", "not a name"),
        ("domain: nestbox.test\ndatabase: {url: 'sqlite:'}\nworkers: many\n", "workers"),
        ("domain: nestbox.test\ndatabase: {url: 'postgresql://x'}\n", "sqlite"),
    ):
        wrong.write_text(text)
        assert sentence in await ctl.fails("config", "check", str(wrong))
    assert "cannot be read" in await ctl.fails("config", "check", str(tmp_path / "none.yml"))
    assert "cannot be read" in await ctl.fails("--config", str(tmp_path / "none.yml"), "user", "list")


async def test_a_server_without_a_bus_says_so(ctl: Ctl) -> None:
    assert "without a bus" in await ctl.fails("session", "list")
    assert "without a bus" in await ctl.fails("session", "kick", "a@nestbox.test")


def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    commands = [(), ("user",), ("session",), ("config",), ("config", "check"), ("status",), ("migrate",)]
    commands += [
        ("user", name) for name in ("add", "passwd", "disable", "enable", "delete", "list", "import", "export")
    ]
    commands += [("invite",), ("invite", "create"), ("invite", "list"), ("invite", "revoke")]
    commands += [("session", "list"), ("session", "kick"), ("maintenance",)]
    commands += [("user", "set"), ("compliance",), ("doap",)]
    for command in commands:
        with pytest.raises(SystemExit) as end:
            main([*command, "--help"])
        assert end.value.code == 0 and "Example: nestboxctl " in capsys.readouterr().out
    for wrong in ((), ("nonsense",), ("user",), ("user", "add"), ("status", "--nonsense")):
        with pytest.raises(SystemExit) as end:
            main(list(wrong))
        assert end.value.code == 2 and "Traceback" not in capsys.readouterr().err


def test_what_the_release_implements_is_told_without_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NESTBOX_CONFIG", str(tmp_path / "none.yml"))
    assert main(["compliance"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == len(ROWS) and not [row for row in rows if "NOT MET" in row]
    assert main(["compliance", "--markdown"]) == 0
    assert "| XEP-0030 |" in capsys.readouterr().out
    assert main(["doap"]) == 0
    assert fromstring(capsys.readouterr().out).tag.endswith("}RDF")

"""Measure one worker: memory per idle session, CPU and latency per chat message, beside Prosody in the same run.

The load and the server share the machine's cores; CPU seconds are the figure to compare, wall clock is not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from load import chat, cpu_seconds, log_in, pss_kib
from logins import CONTACTS, fill_rosters, measure_logins
from nestbox.store import open_store
from pages import print_pages
from room import enter, talk

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "app" / "tests"))
from databases import MariaDB

Measure = Callable[["Peer", argparse.Namespace], Awaitable[dict[str, float]]]
DOMAIN = "bench.test"
PASSWORD = "bench"
NESTBOX = (sys.executable, "-m", "nestbox")


@dataclass
class Peer:
    """A running server: its process, where to connect and how, and the database's process where it has one."""

    name: str
    pid: int
    address: str
    websocket: bool = False
    proxy: bool = False
    database_pid: int | None = None


def users(count: int, letter: str = "u") -> list[str]:
    """The names of the accounts."""
    return [f"{letter}{number}" for number in range(count)]


async def create_accounts(url: str, count: int, sociable: int) -> None:
    """Fill an empty database; all have the same password and keys, which saves minutes here and there.

    ``sociable`` more accounts, named t0, t1 ..., have full rosters.
    """
    store = await open_store(url)
    await store.migrate()
    await store.accounts.create("first", PASSWORD)
    keys = (await store.accounts.get("first")).keys
    names = users(sociable, "t")
    await store.accounts.create_many([(user, keys) for user in users(count) + names])
    await store.close()
    await fill_rosters(url, names, users(CONTACTS), DOMAIN)


def wait_for(condition, what: str, seconds: float = 60) -> None:
    """Poll until ``condition()`` is true. Raises SystemExit with what was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"bench: {what} did not happen within {seconds:.0f} s")
        time.sleep(0.05)


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """End a process that we started, whatever happens."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def nestbox(folder: Path, count: int, *, archive: str, websocket: bool, sociable: int = 0) -> Iterator[Peer]:
    """One worker with ``count`` accounts; ``archive`` is 'off', 'sqlite' or 'mariadb'."""
    with contextlib.ExitStack() as stack:
        database_pid = None
        url = f"sqlite:///{folder}/nestbox.db"
        if archive == "mariadb":
            (folder / "m").mkdir()
            database = MariaDB(folder / "m")
            stack.callback(database.stop)
            url, database_pid = database.create(), int((folder / "m" / "pid").read_text())
        config = folder / "nestbox.yml"
        config.write_text(
            f"domain: {DOMAIN}\nstate_dir: {folder}\n"
            f"database: {{url: '{url}'}}\n"
            f"archive: {{enabled: {str(archive != 'off').lower()}}}\n"
            "tls: {require: false}\nlog: {level: warning}\n"
            f"listen: {{http: 'unix:{folder}/http.sock', c2s: '', c2s_tls: 'unix:{folder}/c2s.sock', metrics: ''}}\n"
        )
        asyncio.run(create_accounts(url, count, sociable))
        process = stack.enter_context(ended(subprocess.Popen([*NESTBOX, "--config", config])))
        socket = folder / ("http.sock" if websocket else "c2s.sock")
        wait_for(socket.exists, "the worker's socket")
        yield Peer("Nestbox", process.pid, f"unix:{socket}", websocket, not websocket, database_pid)


@contextlib.contextmanager
def prosody(folder: Path, count: int, *, archive: str, websocket: bool) -> Iterator[Peer]:
    """Prosody of the distribution with the same accounts; ``archive`` is 'off' or 'internal'."""
    accounts = folder / "data" / DOMAIN.replace(".", "%2e") / "accounts"
    accounts.mkdir(parents=True)
    for user in users(count):
        (accounts / f"{user}.dat").write_text(f'return {{ ["password"] = "{PASSWORD}"; }};\n')
    modules = ["roster", "saslauth", "disco", "carbons", "smacks", "pep", "presence", "message", "iq", "offline"]
    modules += ["mam"] if archive != "off" else []
    config = folder / "prosody.cfg.lua"
    config.write_text(
        f"modules_enabled = {{ {', '.join(map(repr, modules))} }}\n"
        'modules_disabled = { "s2s", "limits", "tls" }\n'
        f'data_path = "{folder}/data"\npidfile = "{folder}/prosody.pid"\nlog = {{ warn = "{folder}/prosody.log" }}\n'
        'c2s_require_encryption = false\nallow_unencrypted_plain_auth = false\nauthentication = "internal_plain"\n'
        'archive_expires_after = "never"\nnetwork_backend = "epoll"\ngc = { mode = "generational" }\n'
        'interfaces = { "127.0.0.1" }\nc2s_ports = { 15222 }\nc2s_direct_tls_ports = {}\ns2s_ports = {}\n'
        f'run_as_root = true\nprosody_user = "root"\nVirtualHost "{DOMAIN}"\n'
        f'Component "rooms.{DOMAIN}" "muc"\n'
        + ('modules_enabled = { "muc_mam" }\nmuc_log_expires_after = "never"\n' if archive != "off" else "")
    )
    with ended(subprocess.Popen(["prosody", "--config", config, "-F"], stdout=subprocess.DEVNULL)) as process:
        wait_for((folder / "prosody.pid").exists, "Prosody's start")
        yield Peer("Prosody", process.pid, "127.0.0.1:15222")


async def measure(peer: Peer, arguments: argparse.Namespace) -> dict[str, float]:
    """Log everybody in, look at memory, then let pairs chat and look at the CPU."""
    await asyncio.sleep(1)
    empty = pss_kib(peer.pid)
    login = cpu_seconds(peer.pid)
    clients = await log_in(
        users(arguments.sessions), PASSWORD, DOMAIN, peer.address, websocket=peer.websocket, proxy=peer.proxy
    )
    login = cpu_seconds(peer.pid) - login
    await asyncio.sleep(5)
    full = pss_kib(peer.pid)
    await chat(clients, arguments.rate, 3)  # warm up
    before = cpu_seconds(peer.pid)
    database = cpu_seconds(peer.database_pid) if peer.database_pid else 0.0
    result = await chat(clients, arguments.rate, arguments.seconds)
    used = cpu_seconds(peer.pid) - before
    if peer.database_pid:
        database = cpu_seconds(peer.database_pid) - database
    for client in clients:
        client.close()
    return {
        "empty_mib": empty / 1024,
        "full_mib": full / 1024,
        "kib": (full - empty) / arguments.sessions,
        "login_ms": login * 1e3 / arguments.sessions,
        "cpu_us": used * 1e6 / result["sent"],
        "database_us": database * 1e6 / result["sent"],
        **result,
    }


async def measure_room(peer: Peer, arguments: argparse.Namespace) -> dict[str, float]:
    """Let a hundred people talk in a room, and look at the CPU for each stanza that one of them is sent."""
    room = f"bench@rooms.{DOMAIN}"
    await asyncio.sleep(1)  # a peer's port opens a little after it says that it has started
    names = users(arguments.occupants)
    clients = await log_in(names, PASSWORD, DOMAIN, peer.address, websocket=peer.websocket, proxy=peer.proxy)
    await enter(clients, room)
    await talk(clients, room, arguments.room_rate, 2)  # warm up
    before = cpu_seconds(peer.pid)
    result = await talk(clients, room, arguments.room_rate, arguments.seconds)
    used = cpu_seconds(peer.pid) - before
    for client in clients:
        client.close()
    return {"cpu_us": used * 1e6 / result["due"], **result}


ROWS = (
    (nestbox, "off", False),
    (nestbox, "off", True),
    (nestbox, "sqlite", False),
    (nestbox, "sqlite", True),
    (nestbox, "mariadb", False),
    (nestbox, "mariadb", True),
    (prosody, "off", False),
    (prosody, "internal", False),
)


def print_logins(count: int, only: str) -> None:
    """Print what log-ins cost, for each database and transport."""
    print(f"\nCPU ms of one log-in, {count} of them; the first after the worker's start / again\n")
    print(
        f"| server, archive, transport | empty roster | {CONTACTS} contacts, half of them online |\n| --- | --- | --- |"
    )
    for make, archive, websocket in ROWS:
        name = f"{make.__name__.capitalize()}, {archive}, {'WebSocket' if websocket else 'TCP'}"
        if make is not nestbox or archive == "off" or only.lower() not in name.lower():
            continue
        with (
            tempfile.TemporaryDirectory(prefix="nestbox-bench.") as folder,
            make(Path(folder), count, archive=archive, websocket=websocket, sociable=count // 10) as peer,
        ):
            row = asyncio.run(
                measure_logins(
                    peer.pid, peer.address, DOMAIN, PASSWORD, count, websocket=peer.websocket, proxy=peer.proxy
                )
            )
        print(f"| {name} | {row[0]:.2f} / {row[1]:.2f} | {row[2]:.2f} / {row[3]:.2f} |", flush=True)


def rows(arguments: argparse.Namespace, accounts: int, measure_: Measure) -> Iterator[tuple[str, dict[str, float]]]:
    """Start each server in turn and measure it: its name and what was found."""
    for make, archive, websocket in ROWS:
        name = f"{make.__name__.capitalize()}, {archive}, {'WebSocket' if websocket else 'TCP'}"
        if not accounts or arguments.only.lower() not in name.lower():
            continue
        if make is prosody and not shutil.which("prosody"):
            print(f"| {name} | not installed |")
            continue
        with (
            tempfile.TemporaryDirectory(prefix="nestbox-bench.") as folder,
            make(Path(folder), accounts, archive=archive, websocket=websocket) as peer,
        ):
            yield name, asyncio.run(measure_(peer, arguments))


def print_room(arguments: argparse.Namespace) -> None:
    """The table of a room in which people talk."""
    print(f"\nA room of {arguments.occupants}, {arguments.room_rate:.0f} messages/s:\n")
    print("| server, archive, transport | CPU us/stanza delivered | p50 / p99 ms | lost |\n| --- | --- | --- | --- |")
    for name, row in rows(arguments, arguments.occupants, measure_room):
        print(
            f"| {name} | {row['cpu_us']:.1f} | {row['p50_ms']:.2f} / {row['p99_ms']:.1f} "
            f"| {row['due'] - row['received']:.0f} |",
            flush=True,
        )


def machine() -> str:
    """The machine in one line."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith(("model name", "Model"))
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} x {model}, {platform.freedesktop_os_release()['PRETTY_NAME']}, Python {platform.python_version()}"


def main() -> None:
    """Print one table row per server, archive and transport."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=4000, help="idle sessions on one worker (%(default)s)")
    parser.add_argument("--rate", type=float, default=500, help="messages per second in all (%(default)s)")
    parser.add_argument("--seconds", type=float, default=12, help="length of the chat (%(default)s)")
    parser.add_argument(
        "--logins", type=int, default=1000, help="accounts that log in for the table of log-ins, 0: none"
    )
    parser.add_argument(
        "--history", type=int, default=10_000_000, help="messages of which pages are read, 0: none (%(default)s)"
    )
    parser.add_argument("--only", default="", help="only rows whose name contains this, such as 'Nestbox mariadb'")
    parser.add_argument("--occupants", type=int, default=100, help="people in the room, 0: none (%(default)s)")
    parser.add_argument("--room-rate", type=float, default=20, help="messages per second in the room (%(default)s)")
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < arguments.sessions + 200:
        raise SystemExit(
            f"bench: {arguments.sessions} sessions need ulimit -n {arguments.sessions + 200}, it is {hard}"
        )
    print(
        f"{machine()}; {arguments.sessions} sessions, {arguments.rate:.0f} messages/s for {arguments.seconds:.0f} s\n"
    )
    print("| server, archive, transport | KiB/session | PSS MiB, 0 / all online | CPU ms/login | CPU us/message"
          " | database us/message | p50 / p99 ms | lost |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, row in rows(arguments, arguments.sessions, measure):
        print(
            f"| {name} | {row['kib']:.1f} | {row['empty_mib']:.0f} / {row['full_mib']:.0f} | {row['login_ms']:.1f} "
            f"| {row['cpu_us']:.0f} | {row['database_us']:.0f} | {row['p50_ms']:.2f} / {row['p99_ms']:.1f} "
            f"| {row['sent'] - row['received']:.0f} |",
            flush=True,
        )
    if arguments.occupants:
        print_room(arguments)
    if arguments.logins:
        print_logins(arguments.logins, arguments.only)
    if arguments.history:
        print()
        print_pages(arguments.history, 10)


if __name__ == "__main__":
    main()

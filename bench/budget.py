"""The budget of a Raspberry Pi 4B on a faster machine: a quarter of a core for each of four workers, 1 GiB in all.

The kernel's quota holds them to it (cgroups, version 1 or 2), in periods of 10 ms, so that a worker is slow and not
halted for long. MariaDB and Valkey share the workers' four quarters: all together have one core, and the 1 GiB.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from chat import steady
from load import log_in
from measure import run
from peers import DOMAIN, PASSWORD, Server, nestbox, users

__all__ = ["print_budget"]

WORKERS = 4
SHARE = 0.25  # of a core
MEMORY = 1024**3
PERIOD_US = 10_000
_ROOT = Path("/sys/fs/cgroup")


class _Group:
    """A cgroup of ours, with a quota in cores and, for the outermost, a limit of memory."""

    def __init__(self, name: str, cores: float, memory: int | None = None) -> None:
        self._unified = (_ROOT / "cgroup.controllers").exists()
        self.folders = [_ROOT / name] if self._unified else [_ROOT / "cpu" / name]
        if self._unified:
            (_ROOT / name).parent.joinpath("cgroup.subtree_control").write_text("+cpu +memory")
        elif memory is not None:
            self.folders.append(_ROOT / "memory" / name)
        for folder in self.folders:
            folder.mkdir(exist_ok=True)
        quota = int(cores * PERIOD_US)
        if self._unified:
            (self.folders[0] / "cpu.max").write_text(f"{quota} {PERIOD_US}")
            (self.folders[0] / "cpu.weight").write_text("10000")  # before whatever else the machine does
        else:
            (self.folders[0] / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (self.folders[0] / "cpu.cfs_quota_us").write_text(str(quota))
            (self.folders[0] / "cpu.shares").write_text("262144")
        if memory is not None:
            self.folders[-1].joinpath("memory.max" if self._unified else "memory.limit_in_bytes").write_text(
                str(memory)
            )

    def add(self, pid: int) -> None:
        """Put a process under the quota; on version 1 memory counts where it is taken from now on."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def close(self) -> None:
        """Remove it; its processes have ended."""
        for folder in self.folders:
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def _held(server: Server) -> Iterator[None]:
    """Hold a server to the budget."""
    whole = _Group("nestbox-bench", WORKERS * SHARE, MEMORY)
    groups = [whole]
    try:
        others = _Group("nestbox-bench/others", WORKERS * SHARE)
        groups.append(others)
        for number, pid in enumerate(server.processes["worker"]):
            groups.append(_Group(f"nestbox-bench/w{number}", SHARE))
            _join(whole, groups[-1], pid)
        for name in ("MariaDB", "Valkey"):
            for pid in server.processes[name]:
                _join(whole, others, pid)
        yield
    finally:
        for name in groups[::-1]:
            for pids in server.processes.values():
                for pid in pids:
                    _leave(pid)
            name.close()


def _join(whole: _Group, group: _Group, pid: int) -> None:
    if len(whole.folders) > 1:  # version 1: memory is another tree
        (whole.folders[1] / "cgroup.procs").write_text(str(pid))
    group.add(pid)


def _leave(pid: int) -> None:
    for tree in (_ROOT / "cpu", _ROOT / "memory", _ROOT):
        with contextlib.suppress(OSError):
            (tree / "cgroup.procs").write_text(str(pid))


async def _measure(server: Server, options: argparse.Namespace) -> None:
    begin = time.monotonic()
    clients = await log_in(users(options.sessions), PASSWORD, DOMAIN, server.addresses, websocket=False, proxy=True)
    logins = time.monotonic() - begin
    await asyncio.sleep(5)
    await steady(clients, 1000, 3)
    cpu = server.cpu()
    result = await steady(clients, 1000, options.seconds)
    used = {name: after - cpu[name] for name, after in server.cpu().items()}
    memory = sum(server.memory().values()) / 1024
    shares = ", ".join(f"{name} {seconds / options.seconds:.2f}" for name, seconds in used.items())
    print(
        f"| {len(clients)} | {logins:.0f} s | {result['p50']:.1f} / {result['p99']:.1f} | {result['lost']} | {shares} "
        f"| {memory:.0f} MiB |",
        flush=True,
    )
    for client in clients:
        client.close()


def print_budget(options: argparse.Namespace) -> None:
    """The table."""
    print(f"\n## A Pi 4B's budget\n\n{WORKERS} workers with a quarter of a core each, with MariaDB and Valkey one core in all, "
          f"1 GiB (cgroup quota, period {PERIOD_US // 1000} ms); 1000 messages/s with a durable archive\n")  # fmt: skip
    print("| sessions | all logged in after | p50 / p99 ms | lost | cores used | memory (PSS) |")
    print("| --- | --- | --- | --- | --- | --- |")
    with (
        tempfile.TemporaryDirectory(prefix="bench.") as folder,
        nestbox.start(Path(folder), options.sessions, archive="mariadb", transport="tcp", workers=WORKERS) as server,
    ):
        try:
            held = contextlib.ExitStack()
            held.enter_context(_held(server))
        except OSError as error:
            print(f"| not measured: the cgroups of this machine cannot be written to ({error}) |")
            return
        with held:
            run(_measure(server, options))

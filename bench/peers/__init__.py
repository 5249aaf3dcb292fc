"""The servers that are measured, ours and its peers: one file says how each is set up, this one what they have in common."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

__all__ = [
    "DOMAIN",
    "ITERATIONS",
    "PASSWORD",
    "SALT",
    "Server",
    "claim",
    "cpu_seconds",
    "favour",
    "in_real_time",
    "listens",
    "pss_kib",
    "scram_keys",
    "users",
    "wait_for",
]

DOMAIN = "bench.test"
PASSWORD = "bench"
SALT = b"0123456789abcdef"
ITERATIONS = 4096


def users(count: int, letter: str = "u") -> list[str]:
    """The names of the accounts."""
    return [f"{letter}{number}" for number in range(count)]


@lru_cache
def scram_keys() -> tuple[bytes, bytes]:
    """StoredKey and ServerKey of SCRAM-SHA-1 (RFC 5802, section 3), the same for all accounts of a peer."""
    salted = hashlib.pbkdf2_hmac("sha1", PASSWORD.encode(), SALT, ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha1")
    return hashlib.sha1(client_key).digest(), hmac.digest(salted, b"Server Key", "sha1")


@dataclass
class Server:
    """A running server: where to connect and how, and its processes by name, the IM server's own first."""

    address: str
    transport: str  # 'tcp', 'websocket' or 'tls'
    processes: dict[str, list[int]]
    proxy: bool = False  # whether a PROXY header comes first
    versions: str = ""
    addresses: list[str] = field(default_factory=list)  # of all workers, where there are several

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU that each has used."""
        return {name: sum(map(cpu_seconds, pids)) for name, pids in self.processes.items()}

    def memory(self) -> dict[str, int]:
        """Memory of each in KiB."""
        return {name: sum(map(pss_kib, pids)) for name, pids in self.processes.items()}


def favour(pids: Iterable[int], core: int) -> None:
    """Let all threads of processes run on this core only, in real time where one may (`in_real_time`)."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.sched_setaffinity(int(task.name), {core})
                in_real_time(int(task.name))


def in_real_time(task: int = 0) -> bool:
    """Let a thread come before all else on the machine (SCHED_RR; the kernel keeps 5 % for the others), where one may."""
    try:
        os.sched_setscheduler(task, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        return False
    return True


def pss_kib(pid: int) -> int:
    """Proportional set size of a process, in KiB."""
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used, by its own clock: /proc counts in hundredths of a second."""
    return time.clock_gettime(~pid << 3 | 2)  # what clock_getcpuclockid(3) makes of a process


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Poll until ``condition()`` is true. Raises SystemExit with what was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"bench: {what} did not happen within {seconds:.0f} s")
        time.sleep(0.05)


def claim(ports: dict[str, int]) -> None:
    """Raises SystemExit where somebody else listens on one of the ports."""
    taken = [port for port in ports.values() if listens(port)]
    if taken:
        raise SystemExit(f"bench: somebody listens on 127.0.0.1:{taken[0]} already")


def listens(port: int) -> bool:
    """Whether somebody accepts connections on a port of loopback."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0

"""The peers' container: Ubuntu 24.04 with its own packages of them, on the host's network and kernel.

Only loopback is listened on; the data lies in a folder of the host, as ours does; a peer gets one core, as our worker.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from peers import favour

__all__ = ["certificate", "image", "run"]

IMAGE = "nestbox/bench-peers:24.04"
ROOT = Path(__file__).resolve().parents[2]
DATA = "/data"  # where a peer sees its folder


def image() -> None:
    """Build the image unless it is there."""
    subprocess.run([ROOT / "scripts" / "pi-image", "24.04"], check=True, stdout=sys.stderr)
    if subprocess.run(["docker", "image", "inspect", IMAGE], check=False, capture_output=True).returncode == 0:
        return
    build = ["docker", "build", "--quiet", "--network", "host", "--tag", IMAGE, ROOT / "bench" / "peers"]
    build += [part for name in ("http_proxy", "https_proxy", "no_proxy") for part in ("--build-arg", name)]
    subprocess.run(build, check=True, capture_output=True)


def version(*packages: str) -> str:
    """Names and versions of packages in the image."""
    show = ["dpkg-query", "--show", "--showformat", "${Package} ${Version}, ", *packages]
    return _docker("run", "--rm", IMAGE, *show).rstrip(", ")


def certificate(folder: Path) -> None:
    """Make ``key.pem``, ``crt.pem`` and both together in ``both.pem``: ECDSA P-256, as the appliance has it."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=bench.test", "-keyout", folder / "key.pem", "-out", folder / "crt.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    (folder / "both.pem").write_text((folder / "crt.pem").read_text() + (folder / "key.pem").read_text())


@contextlib.contextmanager
def run(folder: Path, *command: str, core: int, **environment: str) -> Iterator[list[int]]:
    """Run a command as root in a container, with the folder as /data; its processes, asked for when needed."""
    options = [
        "--detach",
        "--network",
        "host",
        "--cpuset-cpus",
        str(core),
        "--cpu-shares",
        "262144",
        "--volume",
        f"{folder}:{DATA}",
    ]
    options += [part for name, value in environment.items() for part in ("--env", f"{name}={value}")]
    name = _docker("run", *options, IMAGE, *command)
    with contextlib.ExitStack() as stack:
        remove = ["docker", "rm", "--force", name]
        stack.callback(subprocess.run, remove, check=False, capture_output=True)
        pid = int(_docker("inspect", "--format", "{{.State.Pid}}", name))
        _allow_real_time(pid)
        processes = _Tree(pid)
        favour(processes, core)  # and so whatever they start
        try:
            yield processes
        except BaseException:
            subprocess.run(["docker", "logs", "--tail", "20", name], check=False)
            raise


def _allow_real_time(pid: int) -> None:
    """Give the container's cgroup a share of real time; version 1 of the controller has to be asked for it."""
    line = next((one for one in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if ":cpu" in one), "::/")
    folder = Path("/sys/fs/cgroup/cpu", line.split(":", 2)[2].strip("/"))
    for file in (folder.parent / "cpu.rt_runtime_us", folder / "cpu.rt_runtime_us"):
        if os.access(file, os.W_OK):
            file.write_text("900000")


class _Tree(list):
    """A process and whatever it has started by the time one looks."""

    def __init__(self, root: int) -> None:
        super().__init__([root])

    def __iter__(self) -> Iterator[int]:
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    parents[int(entry)] = int(Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[1])
        found = [self[0]]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return iter(found)


def _docker(*command: str) -> str:
    return subprocess.run(["docker", *command], check=True, capture_output=True, text=True).stdout.strip()

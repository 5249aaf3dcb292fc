"""The appliance under the scanners: a container that stands for a Pi."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Figure(NamedTuple):
    """One measured number; `name` is its row in ratchet.yml, `found` says what the scanner found, a line each."""

    name: str
    value: float
    found: tuple[str, ...] = ()


class ScannerError(Exception):
    """A scanner did not run; the text says why, in one sentence."""


def run(*command: str | Path, accept: tuple[int, ...] = (0,), seconds: int = 300) -> str:
    """Return what a command printed. Raises ScannerError when its exit status is not one of `accept`."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=seconds)
    if done.returncode not in accept:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise ScannerError(f"{Path(command[0]).name} failed: {words[-1] if words else 'it said nothing'}")
    return done.stdout


@dataclass(frozen=True)
class Target:
    """A running container. `release` is "26.04" or "24.04", `address` its IP address, `domain` what it serves."""

    container: str
    release: str
    address: str
    domain: str

    @classmethod
    def of(cls, container: str, domain: str = "nestbox.test") -> Target:
        """Look a running container up. Raises ScannerError when there is none of that name."""
        inspect = ("docker", "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}", container)
        release = run("docker", "exec", container, "sh", "-c", ". /etc/os-release && echo $VERSION_ID").strip()
        return cls(container, release, run(*inspect).split()[0], domain)

    def run(self, script: str, accept: tuple[int, ...] = (0,), seconds: int = 300) -> str:
        """Return what a shell script printed that ran as root inside. Raises ScannerError as `run` does."""
        return run("docker", "exec", self.container, "sh", "-c", script, accept=accept, seconds=seconds)

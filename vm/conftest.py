"""The machine from outside, by connections of our own: each proves that one can be made."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

CONFIG = Path(__file__).resolve().parents[1] / ".vm" / "ssh_config"


@pytest.fixture(scope="session")
def connect() -> Callable[[str], str | None]:
    """Return a function that runs a command over a new SSH connection; None when it does not come about or the command fails."""

    def run(command: str) -> str | None:
        options = ["-F", CONFIG, "-o", "ControlPath=none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=30"]
        done = subprocess.run(["ssh", *options, "nestbox-vm", command], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    return run


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., object]:
    """Return a function that waits for a condition's first true value, and fails after `seconds`."""

    def wait(condition: Callable[[], object], seconds: float, what: str) -> object:
        end = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < end, f"{what} did not come true within {seconds} s"
            time.sleep(6)  # the firewall lets six connections in within 30 s
        return value

    return wait

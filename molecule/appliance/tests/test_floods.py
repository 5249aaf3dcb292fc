"""500 bad connections of one source, from an address of its own: everybody else logs in as if nothing were the matter."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from pathlib import Path

import pytest
from appliance import starting_alone
from conftest import container_name, wait_for

pytest_plugins = ["appliance"]

FLOOD = Path(__file__).parents[3] / "security" / "flood.py"
LOGINS, SECONDS = 25, 1.0


@pytest.fixture(scope="module")
def flood(appliance):
    """A container beside the appliance that floods it; ended and removed with the module."""
    name = f"{container_name(appliance.host)}-flood"
    docker = [
        "docker",
        "run",
        "--detach",
        f"--name={name}",
        "--interactive",
        "--entrypoint=python3",
        "nestbox/pi:26.04",
    ]
    subprocess.run(["docker", "rm", "--force", name], check=False, capture_output=True)
    with starting_alone():
        subprocess.run([*docker, "-c", FLOOD.read_text(), appliance.address], check=True, capture_output=True)

    def seen() -> list[dict[str, int]]:
        logs = subprocess.run(["docker", "logs", name], check=True, capture_output=True, text=True).stdout
        return [json.loads(line) for line in logs.splitlines()]

    try:
        yield wait_for(lambda: [now for now in seen() if sum(now.values()) > 250], 30, "a flood")
    finally:
        subprocess.run(["docker", "rm", "--force", name], check=True, capture_output=True)


@pytest.mark.parametrize("port", [443, 5222, 5223])
def test_everybody_else_logs_in_within_a_second(appliance, flood, port):
    async def log_in(number: int) -> float:
        resource = f"p{port}n{number}"
        client = appliance.websocket("bob", resource) if port == 443 else appliance.tcp("bob", port, resource)
        begun = time.monotonic()
        async with client:
            return time.monotonic() - begun

    async def all_of_them() -> list[float]:
        return [await log_in(number) for number in range(LOGINS)]

    took = asyncio.run(all_of_them())
    assert max(took) < SECONDS, f"{sum(t < SECONDS for t in took)} of {LOGINS} within a second: {sorted(took)[-5:]}"

"""Helpers for every scenario's testinfra tests: `from conftest import wait_for, port_state, ...`; fixtures need no import."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

CONVERGE = Path(__file__).parent / "shared" / "converge.yml"


def wait_for(condition: Callable[[], object], seconds: float = 20, what: str = "condition") -> object:
    """Return the first true value of `condition`, asked four times a second; fail after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what} did not come true within {seconds} s"
        time.sleep(0.25)


def port_state(address: str, port: int, seconds: float = 2) -> str:
    """Return how a TCP port looks from the controller: "open", "closed" (refused) or "filtered" (no answer)."""
    try:
        socket.create_connection((address, port), timeout=seconds).close()
    except TimeoutError:
        return "filtered"
    except ConnectionRefusedError:
        return "closed"
    return "open"


def unit_properties(host, unit: str) -> dict[str, str]:
    """Return `systemctl show` of a unit as text by property name."""
    shown = host.check_output("systemctl show --no-pager %s", unit)
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


def container_name(host) -> str:
    """Return the name of the host's container, which is its inventory name."""
    return host.backend.get_hostname()


def converge(host, playbook: Path = CONVERGE, *, offline: bool = False, **variables) -> subprocess.CompletedProcess:
    """Run the scenario's role, or a playbook, on this host once more, with other variables; the caller looks at the result.

    `offline` cuts the controller off from every network; the host is still reached, through Docker's socket.
    """
    play = ["ansible-playbook", "-i", os.environ["MOLECULE_INVENTORY_FILE"], "--limit", container_name(host), playbook]
    environment = {**os.environ, "ANSIBLE_ROLES_PATH": str(Path(__file__).parents[1] / "roles")}
    cut_off = ["unshare", "--net", *(["--map-root-user"] if os.getuid() else [])] if offline else []
    command = [*cut_off, *play, "-e", json.dumps(variables)]
    return subprocess.run(
        command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


@pytest.fixture
def release(host) -> str:
    """The Ubuntu release under test: "26.04" or "24.04"."""
    return host.check_output(". /etc/os-release && echo $VERSION_ID")


@pytest.fixture
def address(host) -> str:
    """The container's address, reachable from the controller."""
    inspected = subprocess.run(
        ["docker", "inspect", container_name(host)], capture_output=True, text=True, check=True
    ).stdout
    networks = json.loads(inspected)[0]["NetworkSettings"]["Networks"]
    return next(iter(networks.values()))["IPAddress"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Add the host's last journal lines to a failed test's report."""
    report = yield
    if report.when == "call" and report.failed and "host" in getattr(item, "funcargs", {}):
        journal = item.funcargs["host"].run(
            "journalctl --no-pager --lines 200 | grep -vE ' (sudo|ansible-[^ ]*)\\[' | tail -n 40"
        )
        report.sections.append(("journal", journal.stdout))
    return report

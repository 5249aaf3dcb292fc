"""Helpers for every scenario's testinfra tests: `from conftest import wait_for, port_state, ...`; fixtures need no import."""

import base64
import json
import os
import re
import socket
import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

CONVERGE = Path(__file__).parent / "shared" / "converge.yml"
PROBE = Path(__file__).parent / "shared" / "probe.py"


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


def exposure(host, unit: str) -> float:
    """Return the figure of `systemd-analyze security`: 0 is a unit that reaches nothing, 10 one that reaches everything."""
    said = host.check_output("systemd-analyze security --no-pager %s | tail -n 1", unit)
    return float(re.search(r": ([\d.]+) ", said)[1])


def sandbox(host, unit: str) -> dict:
    """Return what shared/probe.py, run with every setting of the unit but its program, can do there."""
    code = base64.b64encode(PROBE.read_bytes()).decode()
    text = host.check_output("systemctl cat --no-pager %s", unit).replace("\\\n", " ")
    instance = re.search(r"@(.+)\.service|@(.+)$", unit)
    if instance:
        text = text.replace("%i", instance[1] or instance[2])
    program = r"Exec\w+|Type|Restart\w*|Watchdog\w+|PIDFile|NoExecPaths|WantedBy|Alias|PartOf|Also"
    kept = [line for line in text.splitlines() if not re.match(rf"({program})=", line)]
    run = f"""
        [Service]
        Type=oneshot
        RuntimeDirectoryPreserve=yes
        StandardOutput=truncate:/run/nestbox-probe.json
        ExecStart=/usr/bin/python3 -c "import base64; exec(base64.b64decode('{code}'))"
    """
    file = "/run/systemd/system/nestbox-probe.service"
    host.check_output("printf '%%s\n' %s >%s", "\n".join(kept + [line.strip() for line in run.splitlines()]), file)
    try:
        host.check_output("systemctl daemon-reload && systemctl start nestbox-probe.service")
        return json.loads(host.file("/run/nestbox-probe.json").content_string)
    finally:
        host.run("rm -f %s /run/nestbox-probe.json; systemctl daemon-reload", file)


def assert_confined(host, unit: str, families: list[str]) -> dict:
    """Fail unless a program in the unit can write nothing of the system, see no other's process and open these families only.

    A unit of root sees processes whatever its settings say: hidepid= of proc(5) spares the group 0.
    """
    can = sandbox(host, unit)
    assert not can["writable"] and can["families"] == families, can
    assert not can["strangers"] or can["uid"] == 0, can
    assert can["no_new_privs"] and can["seccomp"], can
    assert not can["namespaces"] and not can["suid"] and not can["writable_code"], can
    return can


def assert_limited(host, unit: str) -> None:
    """Fail unless the unit has limits of memory, CPU and tasks, in force where this container's kernel lets it set them."""
    shown = unit_properties(host, unit)
    assert "infinity" not in (shown["MemoryMax"], shown["TasksMax"], shown["CPUQuotaPerSecUSec"]), shown
    group = f"/sys/fs/cgroup{shown['ControlGroup']}"
    for name, wanted in (("memory.max", shown["MemoryMax"]), ("pids.max", shown["TasksMax"])):
        if host.file(f"{group}/{name}").exists:
            assert host.check_output("cat %s", f"{group}/{name}") == wanted
        else:
            warnings.warn(
                f"{unit}: {name} is set and not in force, as this container has no such controller", stacklevel=2
            )


def container_name(host) -> str:
    """Return the name of the host's container, which is its inventory name."""
    return host.backend.get_hostname()


def converge(
    host, playbook: Path = CONVERGE, *, tags: str = "all", offline: bool = False, dry: bool = False, **variables
) -> subprocess.CompletedProcess:
    """Run the scenario's role, or a playbook, on this host once more, with other variables; the caller looks at the result.

    `offline` cuts the controller off from every network; the host is still reached, through Docker's socket. `dry` is --check.
    """
    play = ["ansible-playbook", "-i", os.environ["MOLECULE_INVENTORY_FILE"], "--limit", container_name(host), playbook]
    environment = {**os.environ, "ANSIBLE_ROLES_PATH": str(Path(__file__).parents[1] / "roles")}
    cut_off = ["unshare", "--net", *(["--map-root-user"] if os.getuid() else [])] if offline else []
    command = [*cut_off, *play, "--tags", tags, *(["--check"] if dry else []), "-e", json.dumps(variables)]
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


class _Scheduling(LoadScopeScheduling):
    """A host's tests stay in one process, one after another; the hosts of a scenario are looked at side by side."""

    def _split_scope(self, nodeid: str) -> str:
        # "...[ansible://nestbox-SCENARIO-HOST-ID-PARAMETERS]"; each host's name ends with the checkout's id.
        return nodeid.partition("ansible://")[2].partition(os.environ.get("NESTBOX_ID", "local"))[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """See pytest-xdist."""
    return _Scheduling(config, log)


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

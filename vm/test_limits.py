"""What a service may take is enforced: memory, CPU, tasks and open sockets."""

from __future__ import annotations

import pytest

WORKER = "nestbox@1"
SERVICES = (WORKER, "haproxy", "mariadb", "valkey-server")
# 10,000 connections within one process are 20,000 sockets.
SOCKETS = """
import socket
listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
held = [listener]
for _ in range(10_000):
    held += [socket.create_connection(listener.getsockname()), listener.accept()[0]]
print(len(held))
"""


def group(host, unit):
    """The folder of the unit's control group."""
    return "/sys/fs/cgroup" + host.check_output("systemctl show -P ControlGroup %s", unit)


def inside(host, unit, command):
    """Run a shell command as root within the unit's control group, under the limits that hold for its own processes."""
    return host.run("echo $$ >%s/cgroup.procs && exec sh -c %s", group(host, unit), command)


@pytest.mark.parametrize("unit", SERVICES)
def test_the_kernel_has_every_bound(host, unit):
    bounds = {name: host.file(f"{group(host, unit)}/{name}").content_string.split()[0]
              for name in ("memory.max", "cpu.max", "pids.max")}  # fmt: skip
    assert "max" not in bounds.values(), bounds


def test_a_worker_gets_no_more_cpu_than_its_quota(host):
    quota, period = map(int, host.file(f"{group(host, WORKER)}/cpu.max").content_string.split())
    cores = int(host.check_output("nproc"))
    assert quota / period < cores, "else nothing could be seen"

    def used():
        """Seconds of CPU and of the clock, and how often the group was held back."""
        stat = dict(line.split() for line in host.file(f"{group(host, WORKER)}/cpu.stat").content_string.splitlines())
        clock = float(host.file("/proc/uptime").content_string.split()[0])
        return int(stat["usage_usec"]) / 1e6, clock, int(stat["nr_throttled"])

    before = used()
    spin = "timeout 15 sh -c 'while :; do :; done' & " * cores + "wait"
    inside(host, WORKER, spin)
    cpu, clock, throttled = (now - then for now, then in zip(used(), before, strict=True))
    assert throttled > 50, throttled
    assert cpu < clock * quota / period * 1.1, (cpu, clock)


def test_a_process_that_takes_more_memory_than_a_worker_may_have_is_killed(host, wait_for):
    limit = int(host.file(f"{group(host, WORKER)}/memory.max").content_string)
    ran = inside(host, WORKER, f'exec python3 -c \'held = b"x" * {limit}; print("held")\'')
    assert "held" not in ran.stdout and ran.rc in (-9, 137), ran
    assert int(host.check_output("free -b | awk '/^Mem/ {print $7}'")) > limit // 4, "the machine had memory left"
    wait_for(lambda: host.service(WORKER).is_running, 120, "the worker's return")


@pytest.mark.parametrize("unit", (WORKER, "haproxy"))
def test_a_service_may_have_twenty_thousand_sockets(host, unit):
    pid = host.check_output("systemctl show -P MainPID %s", unit)
    files = host.check_output("prlimit --pid %s --nofile --output SOFT,HARD --noheadings --raw", pid).replace(" ", ":")
    ran = host.run(
        "prlimit --nofile=%s setpriv --reuid nestbox --regid nestbox --clear-groups python3 -c %s", files, SOCKETS
    )
    assert ran.stdout.strip() == "20001", ran

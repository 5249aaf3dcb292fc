"""What a service may take is enforced: memory, CPU, tasks and open sockets."""

from __future__ import annotations

import pytest

WORKER = "nestbox@1"
SERVICES = (WORKER, "haproxy", "mariadb", "valkey-server")
# A connection within one process has both its sockets there.
SOCKETS = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
held = [listener]
for _ in range(int(sys.argv[1]) // 2):
    held += [socket.create_connection(listener.getsockname()), listener.accept()[0]]
print(len(held))
"""


def group(host, unit):
    """The folder of the unit's control group."""
    return "/sys/fs/cgroup" + host.check_output("systemctl show -P ControlGroup %s", unit)


def inside(host, unit, command):
    """Run a shell command as root within the unit's control group; its output, and then its status."""
    inner = f"echo $$ >{group(host, unit)}/cgroup.procs && {{ {command}; }}"
    return host.check_output("sh -c %s; echo status $?", inner).split("\n")


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
    eater = f'exec python3 -c \'held = b"x" * {limit}; print("held")\''
    assert inside(host, WORKER, eater) == ["status 137"]
    assert int(host.check_output("free -b | awk '/^Mem/ {print $7}'")) > limit // 4, "the machine had memory left"
    wait_for(lambda: host.service(WORKER).is_running, 120, "the worker's return")


# Each of HAProxy's connections has two.
@pytest.mark.parametrize(("unit", "sockets"), [(WORKER, 20_000), ("haproxy", 40_000)])
def test_a_service_may_have_the_sockets_of_twenty_thousand_people(host, unit, sockets):
    pid = host.check_output("systemctl show -P MainPID %s", unit)
    files = host.check_output("prlimit --pid %s --nofile --output SOFT,HARD --noheadings --raw", pid).replace(" ", ":")
    command = "prlimit --nofile=%s setpriv --reuid nestbox --regid nestbox --clear-groups python3 -c %s %s"
    ran = host.run(command, files, SOCKETS, str(sockets))
    assert ran.stdout.strip() == str(sockets + 1), ran

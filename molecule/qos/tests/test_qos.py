"""Chat packets as they leave the host, by what a sniffer on its interface sees and by the kernel's counters.

The containers' kernel is this machine's: where it lacks a queue, what is proven is that the marks work without it and that the
role says so; `test_the_queue_counts` then proves the rest with a queue that the kernel has.
"""

import json
import re
import socket
import subprocess

import pytest
from conftest import container_name, converge, unit_properties, wait_for

AF21 = 18
SNIFFER = """
import socket, sys
port, sniffer = int(sys.argv[1]), socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
sniffer.settimeout(10)
print("ready", flush=True)
while True:
    packet = sniffer.recv(65535)
    start = (packet[0] & 15) * 4
    if packet[0] >> 4 == 4 and packet[9] == 6 and int.from_bytes(packet[start:start + 2], "big") == port:
        sys.exit(print(packet[1] >> 2))
"""


@pytest.fixture(autouse=True)
def listeners(host):
    for port in ("5222", "8080"):
        host.run("systemd-run --quiet --collect --unit listen-%s nc -lk 0.0.0.0 %s", port, port)
    wait_for(lambda: host.check_output("ss -Hltn").count("\n") >= 1, what="listeners")
    yield
    host.run("systemctl stop 'listen-*'")


def mark_of(host, address: str, port: int) -> int:
    """The DSCP of an answer from a port, as it leaves the interface."""
    command = ["docker", "exec", container_name(host), "python3", "-c", SNIFFER, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sniffer:
        assert sniffer.stdout.readline() == "ready\n"
        socket.create_connection((address, port), timeout=5).close()
        return int(sniffer.stdout.readline())


def counted(host) -> int:
    """Packets that the rules marked."""
    rules = json.loads(host.check_output("nft --json list table inet nestbox_qos"))["nftables"]
    matches = [one for rule in rules if "rule" in rule for one in rule["rule"]["expr"]]
    return sum(one["counter"]["packets"] for one in matches if "counter" in one)


def interface(host) -> str:
    return host.check_output("ip -4 route show default").split("dev ")[1].split()[0]


def queue(host) -> str:
    """The interface's root queue, with its counters."""
    return host.check_output("tc -s qdisc show dev %s root", interface(host))


def test_chats_are_marked_and_counted_and_nothing_else_is(host, address: str) -> None:
    before = counted(host)
    assert mark_of(host, address, 5222) == AF21
    assert counted(host) > before
    before = counted(host)
    assert mark_of(host, address, 8080) == 0
    assert counted(host) == before


def test_the_firewall_keeps_the_marks(host, address: str) -> None:
    host.check_output("ufw reload")
    assert mark_of(host, address, 5222) == AF21


@pytest.mark.parametrize("kind", ["fq_codel", "cake"])
def test_the_queue_counts(host, address: str, kind: str) -> None:
    done = converge(host, qos_queue=kind, qos_bandwidth="50mbit" if kind == "cake" else "")
    assert done.returncode == 0, done.stdout
    there = not re.search("Specified qdisc kind is unknown", host.run(f"tc qdisc add dev lo root {kind}").stderr)
    host.run("tc qdisc del dev lo root")
    assert (f"has no {kind}" in " ".join(done.stdout.split())) != there
    assert (f"qdisc {kind} " in queue(host)) == there
    if not there:
        print(f"This kernel has no {kind}: the role says so and marks only.")
    mark_of(host, address, 5222)
    if there:
        assert int(re.search(r"Sent \d+ bytes (\d+) pkt", queue(host))[1]) > 0
        assert kind != "cake" or "bandwidth 50Mbit diffserv4" in queue(host)


def test_a_bandwidth_is_for_cake_only(host) -> None:
    done = converge(host, qos_bandwidth="50mbit")
    assert done.returncode != 0 and "only cake can keep to a bandwidth" in " ".join(done.stdout.split())


def test_it_is_back_after_a_reboot(host, address: str) -> None:
    subprocess.run(["docker", "restart", "--time", "20", container_name(host)], check=True, capture_output=True)
    wait_for(lambda: host.run("systemctl is-system-running").stdout.strip() in ("running", "degraded"), 60, "start")
    assert unit_properties(host, "nestbox-qos.service")["ActiveState"] == "active"
    assert counted(host) >= 0


def test_the_unit_may_do_little(host) -> None:
    score = host.check_output("systemd-analyze security --no-pager nestbox-qos.service | tail -n 1")
    assert float(re.search(r"([\d.]+) ", score.partition(":")[2])[1]) <= 2.0, score


def test_switched_off_it_is_gone(host, address: str) -> None:
    """The last test: the next run needs a converge."""
    done = converge(host, qos_enabled=False)
    assert done.returncode == 0, done.stdout
    assert host.run("nft list table inet nestbox_qos").rc != 0
    assert not host.file("/etc/systemd/system/nestbox-qos.service").exists
    assert "cake" not in queue(host)
    assert mark_of(host, address, 5222) == 0
    again = converge(host, qos_enabled=False)
    assert re.search(r"changed=0 .* failed=0", again.stdout), again.stdout

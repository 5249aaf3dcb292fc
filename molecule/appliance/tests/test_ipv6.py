"""A neighbour who speaks IPv6 reaches what one with IPv4 does, and no more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest_plugins = ["appliance"]

LOG_IN = Path(__file__).parents[3] / "security" / "log_in.py"
OURS, THEIRS = "fd5a:6e62:7831::1", "fd5a:6e62:7831::2"
INSIDE = "ip netns exec neighbour"
OPEN = {22, 80, 443, 5222, 5223}
CLOSED = {25, 3306, 5269, 6379, 8404, 9100}
KNOCK = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def state(port):
    try:
        socket.create_connection((sys.argv[1], port), 3).close()
    except TimeoutError:
        return "filtered"
    except OSError as error:
        return error.strerror
    return "open"
ports = [int(port) for port in sys.argv[2:]]
print(json.dumps(dict(zip(ports, ThreadPoolExecutor(16).map(state, ports)))))
"""


@pytest.fixture
def neighbour(host):
    """A network beside the appliance with IPv6 alone, which Docker's has not."""
    host.run("ip netns delete neighbour")
    host.check_output("sysctl -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0")
    host.check_output("ip netns add neighbour && ip link add v6 type veth peer name inside netns neighbour")
    host.check_output(f"ip address add {OURS}/64 dev v6 nodad && ip link set v6 up")
    host.check_output(f"{INSIDE} sh -c 'ip address add {THEIRS}/64 dev inside nodad && ip link set inside up'")
    yield
    host.run("ip netns delete neighbour")
    host.check_output("sysctl -w net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1")


def test_the_same_ports_are_open(host, neighbour):
    ports = sorted(OPEN | CLOSED)
    found = json.loads(host.check_output(f"{INSIDE} python3 -c %s {OURS} {' '.join(map(str, ports))}", KNOCK))
    assert found == {str(port): "open" if port in OPEN else "filtered" for port in ports}


def test_logins_over_every_port(appliance, neighbour):
    run = f"{INSIDE} python3 -c %s {OURS} bob %s"
    done = appliance.host.run(run, LOG_IN.read_text(), appliance.passwords["bob"])
    assert done.stderr == "" and set(json.loads(done.stdout)) == {"443", "5222", "5223"}

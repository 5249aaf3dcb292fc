"""The firewall as the network sees it: every port is tried from the controller, with a listener behind it."""

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import container_name, converge, port_state, wait_for

OPEN = [22, 80, 443, 5222, 5223]
CLOSED = [21, 25, 3306, 5269, 5280, 6379, 8080, 8081, 8404, 9100, 9151]


@pytest.fixture
def listeners(host):
    """Something listens on every port of both lists, so that only the firewall can close one."""
    ports = [port for port in OPEN + CLOSED if port != 22]
    for port in ports:
        host.run("systemd-run --quiet --collect --unit listen-%s nc -lk 0.0.0.0 %s", str(port), str(port))
    wait_for(lambda: host.check_output("ss -Hltn").count("\n") >= len(ports) - 1, what="all listeners")
    yield
    host.run("systemctl stop 'listen-*'")


def test_only_the_ports_of_the_design_are_open(address: str, listeners) -> None:
    with ThreadPoolExecutor(8) as pool:
        states = dict(zip(OPEN + CLOSED, pool.map(lambda port: port_state(address, port), OPEN + CLOSED), strict=True))
    assert states == dict.fromkeys(OPEN, "open") | dict.fromkeys(CLOSED, "filtered")


def test_the_host_itself_may_reach_out(host, address: str) -> None:
    """A connection from the host to the outside gets an answer through the firewall."""
    gateway = host.check_output("ip -4 route show default").split()[2]
    probe = "import socket, sys; s = socket.socket(); s.settimeout(3); print(s.connect_ex((sys.argv[1], 1)))"
    assert host.check_output("python3 -c %s %s", probe, gateway) in ("0", "111")


def test_old_rules_of_ours_go_and_others_stay(host, release: str) -> None:
    rules = host.check_output("ufw show added")
    assert "8081" not in rules
    assert ("ufw allow 9999/tcp" in rules) == (release == "26.04")  # prepare.yml made it there
    assert "ufw limit 22/tcp" in rules


def test_kernel_settings_are_left_alone(host) -> None:
    """UFW's own file says log_martians=0; a value that was set before must survive a reload."""
    host.check_output("sysctl -w net.ipv4.conf.all.log_martians=1")
    host.check_output("ufw reload")
    assert host.check_output("sysctl -n net.ipv4.conf.all.log_martians") == "1"


def test_one_that_would_be_off_at_the_next_start_is_switched_on(host) -> None:
    host.check_output("sed -i 's/^ENABLED=yes/ENABLED=no/' /etc/ufw/ufw.conf")
    done = converge(host)
    assert done.returncode == 0, done.stdout[-3000:]
    assert host.run("grep -x ENABLED=yes /etc/ufw/ufw.conf").rc == 0, "and see the next test"


def test_it_is_on_after_a_reboot(host) -> None:
    subprocess.run(["docker", "restart", "--time", "20", container_name(host)], check=True, capture_output=True)
    wait_for(lambda: host.run("systemctl is-system-running").stdout.strip() in ("running", "degraded"), 60, "start")
    inspect = [
        "docker",
        "inspect",
        "-f",
        "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
        container_name(host),
    ]
    address = subprocess.run(inspect, check=True, capture_output=True, text=True).stdout.strip()
    host.run("systemd-run --quiet --collect --unit listen-8080 nc -lk 0.0.0.0 8080")
    wait_for(lambda: port_state(address, 22) == "open", 30, "SSH")
    wait_for(lambda: ":8080 " in host.check_output("ss -Hltn"), what="listener")
    assert port_state(address, 8080) == "filtered"


def test_ssh_is_limited(address: str) -> None:
    """Last, as it shuts the controller out for half a minute."""
    states = [port_state(address, 22, 1) for _ in range(12)]
    assert "filtered" in states

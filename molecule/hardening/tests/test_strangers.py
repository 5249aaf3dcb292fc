"""Who tries to break in is banned, what he would leave is found; each tried."""

from __future__ import annotations

import pytest
from conftest import exposure, unit_properties, wait_for

STRANGER, NEIGHBOUR = ("203.0.113.2", "203.0.113.1"), ("192.168.203.2", "192.168.203.1")
INSIDE = "ip netns exec stranger"
SSH = "ssh -F none -o BatchMode=yes -o ConnectTimeout=5 -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no"


@pytest.fixture
def stranger(host):
    """A network beside the host with an address of the Internet and a private one; the host has one in each."""
    host.run("ip netns delete stranger")
    host.check_output("ip netns add stranger && ip link add outside type veth peer name inside netns stranger")
    for theirs, ours in (STRANGER, NEIGHBOUR):
        host.check_output(f"ip address add {ours}/24 dev outside && {INSIDE} ip address add {theirs}/24 dev inside")
    host.check_output(f"ip link set outside up && {INSIDE} ip link set inside up")
    host.run("ufw --force disable")  # its limit of new SSH connections would hold the test back
    yield
    host.run(f"fail2ban-client unban {STRANGER[0]}; ip netns delete stranger")


def connects(host, theirs: str, ours: str) -> bool:
    """Whether a connection opens; one that only sshd refuses does."""
    code = f"import socket; socket.create_connection(('{ours}', 22), 3, ('{theirs}', 0))"
    return host.run(f"{INSIDE} python3 -c %s", code).rc == 0


def test_a_stranger_is_banned_and_a_neighbour_is_not(host, stranger):
    """Both fail equally often. The SSH server of 26.04 makes them wait in between, therefore the long time."""

    def banned() -> bool:
        for theirs, ours in (NEIGHBOUR, STRANGER):
            host.run(f"{INSIDE} {SSH} -b {theirs} nobody-here@{ours} id")
        return not connects(host, *STRANGER)

    assert connects(host, *STRANGER) and connects(host, *NEIGHBOUR)
    wait_for(banned, 120, "the ban")
    told = "journalctl --no-pager --boot --unit {} --output cat --grep '{}'"
    tried = [
        len(host.check_output(told.format("ssh", f"Invalid user nobody-here from {theirs}")).splitlines())
        for theirs, _ in (NEIGHBOUR, STRANGER)
    ]
    assert tried[0] >= tried[1] > 0 and connects(host, *NEIGHBOUR)
    assert f"Ban {STRANGER[0]}" in host.check_output(told.format("fail2ban", "Ban "))
    host.check_output(f"fail2ban-client unban {STRANGER[0]}")
    assert connects(host, *STRANGER)


@pytest.mark.parametrize("network", ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "fc00::/7", "fe80::/10"])
def test_nobody_near_is_banned(host, network):
    assert network in host.check_output("fail2ban-client get sshd ignoreip")


def test_an_address_of_trust_is_not_banned(host):
    gateway = host.check_output("ip route show default").split()[2]  # molecule.yml names it
    assert gateway in host.check_output("fail2ban-client get sshd ignoreip").split()


def test_what_malware_leaves_is_found_once(host):
    """A file of the worm t0rn."""
    told = "journalctl --no-pager --boot --identifier chkrootkit --output cat"
    host.check_output("systemctl start chkrootkit.service && touch /etc/ttyhash")
    try:
        before = len(host.check_output(told).splitlines())
        host.check_output("systemctl start chkrootkit.service")
        found = host.check_output(told).splitlines()
        assert any("/etc/ttyhash" in line for line in found[before:]), found
        host.check_output("systemctl start chkrootkit.service")
        assert len(host.check_output(told).splitlines()) == len(found)
    finally:
        host.run("rm /etc/ttyhash")


def test_the_scan_comes_by_itself_at_night(host):
    timer = unit_properties(host, "chkrootkit.timer")
    assert timer["ActiveState"] == "active" and "02:00" in timer["TimersCalendar"] and "TimersMonotonic" not in timer


def test_no_assembler_came_along(host):
    assert host.run("command -v as || ls /usr/bin/*-as").rc != 0
    package = "binutils binutils-$(uname -m | tr _ -)-linux-gnu"
    host.check_output(f"DEBIAN_FRONTEND=noninteractive apt-get install -y --reinstall {package}")
    assert host.run("command -v as || ls /usr/bin/*-as").rc != 0 and host.run("command -v strings").rc == 0


@pytest.mark.parametrize(("unit", "most"), [("fail2ban.service", 2.0), ("chkrootkit.service", 2.5)])
def test_who_watches_reaches_little(host, unit, most):
    """The scanner looks at every process, /tmp, /dev and the network, which is what it is for."""
    assert exposure(host, unit) <= most

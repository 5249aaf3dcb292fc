"""The kernel's values are read back: here a key that the role forgets, or that something later overrides, shows."""

import pytest
from conftest import wait_for

CONF = "/etc/sysctl.d/nestbox.conf"
# Written out here, so that a line lost from the template is noticed. kernel.*, vm.* and fs.* are stand-ins in a container.
EXPECTED = {
    "net.core.somaxconn": "8192",
    "net.ipv4.tcp_max_syn_backlog": "8192",
    "net.ipv4.tcp_keepalive_time": "120",
    "net.ipv4.tcp_slow_start_after_idle": "0",
    "net.ipv4.tcp_rmem": "4096\t65536\t2097152",
    "net.ipv4.conf.all.accept_redirects": "0",
    "net.ipv4.conf.all.log_martians": "1",
    "net.netfilter.nf_conntrack_tcp_timeout_established": "86400",
    "net.netfilter.nf_conntrack_tcp_be_liberal": "1",
    "vm.swappiness": "150",
    "kernel.kptr_restrict": "2",
    "fs.protected_regular": "2",
    "fs.suid_dumpable": "0",
}


@pytest.mark.parametrize("key", EXPECTED)
def test_value_is_in_force(host, key: str) -> None:
    assert host.check_output("sysctl -n %s", key) == EXPECTED[key]


def test_every_line_is_in_force(host) -> None:
    """Each key of the file that this kernel has and lets us write says what the file says."""
    lines = [line for line in host.file(CONF).content_string.splitlines() if line and not line.startswith("#")]
    asked = {key.strip().lstrip("-"): value.strip() for key, value in (line.split("=", 1) for line in lines)}
    optional = {line.split("=", 1)[0].strip().lstrip("-") for line in lines if line.startswith("-")}
    paths = " ".join("/proc/sys/" + key.replace(".", "/") for key in asked)
    shown = host.check_output(f"for f in {paths}; do if [ -w $f ]; then echo $f $(cat $f); else echo $f; fi; done")
    found = {
        path.removeprefix("/proc/sys/").replace("/", "."): " ".join(value)
        for path, *value in map(str.split, shown.splitlines())
    }
    wrong = {
        key: found[key]
        for key, value in asked.items()
        if found[key] != value and not (key in optional and not found[key])
    }
    assert len(asked) > 60
    assert not wrong


def test_a_server_gets_the_backlog_it_asks_for(host) -> None:
    """The kernel cuts listen(8192) to somaxconn: ss shows what is left."""
    script = (
        "import socket, subprocess; s = socket.create_server(('127.0.0.1', 7999), backlog=8192); "
        "print(subprocess.run(['ss', '-Hltn', 'sport = :7999'], capture_output=True, text=True).stdout.split()[2])"
    )
    assert host.check_output("python3 -c %s", script) == "8192"


FLOOD = """
import random, socket, struct
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
target = socket.inet_aton("10.231.0.1")
def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
for number in range(1000):
    source = socket.inet_aton("10.231.%d.%d" % (1 + number // 250, 1 + number % 250))
    segment = struct.pack("!HHIIBBHHH", random.randint(2000, 60000), 7998, number, 0, 5 << 4, 2, 1000, 0, 0)
    whole = checksum(source + target + struct.pack("!BBH", 0, 6, len(segment)) + segment)
    segment = segment[:16] + struct.pack("!H", whole) + segment[18:]
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), number, 0, 64, 6, 0, source, target)
    raw.sendto(header + segment, ("10.231.0.1", 0))
socket.create_connection(("10.231.0.1", 7998), 3)
"""
LISTEN = "import socket, time; s = socket.create_server(('10.231.0.1', 7998), backlog=8); time.sleep(60)"


def test_a_flood_of_syns_shuts_nobody_out(host) -> None:
    """SYN cookies: the queue of half-open connections is full of strangers, and a neighbour gets through at once."""
    host.check_output("ip netns add flood && ip link add syn type veth peer name inside netns flood")
    try:
        host.check_output("ip address add 10.231.0.1/16 dev syn && ip link set syn up")
        host.check_output("ip -n flood address add 10.231.0.2/16 dev inside && ip -n flood link set inside up")
        host.check_output("systemd-run --quiet --unit=syn-listener python3 -c %s", LISTEN)
        wait_for(lambda: host.socket("tcp://10.231.0.1:7998").is_listening, 20, "a listener")
        host.check_output("ip netns exec flood python3 -c %s", FLOOD)
        assert int(host.check_output("nstat -asz TcpExtSyncookiesRecv | awk '/Recv/ {print $2}'")) > 0
    finally:
        host.run("systemctl stop syn-listener; ip netns delete flood; ip link delete syn")


def test_limits_on_open_files_are_not_lowered(host) -> None:
    assert "fs.file-max" not in host.file(CONF).content_string
    assert int(host.check_output("sysctl -n fs.nr_open")) >= 131072


def test_connection_tracking_loads_at_boot(host) -> None:
    loaded = host.check_output("systemd-analyze cat-config modules-load.d")
    assert "nf_conntrack" in loaded.splitlines()

"""The kernel's values are read back: here a key that the role forgets, or that something later overrides, shows."""

import pytest

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


def test_limits_on_open_files_are_not_lowered(host) -> None:
    assert "fs.file-max" not in host.file(CONF).content_string
    assert int(host.check_output("sysctl -n fs.nr_open")) >= 131072


def test_connection_tracking_loads_at_boot(host) -> None:
    loaded = host.check_output("systemd-analyze cat-config modules-load.d")
    assert "nf_conntrack" in loaded.splitlines()

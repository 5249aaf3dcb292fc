"""Nothing is lost by a true restart, and everything comes back by itself."""

from __future__ import annotations

import json

import pytest

SERVICES = ("nestbox@1", "nestbox@2", "haproxy", "mariadb", "valkey-server", "ufw", "fail2ban", "unattended-upgrades")


@pytest.fixture(scope="module")
def restarted(host, connect, wait_for):
    """The machine, with a person more than before, after a restart."""
    boot = host.check_output("cat /proc/sys/kernel/random/boot_id")
    host.check_output("nestboxctl user add restarted")
    host.run("systemctl reboot")
    another = "cat /proc/sys/kernel/random/boot_id"
    wait_for(lambda: connect(another) not in (None, boot), 900, "the restart")
    assert connect("systemctl is-system-running --wait") == "running", connect("systemctl --failed")
    yield host
    host.check_output("nestboxctl user delete --yes restarted")


def test_every_service_is_back(restarted):
    assert [name for name in SERVICES if not restarted.service(name).is_running] == []


def test_the_self_check_finds_no_fault(restarted, wait_for):
    wait_for(lambda: restarted.run("nestboxctl status --json").rc == 0, 300, "the self-check")
    found = json.loads(restarted.check_output("nestboxctl status --json"))["checks"]
    assert [one for one in found if one["state"] == "fault"] == []


def test_what_is_for_the_night_does_not_run_when_everybody_comes_back(restarted):
    """The clock comes late on some boards (on a Pi 4 from the network) and jumps over the hours of the timers."""
    assert restarted.check_output("systemctl show -P ExecMainStartTimestamp chkrootkit.service") == ""


def test_people_are_still_there(restarted):
    names = [user["username"] for user in json.loads(restarted.check_output("nestboxctl user list --json"))]
    assert "restarted" in names and "admin" in names


def test_the_firewall_and_the_kernel_have_their_settings(restarted):
    assert "Status: active" in restarted.check_output("ufw status")
    assert "5222/tcp" in restarted.check_output("ufw status")
    assert restarted.check_output("sysctl -n kernel.kptr_restrict") == "2"
    assert restarted.check_output("cat /sys/module/apparmor/parameters/enabled") == "Y"


def test_memory_is_bounded_again(restarted):
    folder = "/sys/fs/cgroup" + restarted.check_output("systemctl show -P ControlGroup nestbox@1")
    assert restarted.file(f"{folder}/memory.max").content_string.strip().isdigit()

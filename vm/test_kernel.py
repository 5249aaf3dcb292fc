"""What the appliance asks of the kernel, obeyed by Ubuntu's own: settings and AppArmor."""

from __future__ import annotations

import json

CONF = "/etc/sysctl.d/nestbox.conf"


def test_this_is_a_kernel_of_its_own(host):
    assert "Ubuntu" in host.check_output("uname -v")
    assert host.run("systemd-detect-virt --container").rc != 0
    assert {"cpu", "memory", "pids"} <= set(host.check_output("cat /sys/fs/cgroup/cgroup.controllers").split())


def test_the_kernel_took_every_setting(host):
    """Also kernel.*, vm.* and fs.*, which are stand-ins in a container, and would take what a kernel refuses."""
    lines = [line for line in host.file(CONF).content_string.splitlines() if line and not line.startswith("#")]
    asked = {key.strip().lstrip("-"): value.split() for key, value in (line.split("=", 1) for line in lines)}
    paths = " ".join("/proc/sys/" + key.replace(".", "/") for key in asked)
    shown = host.check_output(f"grep -s '' /dev/null {paths} || :")
    found = {
        path.removeprefix("/proc/sys/").replace("/", "."): value.split()
        for path, value in (line.split(":", 1) for line in shown.splitlines())
    }
    assert len(asked) > 60
    assert {key: found[key] for key in asked if key in found and found[key] != asked[key]} == {}
    missing = {key for key in asked if key not in found}
    assert all(f"-{key}" in line for key in missing for line in lines if key in line), missing


def test_users_see_neither_the_kernels_messages_nor_its_addresses(host):
    assert host.run("sudo -u nobody dmesg").rc != 0
    shown = host.check_output("sudo -u nobody grep ' _stext$' /proc/kallsyms")
    assert int(shown.split()[0], 16) == 0


def test_apparmor_is_on_and_stops_namespaces_of_users(host):
    assert host.check_output("cat /sys/module/apparmor/parameters/enabled") == "Y"
    profiles = json.loads(host.check_output("aa-status --json"))["profiles"]
    assert list(profiles.values()).count("enforce") > 20
    assert [name for name, mode in profiles.items() if mode == "complain"] == []  # Ubuntu brings some
    refused = host.run("sudo -u nobody unshare --user --map-root-user true")
    assert refused.rc != 0 and "not permitted" in refused.stderr

"""What the system does after role base; the scenario gives other values than the defaults."""

from conftest import converge, unit_properties, wait_for


def test_name(host) -> None:
    assert host.check_output("hostname") == "chat"
    assert host.check_output("hostname --fqdn") == "chat.example.org"
    assert host.file("/etc/hostname").content_string.strip() == "chat"


def test_time_zone_and_locale(host) -> None:
    assert host.check_output("date +%Z") in ("CET", "CEST")
    assert host.check_output("su --login pi --command 'locale charmap'") == "UTF-8"


def test_chrony_runs_and_asks_our_server(host) -> None:
    assert unit_properties(host, "chrony.service")["ActiveState"] == "active"
    assert host.service("chrony").is_enabled
    wait_for(lambda: "192.0.2.1" in host.check_output("chronyc -n sources"), what="our server among chrony's sources")


def test_timers_wait_for_the_clock_but_not_for_ever(host) -> None:
    """No time server answers here: the start goes on after a minute, and nothing has failed."""
    assert host.service("chrony-wait").is_enabled
    assert "time-sync.target" in unit_properties(host, "apt-daily.timer")["After"]
    assert "time-sync.target" in unit_properties(host, "chrony-wait.service")["Before"]
    host.check_output("systemctl start --no-block chrony-wait")
    wait_for(
        lambda: unit_properties(host, "chrony-wait.service")["ActiveState"] == "active", 120, "the end of the waiting"
    )
    shown = unit_properties(host, "chrony-wait.service")
    began, ended = (int(shown[f"ExecMain{name}TimestampMonotonic"]) / 1e6 for name in ("Start", "Exit"))
    assert 50 < ended - began < 90 and shown["ExecMainStatus"] == "1" and shown["Result"] == "success"


def test_journal_has_its_limit(host) -> None:
    """journald itself tells the limit when it opens the journal on the card."""
    said = host.check_output("journalctl --no-pager --unit systemd-journald")
    assert "System Journal" in said
    assert "max 111.0M" in said or "max 111M" in said


def test_journal_is_on_the_card(host) -> None:
    host.check_output("logger --tag nestbox-test kept-through-a-restart && journalctl --sync")
    assert (
        host.run("journalctl --no-pager --directory /var/log/journal --identifier nestbox-test").stdout.count(
            "kept-through"
        )
        == 1
    )


def test_nothing_writes_access_times(host) -> None:
    rows = [line.split() for line in host.file("/etc/fstab").content_string.splitlines()]
    assert {row[1]: row[3] for row in rows} == {"/": "defaults,x-systemd.growfs,noatime", "/boot/firmware": "defaults"}


def test_swap_goes_into_compressed_memory(host) -> None:
    """zram-generator, told that this is no container, makes a swap unit of our file."""
    host.check_output("mkdir -p /var/tmp/fake && printf '#!/bin/sh\nexit 1\n' > /var/tmp/fake/systemd-detect-virt")
    host.check_output("chmod 755 /var/tmp/fake/systemd-detect-virt && mkdir -p /var/tmp/units")
    generator = "/usr/lib/systemd/system-generators/zram-generator"
    host.check_output(f"PATH=/var/tmp/fake:$PATH {generator} /var/tmp/units /var/tmp/units /var/tmp/units")
    swap = host.file("/var/tmp/units/dev-zram0.swap").content_string
    assert "What=/dev/zram0" in swap
    assert "Priority=100" in swap


def test_watchdog_is_armed_on_a_pi(host) -> None:
    shown = host.check_output("systemctl show --property RuntimeWatchdogUSec --property RebootWatchdogUSec")
    assert shown.splitlines() == ["RuntimeWatchdogUSec=14s", "RebootWatchdogUSec=2min"]


def test_memory_limits_are_switched_on_in_one_line(host, release: str) -> None:
    folder = "/boot/firmware/current" if release == "26.04" else "/boot/firmware"
    lines = host.file(f"{folder}/cmdline.txt").content_string.splitlines()
    assert len(lines) == 1
    assert lines[0].split()[-3:] == ["rootwait", "cgroup_enable=memory", "cgroup_memory=1"]


def test_a_host_without_a_network_is_told_so_before_anything_changes(host) -> None:
    """On a fresh host this is the first task that changes something; here another name would be the first change after it."""
    # The lists are taken away as on a card just written, and a package is missing.
    host.check_output(
        "mv /var/lib/apt/lists /var/lib/apt/lists.kept && apt-get -q -y purge acl && iptables -A OUTPUT ! -o lo -j REJECT"
    )
    try:
        done = converge(host, base_hostname="other")
    finally:
        host.check_output(
            "iptables -D OUTPUT ! -o lo -j REJECT; rm -rf /var/lib/apt/lists && mv /var/lib/apt/lists.kept /var/lib/apt/lists"
        )
        restored = converge(host)
    said = " ".join(done.stdout.split())
    assert done.returncode != 0 and "could not fetch its packages (" in said and "connect it to the network" in said, (
        said
    )
    assert "changed=0" in said and host.check_output("hostname") == "chat"
    assert restored.returncode == 0, restored.stdout

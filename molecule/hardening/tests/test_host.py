"""What accounts, services and files of the host can do no more, each tried."""

from __future__ import annotations

import pytest
from conftest import unit_properties, wait_for

AS_PI = "runuser -u pi --"
CRASH = "cd {} && rm -f core* && sh -c 'ulimit -c unlimited 2>/dev/null; kill -SEGV $$'; ls core* 2>/dev/null"


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_files_of_a_login_shell_are_for_nobody_else(host, shell):
    host.check_output(f"runuser -l pi -s /bin/{shell} -c 'rm -f made; touch made'")
    assert int(host.check_output("stat -c %a ~pi/made"), 8) & 0o007 == 0


def test_what_sudo_creates_stays_readable(host):
    """Services read what the operator installs with sudo, whatever the umask of the shell."""
    host.check_output("runuser -l pi -c 'umask 077; sudo rm -f /opt/made; sudo touch /opt/made'")
    assert host.check_output("stat -c %a /opt/made") == "644"


def test_a_crash_in_a_shell_leaves_no_core(host):
    assert host.run("runuser -l pi -c %s", CRASH.format("~")).stdout == ""
    assert host.check_output("runuser -l pi -c 'ulimit -Hc'") == "0"


def test_a_crash_in_a_service_leaves_no_core(host):
    crash = "import resource, os; print(resource.getrlimit(resource.RLIMIT_CORE), flush=True); os.abort()"
    run = "systemd-run --wait --collect --quiet --pipe -p WorkingDirectory=/var/tmp"
    assert host.run(f"{run} python3 -c %s", crash).stdout.strip() == "(0, 0)"
    assert host.run("ls /var/tmp/core*").rc != 0
    assert unit_properties(host, "cron.service")["LimitCORE"] == "0"


def test_no_file_allows_cores(host):
    assert (
        host.run(
            "grep -rE '^[^#]+core +(unlimited|infinity|[1-9])' /etc/security/limits.conf /etc/security/limits.d"
        ).rc
        == 1
    )


def test_temporary_files_of_an_account_are_its_own(host):
    """Also root's, with sudo; and what is run as another account by it still works."""
    login = "su --login pi --command %s"
    assert host.check_output(login, "touch $TMPDIR/made; echo $TMPDIR") == "/tmp/user/1000"
    assert host.check_output(login, "sudo sh -c 'echo $TMPDIR'") == "/tmp/user/0"
    assert host.run(login, "sudo -u nobody mktemp").rc == 0
    assert host.run("runuser -u nobody -- ls /tmp/user/1000").rc != 0


def test_few_programs_have_the_rights_of_root(host):
    found = set(host.check_output("find / -xdev -perm -4000 -type f").split())
    assert len(found) <= 9
    assert found.isdisjoint({"/usr/bin/chsh", "/usr/bin/mount", "/usr/bin/newgrp", "/usr/lib/openssh/ssh-keysign"})


def test_the_bits_stay_away_when_the_package_is_installed_again(host):
    package = host.check_output("dpkg-query --search /usr/bin/chsh").split(":")[0]
    host.check_output(f"DEBIAN_FRONTEND=noninteractive apt-get install -y --reinstall {package}")
    assert host.file("/usr/bin/chsh").mode == 0o755


def test_an_account_waits_after_wrong_passwords(host):
    """Five wrong ones, and the right one is refused too, until the time is over."""
    host.run("userdel --remove tess; faillock --user tess --reset")
    host.check_output("useradd --create-home tess && echo 'tess:A-right-passw0rd-of-the-test' | chpasswd")
    try:
        su = "runuser -u nobody -- sh -c 'echo {} | su tess -c id'"
        assert "uid=" in host.run(su.format("A-right-passw0rd-of-the-test")).stdout
        for _ in range(5):
            assert host.run(su.format("wrong")).rc != 0
        assert host.run(su.format("A-right-passw0rd-of-the-test")).rc != 0
        host.check_output("faillock --user tess --reset")
        assert "uid=" in host.run(su.format("A-right-passw0rd-of-the-test")).stdout
    finally:
        host.run("userdel --remove tess; faillock --user tess --reset")


@pytest.mark.parametrize("password", ["short1!", "pi-pi-pi-pi-pi-pi"])
def test_a_weak_password_is_refused(host, password):
    before = host.check_output("getent shadow pi")
    assert host.run(f"printf '{password}\\n{password}\\n' | passwd pi").rc != 0
    assert host.check_output("getent shadow pi") == before


def test_a_changed_file_is_found_once(host):
    host.check_output("rm -rf /var/lib/nestbox-integrity && systemctl start nestbox-integrity.service")
    host.check_output("echo changed >/usr/local/sbin/of-the-test")
    try:
        host.check_output("systemctl start nestbox-integrity.service")
        found = host.check_output("journalctl --no-pager -t nestbox-integrity -o cat")
        assert "/usr/local/sbin/of-the-test" in found and "Files differ from the baseline" in found
        host.check_output("systemctl start nestbox-integrity.service")
        last = host.check_output("journalctl --no-pager -t nestbox-integrity -o cat -n 1")
        assert last == "Nothing differs from the baseline."
    finally:
        host.run("rm /usr/local/sbin/of-the-test")


def test_the_check_of_files_comes_by_itself(host):
    assert unit_properties(host, "nestbox-integrity.timer")["ActiveState"] == "active"


def test_security_updates_come_at_night_and_others_do_not(host, release):
    shown = host.check_output("apt-config dump Unattended-Upgrade")
    assert 'Automatic-Reboot-Time "04:30"' in shown and 'Automatic-Reboot "true"' in shown
    said = (
        host.run("unattended-upgrade --dry-run --debug").stdout
        + host.run("unattended-upgrade --dry-run --debug").stderr
    )
    [allowed] = [line for line in said.splitlines() if line.startswith("Allowed origins are")][:1]
    assert "-security" in allowed and f"a={release}" not in allowed and "-updates" not in allowed
    timer = host.check_output("systemctl show apt-daily-upgrade.timer --property=TimersCalendar")
    assert "03:30" in timer and "06:00" not in timer


def test_an_update_tells_its_news_and_asks_nothing(host):
    """With a terminal, as the operator has it, that nobody answers at."""
    build = """
        cd $(mktemp -d) && mkdir -p made/DEBIAN made/usr/share/doc/of-the-test
        for version in 1 2; do
            printf 'Package: of-the-test\\nVersion: %s\\nArchitecture: all\\nMaintainer: T <t@nestbox.test>\\nDescription: t\\n' \\
                $version >made/DEBIAN/control
            printf 'of-the-test (2) noble; urgency=low\\n\\n  * Mind the gap.\\n\\n -- T <t@nestbox.test>  Mon, 02 Jun 2025 10:00:00 +0000\\n' |
                gzip >made/usr/share/doc/of-the-test/NEWS.Debian.gz
            [ $version = 2 ] || rm made/usr/share/doc/of-the-test/NEWS.Debian.gz
            dpkg-deb -b made $version.deb && script -qec "apt-get install -y ./$version.deb" /dev/null </dev/null
        done
    """
    try:
        assert "Mind the gap" in host.check_output("timeout 100 sh -ec %s", build)
    finally:
        host.run("dpkg --purge of-the-test")


def test_services_with_old_libraries_restart_by_themselves(host):
    assert host.run("needrestart -b -r a").rc == 0
    assert "restart} = 'a'" in host.file("/etc/needrestart/conf.d/nestbox.conf").content_string


@pytest.mark.parametrize("module", ["dccp", "sctp", "rds", "tipc", "udf"])
def test_a_needless_module_is_not_loaded(host, module):
    assert "/bin/false" in host.check_output(
        f"modprobe --show-depends --ignore-install {module} 2>&1; modprobe -c | grep 'install {module} '"
    )


def test_an_idle_shell_is_closed_and_a_script_may_wait(host):
    assert host.check_output("runuser -l pi -c 'bash -ic \"echo \\$TMOUT\"' 2>/dev/null") in {"", "900"}
    assert host.check_output("bash -lic 'echo $TMOUT' 2>/dev/null") == "900"
    assert host.check_output("bash -lc 'echo $TMOUT'") == ""


@pytest.mark.parametrize(
    "read", ["cat /etc/crontab", "ls /etc/cron.d", "cat /etc/ssh/sshd_config", "ls /etc/sudoers.d"]
)
def test_configuration_is_not_for_everybody(host, read):
    assert host.run(read).rc == 0
    assert host.run(f"{AS_PI} {read}").rc != 0


def test_nothing_failed(host):
    wait_for(lambda: host.check_output("systemctl list-units --failed --plain --no-legend") == "", 10, "no failed unit")

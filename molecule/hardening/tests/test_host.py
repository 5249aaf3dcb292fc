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


def test_what_a_chat_server_does_not_need_is_gone(host):
    assert host.run("dpkg-query -W -f '${Status}' telnet | grep -q 'ok installed'").rc != 0  # prepare.yml installed it


def test_a_changed_file_of_a_package_is_reported_every_week(host):
    """By dpkg's checksums, which know what a file was before the baseline was made."""
    file = "/usr/lib/systemd/system/cron.service"
    host.check_output(f"cp -p {file} /root/kept && echo '# changed' >>{file}")
    try:
        said = host.check_output("/etc/cron.weekly/debsums")
    finally:
        host.check_output(f"cp -p /root/kept {file} && rm /root/kept")
    assert file in said


def test_the_bits_stay_away_when_the_package_is_installed_again(host):
    package = host.check_output("dpkg-query --search /usr/bin/chsh").split(":")[0]
    host.check_output(f"DEBIAN_FRONTEND=noninteractive apt-get install -y --reinstall {package}")
    assert host.file("/usr/bin/chsh").mode == 0o755


def test_an_account_waits_after_wrong_passwords(host):
    """Five wrong ones, and the right one is refused too, until the time is over."""
    host.run("userdel --force --remove tess; faillock --user tess --reset")
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
        host.run("userdel --force --remove tess; faillock --user tess --reset")


def test_a_new_account_gets_careful_defaults(host, release):
    """Its home is for nobody else, its password is hashed slowly and must be changed within a year."""
    host.check_output("useradd --create-home nina && echo 'nina:A-right-passw0rd-of-the-test' | chpasswd")
    try:
        fields = host.check_output("getent shadow nina").split(":")
        # yescrypt, with a cost of 7; the PAM of 24.04 does not read the cost and takes 5.
        assert fields[1].startswith("$y$jB" if release == "26.04" else "$y$") and fields[3:5] == ["1", "365"]
        assert host.file("/home/nina").mode == 0o750
    finally:
        host.run("userdel --remove nina")


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


ARCHIVE = """
    mkdir -p /srv/of-the-test && cd /srv/of-the-test
    for pocket in security updates; do
        mkdir -p $pocket made/DEBIAN
        for version in 1 2; do
            printf 'Package: of-the-test-%s\\nVersion: %s\\nArchitecture: all\\nMaintainer: T <t@nestbox.test>\\nDescription: t\\n' \\
                $pocket $version >made/DEBIAN/control
            dpkg-deb -b made $pocket/$version.deb
        done
        dpkg -i $pocket/1.deb
        { dpkg-deb -f $pocket/2.deb; echo "Filename: ./2.deb"; echo "Size: $(stat -c %s $pocket/2.deb)"
          echo "SHA256: $(sha256sum $pocket/2.deb | cut -d' ' -f1)"; } >$pocket/Packages
        printf 'Origin: Ubuntu\\nLabel: Ubuntu\\nSuite: %s-%s\\nCodename: %s\\nDate: %s\\nSHA256:\\n %s %s Packages\\n' \\
            $(lsb_release -cs) $pocket $(lsb_release -cs) "$(date -Ru)" $(sha256sum $pocket/Packages | cut -d' ' -f1) \\
            $(stat -c %s $pocket/Packages) >$pocket/Release
        echo "deb [trusted=yes] file:/srv/of-the-test/$pocket ./" >>sources.list
    done
    printf 'Dir::Etc::sourcelist "/srv/of-the-test/sources.list"; Dir::Etc::sourceparts "-"; APT::Get::List-Cleanup "0";' >apt.conf
"""


def test_security_updates_come_at_night_and_others_do_not(host):
    """Two packages have an update, one of them in the pocket for security, in an archive that says that it is Ubuntu's."""
    timer = host.check_output("systemctl show apt-daily-upgrade.timer --property=TimersCalendar")
    assert "03:30" in timer and "06:00" not in timer
    shown = host.check_output("apt-config dump Unattended-Upgrade")
    assert 'Automatic-Reboot-Time "04:30"' in shown and 'Automatic-Reboot "true"' in shown
    versions = "dpkg-query -W -f '${Version} ' of-the-test-security of-the-test-updates"
    try:
        host.check_output("sh -ec %s", ARCHIVE)
        assert host.check_output(versions).split() == ["1", "1"]
        host.check_output("export APT_CONFIG=/srv/of-the-test/apt.conf; apt-get update && unattended-upgrade")
        assert host.check_output(versions).split() == ["2", "1"]
    finally:
        host.run("dpkg --purge of-the-test-security of-the-test-updates; rm -r /srv/of-the-test; apt-get update")


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


def test_a_service_whose_program_was_updated_is_restarted(host):
    """As after an upgrade: dpkg put a new file in the place of one that a service runs; needrestart is called without a terminal."""
    program, unit = "/usr/bin/of-the-test", "of-the-test"
    host.check_output(f"cp /usr/bin/nc {program} && cp {program} {program}.new")
    try:
        # needrestart looks at services with a file of their own.
        service = f"[Service]\nExecStart={program} -lk 127.0.0.1 4999\n"
        host.check_output(f"printf '{service}' >/etc/systemd/system/{unit}.service && systemctl daemon-reload")
        host.check_output(f"systemctl start {unit}")
        before = unit_properties(host, unit)["MainPID"]
        wait_for(lambda: host.run(f"readlink /proc/{before}/exe").stdout.strip() == program, what="the program")
        host.check_output(f"mv {program}.new {program} && needrestart </dev/null")
        wait_for(lambda: unit_properties(host, unit)["MainPID"] not in ("0", before), what="a restart")
    finally:
        host.run(f"systemctl stop {unit}; rm -f {program} {program}.new /etc/systemd/system/{unit}.service")
        host.run("systemctl daemon-reload")


@pytest.mark.parametrize("module", ["dccp", "sctp", "rds", "tipc", "udf"])
def test_a_needless_module_is_not_loaded(host, module):
    assert "/bin/false" in host.check_output(
        f"modprobe --show-depends --ignore-install {module} 2>&1; modprobe -c | grep 'install {module} '"
    )


def test_an_idle_shell_is_closed_and_a_script_may_wait(host):
    assert host.check_output("runuser -l pi -c 'bash -ic \"echo \\$TMOUT\"' 2>/dev/null") in {"", "900"}
    assert host.check_output("bash -lic 'echo $TMOUT' 2>/dev/null") == "900"
    assert host.check_output("bash -lc 'echo $TMOUT'") == ""


def test_an_idle_shell_ends_by_itself(host):
    """With 2 seconds in place of 900, at a terminal at which nobody types."""
    script = """
import os, pty
pid, terminal = pty.fork()
if not pid:
    os.execvp("bash", ["bash", "--noprofile", "--rcfile", "/tmp/impatient", "-i"])
said = b""
try:
    while data := os.read(terminal, 1024):
        said += data
except OSError:  # the other end is closed
    pass
os.waitpid(pid, 0)
print(said.decode())
"""
    host.check_output("sed 's/TMOUT=900/TMOUT=2/' /etc/profile.d/nestbox.sh >/tmp/impatient")
    try:
        assert "auto-logout" in host.check_output("timeout 30 python3 -c %s", script)
    finally:
        host.run("rm /tmp/impatient")


@pytest.mark.parametrize(
    "read", ["cat /etc/crontab", "ls /etc/cron.d", "cat /etc/ssh/sshd_config", "ls /etc/sudoers.d"]
)
def test_configuration_is_not_for_everybody(host, read):
    assert host.run(read).rc == 0
    assert host.run(f"{AS_PI} {read}").rc != 0


def test_nothing_failed(host):
    wait_for(lambda: host.check_output("systemctl list-units --failed --plain --no-legend") == "", 10, "no failed unit")

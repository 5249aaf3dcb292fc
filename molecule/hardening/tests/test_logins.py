"""Who gets in, tried with a real ssh client from outside, and what the journal knows of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from conftest import converge, wait_for

KEY = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "id_ed25519")
OPTIONS = "-F none -o BatchMode=yes -o ConnectTimeout=20 -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no"


@pytest.fixture
def ssh(host, address):
    """Run a command over SSH as a user, with more options; the result has returncode, stdout and stderr."""

    def run(command: str, *options: str, user: str = "pi", key: Path | str = KEY) -> subprocess.CompletedProcess:
        arguments = ["ssh", *OPTIONS.split(), "-o", "IdentitiesOnly=yes", "-i", str(key), *options, f"{user}@{address}"]
        return subprocess.run(
            [*arguments, command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60
        )

    host.run("ufw --force disable")  # its limit of new SSH connections would hold the test back
    return run


def test_a_key_opens_a_session_and_the_journal_names_it(host, ssh):
    done = ssh("id -un; sudo id -un")
    assert done.stdout.split() == ["pi", "root"], done.stderr
    fingerprint = subprocess.check_output(["ssh-keygen", "-lf", f"{KEY}.pub"], text=True).split()[1]
    journal = "journalctl --no-pager --boot"
    wait_for(lambda: "Accepted publickey for pi from" in host.check_output(journal), 10, "the login in the journal")
    assert fingerprint in host.check_output(journal)
    assert "COMMAND=/usr/bin/id -un" in host.check_output(journal)


def test_a_password_is_refused(host, address):
    """sshpass types a right password; a server that takes none says so before it is asked."""
    host.check_output("echo 'pi:A-right-passw0rd-of-the-test' | chpasswd")
    command = ["ssh", *OPTIONS.replace("BatchMode=yes", "BatchMode=no").split()]
    command += ["-o", "PreferredAuthentications=password,keyboard-interactive", "-o", "PubkeyAuthentication=no", "-v"]
    try:
        done = subprocess.run(
            [*command, f"pi@{address}", "id"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "SSH_ASKPASS": "/bin/false", "SSH_ASKPASS_REQUIRE": "force"},
        )
    finally:
        host.check_output("usermod --password '*' pi")
    assert done.returncode == 255 and "Permission denied (publickey)" in done.stderr
    assert "Authentications that can continue: publickey\n" in done.stderr.replace("\r", "")


def test_root_is_refused_even_with_a_key(host, ssh):
    host.check_output("install -d -m 700 /root/.ssh && cp /home/pi/.ssh/authorized_keys /root/.ssh/authorized_keys")
    try:
        done = ssh("id", user="root")
    finally:
        host.check_output("rm -r /root/.ssh")
    assert done.returncode == 255 and "Permission denied (publickey)" in done.stderr


def test_a_stranger_is_refused_and_the_journal_tells(host, ssh, tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    assert ssh("id", key=tmp_path / "key").returncode == 255
    assert ssh("id", user="nobody-here", key=tmp_path / "key").returncode == 255
    told = "journalctl --no-pager --boot --grep 'Invalid user nobody-here from|Failed publickey for pi from'"
    wait_for(lambda: len(host.run(told).stdout.splitlines()) >= 2, 10, "both refusals in the journal")


@pytest.mark.parametrize(
    "weak",
    ["KexAlgorithms=ecdh-sha2-nistp256", "KexAlgorithms=curve25519-sha256", "MACs=hmac-sha1", "MACs=umac-64@openssh.com",
     "HostKeyAlgorithms=ecdsa-sha2-nistp256", "HostKeyAlgorithms=rsa-sha2-512"],
)  # fmt: skip
def test_a_weak_algorithm_is_refused(ssh, weak):
    ciphers = ("-o", "Ciphers=aes256-ctr") if weak.startswith("MACs") else ()  # the others need no MAC
    done = ssh("id", "-o", weak, *ciphers)
    assert done.returncode == 255 and "no matching" in done.stderr


def test_no_tunnel_through_the_host(ssh):
    done = ssh("cat", "-W", "127.0.0.1:22")
    assert done.returncode == 255 and "open failed" in done.stderr


def test_an_account_with_an_old_password_still_opens_by_key(host, ssh):
    """After a year of PASS_MAX_DAYS nobody is locked out."""
    host.check_output("chage --maxdays 1 --lastday 2020-01-01 pi")
    try:
        assert ssh("id -un").stdout == "pi\n"
    finally:
        host.check_output("chage --maxdays 365 --lastday $(date +%F) pi")


def test_the_banner_is_shown_before_the_login(ssh):
    assert "This is a private system." in ssh("id").stderr


def test_a_run_that_would_lock_everybody_out_is_refused(host, ssh):
    """Without any key, and when another file would have the last word: refused in a sentence, nothing changed."""
    ours = "/etc/ssh/sshd_config.d/00-nestbox.conf"
    host.check_output("mv /home/pi/.ssh /home/pi/.away")
    try:
        said = converge(host).stdout
    finally:
        host.check_output("mv /home/pi/.away /home/pi/.ssh")
    assert "would let nobody in any more" in said

    before = host.file(ours).content_string
    host.check_output("printf 'PermitRootLogin yes\\n' >/etc/ssh/sshd_config.d/00-a.conf")
    try:
        said = converge(host, hardening_ssh_kex=["curve25519-sha256"]).stdout
    finally:
        host.check_output("rm /etc/ssh/sshd_config.d/00-a.conf")
    assert "would not do permitrootlogin no, because a file says otherwise" in " ".join(said.split())
    assert host.file(ours).content_string == before
    assert host.run("ls /etc/ssh/sshd_config.d").stdout.split() == ["00-nestbox.conf"]
    assert ssh("id -un").stdout == "pi\n"

"""Over real SSH: whoever shuts himself out gets back in by waiting, and a change that lets him in stays."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from conftest import container_name, exposure, port_state, unit_properties, wait_for

SCENARIO = Path(__file__).parents[1]
SETTING = "/etc/ssh/sshd_config.d/99-test.conf"
ARMED = "/var/lib/nestbox-lockout-guard/armed"


@pytest.fixture
def play(host, address, tmp_path):
    """Return a function that runs a playbook over SSH, as user pi, with variables as NAME=VALUE."""
    key = tmp_path / "key"
    sockets = tempfile.mkdtemp(dir="/tmp")  # a socket's path must be short
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    host.check_output("install -d -m 700 -o pi -g pi ~pi/.ssh")
    host.check_output("printf %%s %s >~pi/.ssh/authorized_keys", (tmp_path / "key.pub").read_text())
    host.check_output("chown pi:pi ~pi/.ssh/authorized_keys && mkdir -p /run/sshd")

    def run(playbook: str, *variables: str) -> subprocess.CompletedProcess:
        options = (
            f"-o UserKnownHostsFile={tmp_path}/known -o StrictHostKeyChecking=accept-new -o ControlPath={sockets}/%C"
        )
        command = ["ansible-playbook", "-i", f"{address},", "--user=pi", f"--private-key={key}"]
        command += ["--ssh-common-args", options, SCENARIO / playbook]
        command += [argument for variable in variables for argument in ("-e", variable)]
        roles = {"ANSIBLE_ROLES_PATH": str(SCENARIO.parents[1] / "roles"), "ANSIBLE_PIPELINING": "true"}
        both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.run(command, check=False, text=True, env={**os.environ, **roles}, **both)

    yield run
    shutil.rmtree(sockets)


def source(host) -> str:
    """The address that this host sees the controller under."""
    return host.check_output("ip -4 route show default").split()[2]


def test_whoever_shuts_himself_out_gets_back_in(host, address, play):
    before = host.check_output("ufw status numbered; sshd -T | sort")
    ran = play("change.yml", "rule=deny", f"source={source(host)}")
    assert ran.returncode != 0 and "does not get in any more" in ran.stdout, ran.stdout
    assert port_state(address, 22, 1) == "filtered", "else this test cut nothing"
    assert host.file(SETTING).exists
    wait_for(lambda: port_state(address, 22, 1) == "open", 100, "SSH again")
    wait_for(lambda: not host.file(ARMED).exists, 20, "the end of the restoring")
    assert host.check_output("ufw status numbered; sshd -T | sort") == before and not host.file(SETTING).exists
    assert play("converge.yml").returncode == 0


def test_a_change_that_lets_him_in_stays(host, address, play):
    ran = play("change.yml", "rule=allow", f"source={source(host)}")
    assert ran.returncode == 0, ran.stdout
    assert unit_properties(host, "nestbox-lockout-guard.timer")["ActiveState"] == "inactive"
    assert host.file(SETTING).exists and not host.file(ARMED).exists
    host.check_output("ufw delete 1 <<END\ny\nEND\nrm %s", SETTING)


def test_a_power_cut_before_the_confirmation_restores_too(host):
    host.check_output("nestbox-lockout-guard arm && ufw insert 1 deny 22/tcp && touch %s", SETTING)
    subprocess.run(["docker", "restart", "--time", "20", container_name(host)], check=True, capture_output=True)
    wait_for(lambda: host.run("systemctl is-system-running").stdout.strip() in ("running", "degraded"), 60, "start")
    wait_for(lambda: not host.file(ARMED).exists, 20, "the end of the restoring")
    assert not host.file(SETTING).exists and "DENY" not in host.check_output("ufw status")


def test_an_armed_guard_keeps_the_older_copy(host):
    host.check_output("nestbox-lockout-guard arm && ufw insert 1 deny 22/tcp && nestbox-lockout-guard arm")
    host.check_output("systemctl start nestbox-lockout-guard.service")
    assert "DENY" not in host.check_output("ufw status")
    assert host.run("nestbox-lockout-guard confirm").rc == 1, "there is nothing left to confirm"


def test_its_unit_is_confined(host):
    assert exposure(host, "nestbox-lockout-guard.service") <= 2.0

"""Role tls, mode own: the operator's chain is served, bad ones are refused before anything changes, the end is announced."""

import os
import subprocess
from pathlib import Path

from certificate import TLS, assert_trusted

testinfra_hosts = ["ansible://own"]
SCENARIO = Path(__file__).parents[1]
OWN = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "own")


def test_a_client_that_trusts_the_operators_authority_accepts_every_host(host):
    host.check_output("printf %s %s >/tmp/root.pem", "%s", OWN.joinpath("root.pem").read_text())
    assert_trusted(host, "/tmp/root.pem")
    assert not host.file(f"{TLS}/ca.pem").exists, "nobody should install an authority that issues nothing"


def test_a_certificate_that_ends_soon_fails_the_timers_unit(host):
    host.check_output("sed s/^renew_days=.*/renew_days=365/ /usr/local/sbin/nestbox-tls-renew >/tmp/late")
    late = host.run("sh /tmp/late")
    assert late.rc == 3 and "run the playbook with a new one" in late.stderr


def test_bad_certificates_are_refused_in_one_sentence_each():
    command = ["ansible-playbook", "-i", "localhost,", SCENARIO / "own.yml", "-e", f"directory={OWN}"]
    environment = {**os.environ, "ANSIBLE_ROLES_PATH": str(SCENARIO.parents[1] / "roles")}
    ran = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stdout

"""A run of the whole site that cannot end well says so in one sentence and leaves the appliance as it was."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from clients import DOMAIN
from conftest import container_name, converge

pytest_plugins = ["appliance"]

SITE = Path(__file__).resolve().parents[3] / "playbooks" / "site.yml"


def certificate(folder: Path, domain: str) -> dict[str, str]:
    """Settings of mode own, with a certificate that is made for another domain."""
    files = {"nestbox_tls_key": f"{folder}/key.pem", "nestbox_tls_certificate": f"{folder}/cert.pem"}
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        f"/CN={domain}",
    ]
    output = ["-keyout", files["nestbox_tls_key"], "-out", files["nestbox_tls_certificate"]]
    subprocess.run([*make, "-addext", f"subjectAltName=DNS:{domain}", *output], check=True, capture_output=True)
    return {"nestbox_tls_mode": "own", **files}


def site_refuses(host, **variables) -> str:
    """Run the site; fail unless it failed before it changed anything. Returns what it said."""
    done = converge(host, SITE, **variables)
    recap = re.search(rf"{container_name(host)} +: .*changed=(\d+) .*failed=(\d+)", done.stdout)
    assert done.returncode and recap and recap.groups() == ("0", "1"), done.stdout[-3000:]
    return " ".join(done.stdout.split())


@pytest.fixture(autouse=True)
def still_works(appliance):
    yield
    assert appliance.healthy()


def test_wrong_values_in_the_inventory(host):
    said = site_refuses(host, nestbox_domain="chat_room.test", nestbox_tls_mode="letsencrypt")
    assert 'nestbox_domain is "chat_room.test", which is no host name' in said
    assert 'nestbox_tls_mode is "letsencrypt": choose private_ca, own, acme.' in said


def test_a_certificate_for_another_domain(host, tmp_path):
    said = site_refuses(host, **certificate(tmp_path, "example.org"))
    assert f"cert.pem does not cover {DOMAIN}, rooms.{DOMAIN}, upload.{DOMAIN}, pubsub.{DOMAIN}." in said


def test_no_network_on_the_controller(host, tmp_path):
    said = site_refuses(host, offline=True, im_server_cache=str(tmp_path))
    assert "pip download failed on this machine (" in said and "set PIP_INDEX_URL to your mirror" in said

"""The checks on this machine: real certificates, a real disk, real programs."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nestbox.config import Config, Tls
from nestbox.ctl import checks
from nestbox.ctl.checks import certificate, disk, haproxy, host
from tests.ctl.conftest import Ctl
from tests.live.conftest import free_port


def make_certificate(folder: Path, days: int) -> Path:
    path = folder / f"{days}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", "/CN=nestbox.test", "-days", str(days), "-keyout", folder / "key.pem", "-out", path]
    subprocess.run(command, check=True, capture_output=True)
    return path


async def test_a_server_from_a_checkout_is_asked_only_what_applies(ctl: Ctl) -> None:
    state = json.loads((await ctl.run("status", "--json")).out)
    assert {one["check"] for one in state["checks"]} == {"worker 1", "disk"}
    assert state["problems"] == [one["what"] for one in state["checks"] if one["state"] == "fault"]


async def test_an_old_certificate_is_a_warning_and_a_cure_in_the_table(ctl: Ctl, tmp_path: Path) -> None:
    old = make_certificate(tmp_path, 1)  # of a day's life nearly all is left
    settings = {**ctl.settings, "tls": {"certificate": str(old), "key": str(tmp_path / "key.pem")}}
    ctl.config.write_text(json.dumps(settings))
    assert "Certificate  ok, good until " in (await ctl.run("status")).out
    old.write_text("not a certificate")
    table = (await ctl.run("status")).out
    assert "Certificate  warning" in table and f"-> See 'openssl x509 -in {old}'." in table


async def test_certificates_of_openssl_are_read(tmp_path: Path) -> None:
    path = make_certificate(tmp_path, 90)
    found = await certificate.check(Config("nestbox.test", tls=Tls(certificate=str(path), key="key")))
    assert [one.state for one in found] == ["ok"] and found[0].what.endswith("89 days")


async def test_the_disk_of_this_machine(tmp_path: Path) -> None:
    found = await disk.check(Config("nestbox.test", state_dir=str(tmp_path)))
    assert "GiB free" in found[0].what


async def test_a_check_that_breaks_hides_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = await checks.findings(Config("nestbox.test", state_dir=str(tmp_path / "none")))
    assert [(one.check, one.state) for one in found] == [("disk", "warning")] and "FileNotFound" in found[0].what


async def test_programs_that_fail_or_are_not_there_say_nothing() -> None:
    assert await host.command("echo", "well") == "well\n"
    assert await host.command("false") is None
    assert await host.command("/no/such/program") is None


CONFIG = """
defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
frontend fe_stats
    bind 127.0.0.1:{port}
    stats enable
    stats uri /stats
backend be_http
    server w1 unix@{folder}/w1.sock
    server w2 unix@{folder}/w2.sock disabled
"""


@pytest.fixture
def statistics(tmp_path: Path) -> Iterator[int]:
    """The port of a HAProxy's statistics: one worker up, one in maintenance."""
    port = free_port()
    file = tmp_path / "haproxy.cfg"
    file.write_text(CONFIG.format(port=port, folder=tmp_path))
    with subprocess.Popen(["haproxy", "-db", "-f", file], stderr=subprocess.DEVNULL) as process:
        wait_for_port(port)
        yield port
        process.terminate()


def wait_for_port(port: int) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.02)


async def test_haproxy_is_asked_over_its_port(monkeypatch: pytest.MonkeyPatch, statistics: int) -> None:
    monkeypatch.setattr(host, "appliance", lambda config: True)

    async def installed(names: list[str]) -> dict[str, dict[str, str]]:
        return {name: {} for name in names}

    monkeypatch.setattr(host, "units", installed)
    config = Config("nestbox.test")
    monkeypatch.setattr(haproxy, "_ADDRESS", ("127.0.0.1", statistics))
    assert [(one.state, one.what.split()[1]) for one in await haproxy.check(config)] == [("warning", "w2")]
    monkeypatch.setattr(haproxy, "_ADDRESS", ("127.0.0.1", 1))
    assert [one.state for one in await haproxy.check(config)] == ["fault"]


async def test_a_warning_is_no_problem(tmp_path: Path) -> None:
    ctl = Ctl(tmp_path, uploads={"min_free_bytes": 10**18})
    await ctl.ok("migrate")
    state = json.loads((await ctl.run("status", "--json")).out)
    warning = next(one for one in state["checks"] if one["check"] == "disk")
    assert warning["state"] == "warning" and warning["cure"] and warning["what"] not in state["problems"]

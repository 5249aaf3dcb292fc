"""The appliance as a stranger on the network sees it, and what a killed worker, a rolling restart and a reboot leave of a chat."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from appliance import starting_alone
from clients import DOMAIN
from conftest import container_name, converge, port_state, wait_for
from tornado.httpclient import HTTPClientError
from tornado.websocket import WebSocketClosedError

pytest_plugins = ["appliance"]

OPEN = {22, 80, 443, 5222, 5223}
# What listens inside, may listen one day, or is often left open.
SHUT = {*range(1, 1200), 3306, 5269, 5280, 6379, 8402, 8404, 8080, 9090, 9100, 9151, 9152} - OPEN


def test_only_the_ports_of_the_design_answer(host, address):
    host.run(
        "systemd-run --unit=forgotten python3 -m http.server 8080"
    )  # something is there, and still nothing answers
    try:
        wait_for(lambda: host.socket("tcp://0.0.0.0:8080").is_listening, 20, "a forgotten service")
        ports = sorted(OPEN | SHUT)
        with ThreadPoolExecutor(200) as pool:
            states = dict(zip(ports, pool.map(lambda port: port_state(address, port, 3), ports), strict=True))
    finally:
        host.run("systemctl stop forgotten")
    assert {port for port, state in states.items() if state == "open"} == OPEN
    assert {states[port] for port in SHUT} == {"filtered"}


@pytest.mark.parametrize("name", [DOMAIN, f"rooms.{DOMAIN}", f"upload.{DOMAIN}", f"pubsub.{DOMAIN}"])
@pytest.mark.parametrize("port", [443, 5223])
def test_certificate_covers_every_name(appliance, name, port):
    context = ssl.create_default_context(cafile=appliance.ca)
    with (
        socket.create_connection((appliance.address, port), 10) as plain,
        context.wrap_socket(plain, server_hostname=name) as tls,
    ):
        assert tls.version() in {"TLSv1.2", "TLSv1.3"}


def test_http_leads_to_https(host):
    head = host.check_output(
        f"curl -s -o /dev/null -w '%{{http_code}} %{{redirect_url}}' -H 'Host: {DOMAIN}' http://127.0.0.1/"
    )
    code, url = head.split()
    assert code in {"301", "308"} and url == f"https://{DOMAIN}/"


def test_administrator_got_a_random_password_and_can_log_in(host, appliance):
    file = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "passwords", container_name(host), "admin")
    assert file.stat().st_mode & 0o777 == 0o600
    appliance.passwords["admin"] = file.read_text().strip()
    assert len(appliance.passwords["admin"]) >= 16

    async def log_in() -> None:
        async with appliance.tcp("admin") as admin:
            await admin.plugin["xep_0199"].send_ping(DOMAIN)

    asyncio.run(log_in())


def test_one_role_runs_alone(host):
    """`--tags web_client`, as the README says, though other roles did not look at the host."""
    done = converge(host, Path(__file__).parents[3] / "playbooks" / "site.yml", tags="web_client")
    assert done.returncode == 0 and "changed=0" in done.stdout, done.stdout[-2000:]


def test_self_check_is_good_and_can_be_bad(host, appliance):
    assert appliance.healthy()
    host.check_output("systemctl stop nestbox@2")
    try:
        assert not appliance.healthy()
    finally:
        host.check_output("systemctl start nestbox@2")
    wait_for(appliance.healthy, 60, "a good self-check")


def test_a_killed_worker_takes_nobody_else_down(host, appliance):
    async def chat() -> None:
        async with appliance.on_each_worker("ada") as ada:
            pid = host.check_output("systemctl show --value --property=MainPID nestbox@1")
            host.check_output(f"kill -9 {pid}")
            # HAProxy sends the newcomer to the worker that is left, whose sessions never noticed.
            async with appliance.websocket("eve") as eve:
                await eve.send(
                    f'<message xmlns="jabber:client" to="{ada[2].boundjid.full}" type="chat"><body>still here?</body></message>'
                )
                assert await ada[2].text() == (f"eve@{DOMAIN}", "still here?")

    asyncio.run(chat())
    wait_for(appliance.healthy, 60, "the worker again")


def test_rolling_restart_is_never_away(host, appliance):
    """At every moment of a restart of all workers somebody logs in, at the second try at the latest."""

    async def log_in(number: int) -> None:
        async with appliance.websocket("ada", f"n{number}"):
            pass

    async def chat() -> int:
        restart = await asyncio.create_subprocess_exec(
            "docker", "exec", container_name(host), "nestbox-rolling-restart", "--all", stdout=subprocess.PIPE
        )
        said, logins = asyncio.create_task(restart.communicate()), 0
        while not said.done():
            try:
                await log_in(logins)
            except (
                AssertionError,
                OSError,
                HTTPClientError,
                WebSocketClosedError,
            ):  # it was on the worker that stopped just then, and comes back as an app does
                await log_in(logins)
            logins += 1
        lines = (await said)[0].decode().splitlines()
        assert restart.returncode == 0 and lines == ["worker 1 restarted", "worker 2 restarted"]
        return logins

    assert asyncio.run(chat()) > 3
    wait_for(appliance.healthy, 30, "a good self-check")


def test_a_reboot_brings_all_back_with_its_messages(host, appliance):
    async def write() -> None:
        async with appliance.tcp("ada") as ada:
            ada.send_message(f"bob@{DOMAIN}", "before the reboot", mtype="chat")
            await ada.plugin["xep_0199"].send_ping(DOMAIN)

    async def read() -> None:
        async with appliance.tcp("bob", 5223) as bob:
            bob.send_presence()
            assert await bob.text() == (f"ada@{DOMAIN}", "before the reboot")

    asyncio.run(write())
    with starting_alone():
        subprocess.run(["docker", "restart", "--time", "60", container_name(host)], check=True, capture_output=True)
    wait_for(appliance.healthy, 120, "a good self-check after the reboot")
    assert host.check_output("systemctl list-units --failed --plain --no-legend") == ""
    wait_for(lambda: port_state(appliance.address, 5223) == "open", 30, "port 5223")
    asyncio.run(read())

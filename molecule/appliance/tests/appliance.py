"""A pytest plugin: what the appliance's tests share (accounts, the CA, where each session lives)."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from clients import Bosh, Tcp, WebSocket
from conftest import container_name


class Appliance:
    """The appliance as its users see it: an address, a CA, accounts; and nestboxctl where a test must know more."""

    def __init__(self, host, ca: Path, passwords: dict[str, str]) -> None:
        self.host, self.ca, self.passwords = host, ca, passwords

    @property
    def address(self) -> str:
        """Asked each time: a restart may change it."""
        template = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        command = ["docker", "inspect", "-f", template, container_name(self.host)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]

    def tcp(self, user: str, port: int = 5222, resource: str = "test") -> Tcp:
        return Tcp(user, self.passwords[user], self.address, self.ca, port, resource)

    def websocket(self, user: str, resource: str = "socket") -> WebSocket:
        return WebSocket(user, self.passwords[user], self.address, self.ca, resource)

    def bosh(self, user: str, resource: str = "bosh") -> Bosh:
        return Bosh(user, self.passwords[user], self.address, self.ca, resource)

    @asynccontextmanager
    async def on_each_worker(self, user: str) -> AsyncIterator[dict[int, Tcp]]:
        """Sessions of one account, by the worker that they are on: as many as it takes to be on both."""
        async with AsyncExitStack() as stack:
            sessions: dict[int, Tcp] = {}
            for number in range(8):
                client = await stack.enter_async_context(self.tcp(user, resource=f"r{number}"))
                client.send_presence()
                sessions.setdefault(self.workers()[client.boundjid.full], client)
                if len(sessions) == 2:
                    yield sessions
                    return
            raise AssertionError("eight sessions of one account are all on one worker")

    def workers(self) -> dict[str, int]:
        """The worker of each session, by its full address."""
        return {
            entry["jid"]: entry["worker"]
            for entry in json.loads(self.host.check_output("nestboxctl session list --json"))
        }

    def healthy(self) -> bool:
        return self.host.run("nestboxctl status --json").rc == 0


@contextmanager
def starting_alone() -> Iterator[None]:
    """Around the start of a container, as the hosts are looked at side by side: at once they could swap their addresses."""
    with open(Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "starting.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def appliance(host, tmp_path_factory) -> Appliance:
    """The appliance with fresh accounts ada, bob and eve."""
    passwords = {name: secrets.token_urlsafe(12) for name in ("ada", "bob", "eve")}
    for name, password in passwords.items():
        host.run(f"nestboxctl user delete {name} --yes")
        host.check_output(f"echo {password} | nestboxctl user add {name} --password-stdin")
    ca = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.write_text(host.file("/etc/nestbox/tls/ca.pem").content_string)
    return Appliance(host, ca, passwords)

"""A pytest plugin: what the appliance's tests share (accounts, the CA, where each session lives)."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest
from clients import Tcp, WebSocket


class Appliance:
    """The appliance as its users see it: an address, a CA, accounts; and nestboxctl where a test must know more."""

    def __init__(self, host, address: str, ca: Path, passwords: dict[str, str]) -> None:
        self.host, self.address, self.ca, self.passwords = host, address, ca, passwords

    def tcp(self, user: str, port: int = 5222, resource: str = "test") -> Tcp:
        return Tcp(user, self.passwords[user], self.address, self.ca, port, resource)

    def websocket(self, user: str, resource: str = "socket") -> WebSocket:
        return WebSocket(user, self.passwords[user], self.address, self.ca, resource)

    def workers(self) -> dict[str, int]:
        """The worker of each session, by its full address."""
        return {
            entry["jid"]: entry["worker"]
            for entry in json.loads(self.host.check_output("nestboxctl session list --json"))
        }

    def healthy(self) -> bool:
        return self.host.run("nestboxctl status --json").rc == 0


@pytest.fixture
def appliance(host, address, tmp_path) -> Appliance:
    """The appliance with fresh accounts ada, bob and eve."""
    passwords = {name: secrets.token_urlsafe(12) for name in ("ada", "bob", "eve")}
    for name, password in passwords.items():
        host.run(f"nestboxctl user delete {name} --yes")
        host.check_output(f"echo {password} | nestboxctl user add {name} --password-stdin")
    ca = tmp_path / "ca.pem"
    ca.write_text(host.file("/etc/nestbox/tls/ca.pem").content_string)
    return Appliance(host, address, ca, passwords)

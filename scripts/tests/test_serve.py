"""`make serve`: the IM server alone answers a browser and an XMPP app, and keeps its account from one start to the next."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from machine import NETWORK, ROOT, Machine

# Logs in twice as slixmpp does: STARTTLS, SCRAM, a ping to the server.
CLIENT = """
import asyncio, ssl, sys
import slixmpp
async def main():
    client = slixmpp.ClientXMPP("ada@localhost", sys.argv[1])
    client.register_plugin("xep_0199")
    client.ca_certs = sys.argv[2]
    started = client.wait_until("session_start", 20)
    client.connect("127.0.0.1", 5222)
    await started
    await client.plugin["xep_0199"].send_ping("localhost", timeout=10)
    print(client.boundjid.bare, client.transport.get_extra_info("cipher")[1])
    await client.disconnect()
asyncio.run(main())
"""


class Serve:
    """The running command, and a way into the network that it has to itself."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.log = machine.root.parent / "serve.log"
        command = [*NETWORK, "sh", "-c", 'ip link set lo up; exec "$@"', "sh", sys.executable, "scripts/serve.py"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=machine.root, stdout=log, stderr=log)

    def inside(self, *command: str) -> subprocess.CompletedProcess:
        user = ["--user", "--preserve-credentials"] if os.getuid() else []
        enter = ["nsenter", f"--target={self.process.pid}", "--net", *user]
        return subprocess.run([*enter, *command], capture_output=True, text=True, timeout=60, check=False)

    def answer(self) -> str:
        """The web chat's page, once the server answers."""
        deadline = time.monotonic() + 60
        while True:
            page = self.inside("curl", "--silent", "--fail", "http://localhost:5280/")
            if page.returncode == 0:
                return page.stdout
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(30)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine that has the Python packages and the web chat already; both come from the network."""
    fetch = [sys.executable, ROOT / "scripts" / "web_chat.py", tmp_path / "web", "localhost"]
    subprocess.run(fetch, check=True)
    machine = Machine(tmp_path)
    for name in (".venv", ".cache"):
        (machine.root / name).symlink_to(ROOT / name)
    return machine


def test_a_browser_and_an_app_are_served_and_a_second_start_finds_the_same_account(machine):
    for _ in range(2):
        serve = Serve(machine)
        try:
            assert "<title>Nestbox</title>" in serve.answer()
            said = serve.log.read_text()
            password = (machine.root / ".serve" / "password").read_text()
            assert "http://localhost:5280/" in said and "ada@localhost" in said and password in said
            app = serve.inside(sys.executable, "-c", CLIENT, password, str(machine.root / ".serve" / "cert.pem"))
            assert app.stdout.split() == ["ada@localhost", "TLSv1.3"], app.stdout + app.stderr
        finally:
            assert serve.stop() == 0
    assert (machine.root / ".serve").stat().st_mode & 0o777 == 0o700

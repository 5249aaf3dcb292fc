"""An appliance as `capacity.py` reaches it: its addresses, test accounts made over SSH, and figures of the machine.

Nothing is installed there: the accounts come and go by ``nestboxctl``, the figures are read by a Python script that SSH
feeds to the machine's own interpreter.
"""

from __future__ import annotations

import asyncio
import atexit
import base64
import contextlib
import hashlib
import hmac
import ipaddress
import json
import os
import shlex
import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

__all__ = ["PREFIX", "Accounts", "Appliance", "Unreachable", "find", "samples"]

ROOT = Path(__file__).resolve().parents[1]
PREFIX = "capacity-test-"
ITERATIONS = 4096
# Runs on the appliance, as root: one line of JSON each second, everything counted since start.
SAMPLER = r"""
import json, os, re, sys, time, urllib.request
tick = os.sysconf("SC_CLK_TCK")
def read(path):
    with open(path) as file:
        return file.read()
def service(pid):
    unit = read(f"/proc/{pid}/cgroup").rpartition("/")[2].strip()
    return re.sub(r"^nestbox@", "worker ", unit).removesuffix(".service").removesuffix("-server")
def lag(text):
    found = {}
    for line in text.splitlines():
        if line.startswith("nestbox_event_loop_lag_seconds_bucket"):
            found[re.search('le="([^"]+)"', line)[1]] = float(line.split()[-1])
    return found
turn = 0
while True:
    cpu = [int(field) for field in read("/proc/stat").split("\n", 1)[0].split()[1:9]]
    memory = {line.split(":")[0]: int(line.split()[1]) for line in read("/proc/meminfo").splitlines() if line.startswith("Mem")}
    services = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            name = service(pid)
            if not re.match("worker |haproxy|mariadb|valkey|redis", name):
                continue
            fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
            entry = services.setdefault(name, {"cpu": 0.0, "pss": 0})
            entry["cpu"] += (int(fields[11]) + int(fields[12])) / tick
            if turn % 5 == 0:  # costs the kernel a walk through the process's memory
                entry["pss"] += int(re.search(r"^Pss:\s+(\d+)", read(f"/proc/{pid}/smaps_rollup"), re.M)[1])
        except (OSError, TypeError, IndexError):
            pass
    lags, worker = [], 1
    while True:
        try:
            lags.append(lag(urllib.request.urlopen(f"http://127.0.0.1:915{worker}/metrics", timeout=2).read().decode()))
        except OSError:
            break
        worker += 1
    print(json.dumps({"time": time.time(), "idle": (cpu[3] + cpu[4]) / tick, "busy": (sum(cpu) - cpu[3] - cpu[4]) / tick,
                      "total_kib": memory["MemTotal"], "available_kib": memory["MemAvailable"],
                      "cores": os.cpu_count(), "services": services, "lags": lags, "whole": turn % 5 == 0}), flush=True)
    turn += 1
    time.sleep(1)
"""


class Unreachable(Exception):
    """The appliance or something on it cannot be reached; says why, for the operator."""


@dataclass(slots=True)
class Appliance:
    """Where to connect to, and how ``ssh`` is called; ``name`` is what the report calls it."""

    name: str
    host: str
    ssh: list[str]
    https_port: int = 443
    tls_port: int = 5223
    domain: str = ""
    max_connections: int = 0
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)

    def run(self, command: str, stdin: str = "") -> str:
        """What a shell command printed there. Raises Unreachable with its last line when it failed."""
        # Not in our process group: Ctrl-C must not end the deletion of the accounts.
        done = subprocess.run(
            [*self.ssh, command], input=stdin, capture_output=True, text=True, check=False, start_new_session=True
        )
        if done.returncode:
            reason = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
            raise Unreachable(f"'{command[:60]}' failed on {self.name}: {reason}")
        return done.stdout

    def look(self, ca_file: str) -> None:
        """Learn its domain, its limit and whom to trust: ``ca_file``, else its own CA if it has one, else the system."""
        config = yaml.safe_load(self.run("sudo cat /etc/nestbox/nestbox.yml"))
        self.domain = config["domain"]
        self.max_connections = config["limits"]["connections"]
        if ca_file:
            self.tls = ssl.create_default_context(cafile=ca_file)
        elif own := self.run("sudo cat /etc/nestbox/tls/ca.pem 2>/dev/null || :"):
            self.tls = ssl.create_default_context(cadata=own)

    @property
    def shares_this_machine(self) -> bool:
        """Whether its cores are ours, too, as the demo's are."""
        return ipaddress.ip_address(socket.gethostbyname(self.host)).is_loopback


def find(host: str, inventory: str, ssh_options: list[str]) -> Appliance:
    """The demo when ``host`` is empty, else a host of the inventory, else an address. Raises Unreachable."""
    # One connection for all: an appliance lets nobody connect to SSH again and again.
    sockets = tempfile.mkdtemp(prefix="capacity.")
    atexit.register(shutil.rmtree, sockets, ignore_errors=True)
    options = ["-o", "ConnectTimeout=30", "-o", "BatchMode=yes", "-o", "ControlMaster=auto", "-o", "ControlPersist=60"]
    options += ["-o", f"ControlPath={sockets}/%C", *ssh_options]
    if not host:
        try:
            access = json.loads((ROOT / ".demo" / "access.json").read_text())
        except FileNotFoundError:
            raise Unreachable(
                "there is no demo: 'make demo' builds one, or name a host: make capacity HOST=..."
            ) from None
        there = access["ssh"]
        known = f"UserKnownHostsFile={ROOT / '.demo' / 'known_hosts'}"
        command = ["ssh", *options, "-i", there["key_file"], "-p", str(there["port"]), "-o", known]
        command += ["-o", "StrictHostKeyChecking=accept-new", f"{there['user']}@{there['host']}"]
        https = int(access["https_url"].rpartition(":")[2])
        return Appliance("the demo", access["host"], command, https, access["c2s_tls_port"])
    entry = _inventory_entry(host, inventory)
    address = entry.get("ansible_host", host)
    if "ansible_port" in entry:
        options += ["-p", str(entry["ansible_port"])]
    if "ansible_ssh_private_key_file" in entry:
        options += ["-i", entry["ansible_ssh_private_key_file"]]
    options += shlex.split(entry.get("ansible_ssh_common_args", ""))
    user = f"{entry['ansible_user']}@" if "ansible_user" in entry else ""
    return Appliance(host, address, ["ssh", *options, f"{user}{address}"])


def _inventory_entry(host: str, inventory: str) -> dict[str, str]:
    """The variables of a host, {} when the inventory is not there or does not know it."""
    if not Path(inventory).exists():
        return {}
    command = [ROOT / ".venv" / "bin" / "ansible-inventory", "-i", inventory, "--host", host]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return json.loads(done.stdout) if done.returncode == 0 else {}


class Accounts:
    """The test accounts, capacity-test-0 and so on, with one random password."""

    def __init__(self, appliance: Appliance) -> None:
        self._appliance = appliance
        self.password = base64.b64encode(os.urandom(18)).decode()
        self._keys = _scram_keys(self.password)
        self.names: list[str] = []

    def add(self, count: int) -> list[str]:
        """Make some more and return their names. The keys are made here, so that the appliance need not."""
        new = [f"{PREFIX}{number}" for number in range(len(self.names), len(self.names) + count)]
        head = "username,enabled,SCRAM-SHA-1,SCRAM-SHA-256,SCRAM-SHA-512\n"
        self._appliance.run(
            "sudo nestboxctl user import -", head + "".join(f"{name},yes,{self._keys},,\n" for name in new)
        )
        self.names += new
        return new

    def delete_all(self) -> int:
        """Erase every account with our prefix, also those that an earlier run left behind; returns how many."""
        listed = json.loads(self._appliance.run("sudo nestboxctl user list --json"))
        names = [user["username"] for user in listed if user["username"].startswith(PREFIX)]
        if names:
            self._appliance.run("xargs -n 500 sudo nestboxctl user delete --yes", "\n".join(names))
        self.names = []
        return len(names)


def _scram_keys(password: str) -> str:
    """SCRAM-SHA-1's keys as 'nestboxctl user import' reads them (RFC 5803)."""
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha1", password.encode(), salt, ITERATIONS)
    stored = hashlib.sha1(hmac.digest(salted, b"Client Key", "sha1")).digest()
    server = hmac.digest(salted, b"Server Key", "sha1")
    salt_, stored_, server_ = (base64.b64encode(value).decode() for value in (salt, stored, server))
    return f"SCRAM-SHA-1${ITERATIONS}:{salt_}${stored_}:{server_}"


@contextlib.asynccontextmanager
async def samples(appliance: Appliance) -> AsyncIterator[list[dict]]:
    """A list that grows by one sample of the appliance a second, for as long as the context lasts."""
    taken: list[dict] = []
    with tempfile.TemporaryFile() as script:
        script.write(SAMPLER.encode())
        script.seek(0)
        process = await asyncio.create_subprocess_exec(
            *appliance.ssh,
            "sudo python3 -u -",
            stdin=script,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=2**20,
            start_new_session=True,
        )

    async def collect() -> None:
        async for line in process.stdout:
            taken.append(json.loads(line))

    reader = asyncio.create_task(collect())
    try:
        async with asyncio.timeout(30):
            while not taken and not reader.done():
                await asyncio.sleep(0.1)
        if not taken:
            raise Unreachable(f"{appliance.name} gives no figures: is there Python 3, and may the account use sudo?")
        yield taken
    finally:
        process.terminate()
        await process.wait()
        reader.cancel()

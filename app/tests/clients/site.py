"""A whole server as clients meet it: four workers on one bus and one database, HAProxy with TLS before them."""

from __future__ import annotations

import itertools
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from nestbox.store import open_store
from nestbox.store.roster import RosterItem
from tests.databases import Valkey
from tests.live.conftest import DOMAIN, PASSWORD, SECRET, Worker, free_port

__all__ = ["DOMAIN", "PASSWORD", "SECRET", "Site", "both_databases", "make_certificate"]

# Where what is stored matters, a test runs on both; the others run on MariaDB, as on the appliance.
both_databases = pytest.mark.parametrize("site", ["sqlite", "mariadb"], indirect=True)

WORKERS = 4
NAMES = ("anna", "ben", "cleo")
COMPONENTS = (f"bot.{DOMAIN}", f"push.{DOMAIN}")
# As on the appliance (role haproxy): TLS ends here, each new connection goes to the next worker.
HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
    balance roundrobin
frontend https
    bind fd@{https} ssl crt {folder}/haproxy.pem
    http-request set-header X-Forwarded-Proto https
    default_backend workers
frontend c2s_tls
    mode tcp
    bind fd@{c2s_tls} ssl crt {folder}/haproxy.pem alpn xmpp-client
    default_backend c2s_tls
backend workers
{http_servers}
backend c2s_tls
    mode tcp
{tls_servers}
"""


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for the domain, its hosts and this machine, signed by itself, and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    options = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = f"subjectAltName=DNS:{DOMAIN},DNS:*.{DOMAIN},IP:127.0.0.1"
    command = ["openssl", "req", *options.split(), "-subj", f"/CN={DOMAIN}", "-addext", names]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


class Site:
    """Its addresses, and accounts on it.

    ``site[n].port`` is worker n with STARTTLS; ``https`` and ``c2s_tls`` are ports of HAProxy; ``log`` has what all
    workers said. ``web`` is the folder of the web chat.
    """

    def __init__(
        self, folder: Path, database: str, certificate: Path, key: Path, web: Path | None, workers: int = WORKERS
    ) -> None:
        self.database = database
        self.certificate = certificate
        self.log = folder / "log"
        # HAProxy inherits them bound, so that nobody else takes the ports meanwhile.
        self._sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self.https, self.c2s_tls = (listener.getsockname()[1] for listener in self._sockets)
        self.url = f"https://127.0.0.1:{self.https}"
        self.websocket = f"wss://127.0.0.1:{self.https}/xmpp-websocket"
        self.bosh = f"{self.url}/http-bind"
        self._folder = folder
        self._numbers = itertools.count(1)
        self._valkey: Valkey | None = None
        self._haproxy: subprocess.Popen[bytes] | None = None
        self.workers = []
        for number in range(1, workers + 1):
            port, metrics, component = free_port(), free_port(), free_port()
            config = folder / f"worker-{number}.yml"
            listen = {name: f"unix:{folder}/{number}-{name}.sock" for name in ("http", "c2s_tls")}
            listen |= {"c2s": f"127.0.0.1:{port}", "metrics": f"127.0.0.1:{metrics}", "proxy_protocol": False}
            listen["component"] = f"127.0.0.1:{component}"
            settings = {
                "domain": DOMAIN,
                "workers": workers,
                "state_dir": str(folder),
                "database": {"url": database},
                "bus": {"url": f"unix://{folder}/bus.sock"},
                "tls": {"certificate": str(certificate), "key": str(key)},
                "listen": listen,
                "components": [{"host": host, "secret": SECRET} for host in COMPONENTS],
                "web": {"https_url": self.url, "root": str(web) if web else None},
            }
            config.write_text(yaml.safe_dump(settings))
            self.workers.append(Worker(number, config, port, metrics, self.log, component))
        (folder / "haproxy.pem").write_text(certificate.read_text() + key.read_text())

    def __getitem__(self, number: int) -> Worker:
        return self.workers[number - 1]

    async def prepare(self) -> None:
        """Make the tables."""
        store = await open_store(self.database)
        await store.migrate()
        await store.accounts.create("template", PASSWORD)
        await store.close()

    def start(self) -> None:
        """Start all and wait until it answers."""
        self._valkey = Valkey(self._folder)
        for worker in self.workers:
            worker.start()
        servers = {
            name: "\n".join(
                f"    server w{n} unix@{self._folder}/{n}-{name}.sock" for n in range(1, len(self.workers) + 1)
            )
            for name in ("http", "c2s_tls")
        }
        files = [listener.fileno() for listener in self._sockets]
        config = self._folder / "haproxy.cfg"
        config.write_text(
            HAPROXY.format(
                https=files[0],
                c2s_tls=files[1],
                folder=self._folder,
                http_servers=servers["http"],
                tls_servers=servers["c2s_tls"],
            )
        )
        haproxy = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin")
        if haproxy is None:
            raise RuntimeError("The tests with other people's clients need HAProxy; the distribution has it.")
        with (self._folder / "haproxy.log").open("ab") as log:
            self._haproxy = subprocess.Popen([haproxy, "-db", "-f", config], stdout=log, stderr=log, pass_fds=files)
        for listener in self._sockets:
            listener.close()
        context = ssl.create_default_context(cafile=self.certificate)
        deadline = time.monotonic() + 20
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/healthz", timeout=5, context=context).close()
                return
            except (urllib.error.URLError, OSError):
                if self._haproxy.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def stop(self) -> None:
        """End all."""
        if self._haproxy is not None:
            self._haproxy.terminate()
            self._haproxy.wait(20)
        for worker in self.workers:
            worker.end()
        if self._valkey is not None:
            self._valkey.stop()

    async def accounts(self) -> list[str]:
        """New accounts for a test, called after `NAMES`; the password is `PASSWORD`."""
        number = next(self._numbers)
        names = [f"{name}{number}" for name in NAMES]
        store = await open_store(self.database)
        keys = (await store.accounts.get("template")).keys  # SCRAM keys take time to make
        await store.accounts.create_many([(name, keys) for name in names])
        await store.close()
        return names

    async def befriend(self, one: str, other: str) -> None:
        """Put two accounts that have not logged in yet into each other's roster."""
        store = await open_store(self.database)
        for name, contact in ((one, other), (other, one)):
            account = await store.accounts.get(name)
            await store.roster.put(account.id, RosterItem(f"{contact}@{DOMAIN}", subscription="both"))
        await store.close()

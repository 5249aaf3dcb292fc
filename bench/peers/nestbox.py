"""Nestbox as the appliance runs it: workers, with MariaDB and Valkey where the archive is there, HAProxy for TLS.

The worker runs beside the benchmark, not in a container.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from nestbox.store import Store, open_store
from nestbox.store.schema import roster
from sqlalchemy import insert

from peers import DOMAIN, PASSWORD, Server, claim, favour, listens, users, wait_for
from peers.container import certificate

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "app" / "tests"))
from databases import MariaDB, Valkey

__all__ = ["CONTACTS", "SETTINGS", "create_accounts", "start"]

CONTACTS = 200
SETTINGS = (
    "Nestbox: all modules; log level warning; passwords as SCRAM keys; archive 'off' and 'sqlite' with the accounts in SQLite, "
    "'mariadb' with all in MariaDB (innodb_flush_log_at_trx_commit=1) and Valkey as the bus; durable for each message, by "
    "group commit; limits as shipped (a rate limit there is none)"
)
PORTS = {"tcp": 17222, "tls": 17223, "websocket": 17280}


async def create_accounts(url: str, count: int, sociable: int = 0) -> None:
    """Fill an empty database; all have the same password and keys, which saves minutes.

    ``sociable`` more accounts, named t0, t1 ..., have full rosters.
    """
    store = await open_store(url)
    await store.migrate()
    await store.accounts.create("first", PASSWORD)
    keys = (await store.accounts.get("first")).keys
    await store.accounts.create_many([(user, keys) for user in users(count) + users(sociable, "t")])
    for name in users(sociable, "t"):
        await _fill_roster(store, name)
    await store.close()


async def _fill_roster(store: Store, name: str) -> None:
    """Contacts subscribed both ways; whose rosters do not matter here."""
    account = await store.accounts.get(name)
    rows = [
        {
            "user_id": account.id,
            "jid": f"{contact}@{DOMAIN}",
            "name": f"Contact {contact}".encode(),
            "subscription": "both",
            "ask": False,
            "approved": False,
            "groups_json": b'["Friends"]',
            "ver": 1,
        }
        for contact in users(CONTACTS)
    ]
    async with store.database.write() as connection:
        await connection.execute(insert(roster), rows)


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """End a process that we started, whatever happens."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def start(
    folder: Path,
    accounts: int,
    *,
    archive: str,
    transport: str,
    core: int | None = None,
    workers: int = 1,
    sociable: int = 0,
    program: Sequence[str] = ("-m", "nestbox"),
) -> Iterator[Server]:
    """Workers with ``accounts`` accounts; ``archive`` is 'off', 'sqlite' or 'mariadb', ``program`` is what Python runs.

    One worker listens on loopback, several on Unix sockets as behind HAProxy (``addresses``).
    """
    claim(PORTS)
    with contextlib.ExitStack() as stack:
        processes: dict[str, list[int]] = {"worker": []}
        url, bus = f"sqlite:///{folder}/nestbox.db", "local"
        if archive == "mariadb" or workers > 1:
            for name in ("m", "v"):
                (folder / name).mkdir()
            database, valkey = MariaDB(folder / "m"), Valkey(folder / "v")
            stack.callback(database.stop)
            stack.callback(valkey.stop)
            url, bus = database.create(), valkey.url
            processes |= {"MariaDB": [database.pid], "Valkey": [valkey.pid]}
        asyncio.run(create_accounts(url, accounts, sociable))
        sockets = workers > 1 or transport == "tls"
        listen = {"http": "", "c2s": "", "c2s_tls": "", "metrics": "", "component": ""}
        listener = "http" if transport == "websocket" else "c2s_tls" if sockets else "c2s"
        listen[listener] = f"unix:{folder}/{{worker}}.sock" if sockets else f"127.0.0.1:{PORTS[transport]}"
        config = folder / "nestbox.yml"
        config.write_text(
            f"domain: {DOMAIN}\nstate_dir: {folder}\nworkers: {workers}\ndatabase: {{url: '{url}'}}\nbus: {{url: '{bus}'}}\n"
            f"archive: {{enabled: {str(archive != 'off').lower()}}}\ntls: {{require: false}}\nlog: {{level: warning}}\n"
            f"listen: {{proxy_protocol: {str(sockets).lower()}, {', '.join(f'{a}: {b!r}' for a, b in listen.items())}}}\n"
        )
        for number in range(1, workers + 1):
            worker = subprocess.Popen([sys.executable, *program, "--worker", str(number), "--config", config])
            processes["worker"].append(stack.enter_context(ended(worker)).pid)
            if sockets:
                wait_for((folder / f"{number}.sock").exists, "the worker's socket")
        if not sockets:
            wait_for(lambda: listens(PORTS[transport]), "the worker's listening")
        proxy = sockets and transport == "tcp"
        server = Server(f"127.0.0.1:{PORTS[transport]}", transport, processes, proxy)
        server.addresses = [f"unix:{folder}/{number}.sock" for number in range(1, workers + 1)]
        if transport == "tls":
            processes["HAProxy"] = [stack.enter_context(ended(_haproxy(folder, server.addresses))).pid]
            wait_for(lambda: listens(PORTS["tls"]), "HAProxy's listening")
        if core is not None:
            for name in ("worker", "HAProxy"):  # the database's threads would spin against each other in real time
                favour(processes.get(name, ()), core)
        yield server


def _haproxy(folder: Path, workers: list[str]) -> subprocess.Popen[bytes]:
    """HAProxy in front of the workers as the role haproxy sets it up, on one thread."""
    certificate(folder)
    servers = "".join(
        f" server w{n} unix@{a[5:]} send-proxy-v2 proxy-v2-options ssl,authority,unique-id\n"
        for n, a in enumerate(workers)
    )
    (folder / "haproxy.cfg").write_text(
        "global\n maxconn 9000\n nbthread 1\n ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets\n tune.ssl.keylog on\n"
        "defaults\n mode tcp\n maxconn 9000\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n timeout tunnel 1h\n"
        f"listen c2s\n bind 127.0.0.1:{PORTS['tls']} ssl crt {folder}/both.pem alpn xmpp-client\n"
        " tcp-request session set-var(sess.binding) ssl_fc_exporter_secret if { ssl_fc_protocol TLSv1.3 }\n"
        f" unique-id-format %[var(sess.binding)]\n balance leastconn\n{servers}"
    )
    return subprocess.Popen(["haproxy", "-db", "-f", folder / "haproxy.cfg"], stdout=subprocess.DEVNULL)

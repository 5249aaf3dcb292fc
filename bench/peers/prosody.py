"""Prosody of Ubuntu 24.04, as the package ships it but for what a load test needs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from peers import DOMAIN, ITERATIONS, SALT, Server, claim, container, listens, scram_keys, users, wait_for

__all__ = ["PACKAGES", "SETTINGS", "start"]

SETTINGS = (
    "Prosody: the modules of the package's configuration, without those for administrators and invitations; limits off (the "
    "module, too), no s2s; garbage collector generational; network backend epoll; log level warn; passwords as SCRAM-SHA-1 "
    "keys in files; archive 'own' is mod_mam in files, 'sqlite' is mod_mam in SQLite, both expire 'never'"
)
PACKAGES = ("prosody", "lua5.4")
PORTS = {"tcp": 19222, "tls": 19223, "websocket": 19280}
MODULES = (
    "disco roster saslauth blocklist bookmarks carbons pep private smacks vcard4 vcard_legacy csi_simple ping time uptime "
    "version tls websocket"
)


@contextlib.contextmanager
def start(folder: Path, accounts: int, *, archive: str, transport: str, core: int) -> Iterator[Server]:
    """One server with ``accounts`` accounts; ``archive`` is 'off', 'own' or 'sqlite'."""
    claim(PORTS)
    container.certificate(folder)
    (folder / "prosody.cfg.lua").write_text(_configuration(archive))
    kept = folder / "data" / DOMAIN.replace(".", "%2e") / "accounts"
    kept.mkdir(parents=True)
    stored, server = (key.hex() for key in scram_keys())
    account = (
        f'return {{ ["stored_key"] = "{stored}"; ["server_key"] = "{server}"; ["salt"] = "{SALT.decode()}"; '
        f'["iteration_count"] = {ITERATIONS}; }};\n'
    )
    for user in users(accounts):
        (kept / f"{user}.dat").write_text(account)
    command = ("prosody", "--config", f"{container.DATA}/prosody.cfg.lua", "-F")
    with container.run(folder, *command, core=core) as processes:
        wait_for(lambda: listens(PORTS[transport]), "Prosody's start")
        yield Server(f"127.0.0.1:{PORTS[transport]}", transport, {"Prosody": processes})


def _configuration(archive: str) -> str:
    modules = MODULES.split() + (["mam"] if archive != "off" else [])
    rooms = 'modules_enabled = { "muc_mam" }\nmuc_log_expires_after = "never"\n' if archive != "off" else ""
    sql = ""
    if archive == "sqlite":
        sql = f'storage = {{ archive = "sql"; muc_log = "sql" }}\nsql = {{ driver = "SQLite3", database = "{container.DATA}/sqlite" }}\n'
    return (
        f"modules_enabled = {{ {', '.join(map(repr, modules))} }}\n"
        'modules_disabled = { "s2s", "limits" }\n'
        f'data_path = "{container.DATA}/data"\npidfile = "{container.DATA}/prosody.pid"\n'
        f'log = {{ warn = "{container.DATA}/prosody.log" }}\nrun_as_root = true\nprosody_user = "root"\n'
        'c2s_require_encryption = false\nallow_unencrypted_plain_auth = false\nauthentication = "internal_hashed"\n'
        'archive_expires_after = "never"\nnetwork_backend = "epoll"\ngc = { mode = "generational" }\n'
        'interfaces = { "127.0.0.1" }\nlocal_interfaces = { "127.0.0.1" }\ns2s_ports = {}\nhttps_ports = {}\n'
        f"c2s_ports = {{ {PORTS['tcp']} }}\nc2s_direct_tls_ports = {{ {PORTS['tls']} }}\nhttp_ports = {{ {PORTS['websocket']} }}\n"
        f'ssl = {{ certificate = "{container.DATA}/crt.pem", key = "{container.DATA}/key.pem" }}\n'
        f'http_default_host = "{DOMAIN}"\nconsider_websocket_secure = true\n{sql}'
        f'VirtualHost "{DOMAIN}"\nComponent "rooms.{DOMAIN}" "muc"\n{rooms}'
    )

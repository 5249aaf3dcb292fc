"""ejabberd of Ubuntu 24.04, as the package ships it but for what a load test needs."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path

from peers import DOMAIN, ITERATIONS, SALT, Server, claim, container, listens, scram_keys, wait_for

__all__ = ["PACKAGES", "SETTINGS", "start"]

SETTINGS = (
    "ejabberd: the modules of the package's configuration, without those of other protocols (MQTT, SIP, STUN) and "
    "mod_pres_counter (a limit); no shaper, no limit of sessions, no s2s; log level warning; passwords as SCRAM-SHA-1 keys "
    "in Mnesia; archive 'own' is mod_mam in Mnesia (not durable for each message), 'sqlite' is mod_mam in SQLite; kernel "
    "poll on, one scheduler (it sees one core)"
)
PACKAGES = ("ejabberd", "erlang-base")
PORTS = {"tcp": 18222, "tls": 18223, "websocket": 18280}
MODULES = (
    "adhoc admin_extra announce avatar blocking bosh caps carboncopy client_state configure disco fail2ban last muc_admin "
    "offline ping privacy private push push_keepalive roster shared_roster stream_mgmt vcard_xupdate version"
)


@contextlib.contextmanager
def start(folder: Path, accounts: int, *, archive: str, transport: str, core: int) -> Iterator[Server]:
    """One node with ``accounts`` accounts; ``archive`` is 'off', 'own' or 'sqlite'."""
    claim(PORTS)
    container.certificate(folder)
    (folder / "ejabberd.yml").write_text(_configuration(archive))
    stored, server = (f'<<"{base64.b64encode(key).decode()}">>' for key in scram_keys())
    salt = f'<<"{base64.b64encode(SALT).decode()}">>'
    account = f'{{passwd, {{iolist_to_binary(["u", integer_to_list(N)]), <<"{DOMAIN}">>}}, '
    account += f"{{scram, {stored}, {server}, {salt}, sha, {ITERATIONS}}}}}"
    fill = f"[mnesia:dirty_write(passwd, {account}) || N <- lists:seq(0, {accounts - 1})], "
    fill += f'file:write_file("{container.DATA}/ready", <<>>).'
    libraries = 'export ERL_LIBS=$(echo /usr/lib/*-linux-gnu); exec "$@"'  # where Debian puts ejabberd's
    command = [
        "sh",
        "-c",
        libraries,
        "--",
        "erl",
        "+K",
        "true",
        "+P",
        "250000",
        "-mnesia",
        "dir",
        f'"{container.DATA}/spool"',
        "-noinput",
    ]
    command += ["-s", "ejabberd", "-eval", fill]
    environment = {
        "EJABBERD_CONFIG_PATH": f"{container.DATA}/ejabberd.yml",
        "EJABBERD_LOG_PATH": f"{container.DATA}/ejabberd.log",
        "ERL_INETRC": "/etc/ejabberd/inetrc",
        "ERL_MAX_PORTS": "32000",
        "ERL_CRASH_DUMP_BYTES": "0",
    }
    with container.run(folder, *command, core=core, **environment) as processes:
        wait_for((folder / "ready").exists, "ejabberd's start")
        wait_for(lambda: listens(PORTS[transport]), "ejabberd's listening")
        yield Server(f"127.0.0.1:{PORTS[transport]}", transport, {"ejabberd": processes})


def _configuration(archive: str) -> str:
    listen = "".join(
        f"  - {{port: {PORTS[name]}, ip: '127.0.0.1', module: {module}}}\n"
        for name, module in (
            ("tcp", "ejabberd_c2s, max_stanza_size: 262144, shaper: none, access: all"),
            ("tls", "ejabberd_c2s, max_stanza_size: 262144, shaper: none, access: all, tls: true"),
            ("websocket", "ejabberd_http, request_handlers: {/xmpp-websocket: ejabberd_http_ws}"),
        )
    )
    modules = "".join(f"  mod_{name}: {{}}\n" for name in MODULES.split())
    modules += "  mod_pubsub: {plugins: [flat, pep]}\n  mod_vcard: {search: false}\n"
    modules += (
        f"  mod_muc: {{host: 'rooms.{DOMAIN}', default_room_options: {{mam: {str(archive != 'off').lower()}}}}}\n"
    )
    sql = ""
    if archive != "off":
        kind = "sql" if archive == "sqlite" else "mnesia"
        modules += f"  mod_mam: {{assume_mam_usage: true, default: always, db_type: {kind}}}\n"
    if archive == "sqlite":
        sql = f"sql_type: sqlite\nsql_database: {container.DATA}/ejabberd.sqlite\nupdate_sql_schema: true\n"
    return (
        f"hosts: [{DOMAIN}]\nloglevel: warning\nlog_rotate_count: 0\ncertfiles: [{container.DATA}/both.pem]\n"
        f"auth_method: mnesia\nauth_password_format: scram\n{sql}listen:\n{listen}"
        "shaper_rules: {max_user_sessions: 1000, max_user_offline_messages: 5000}\n"
        f"modules:\n{modules}"
    )

"""What the chaos test kills: workers behind HAProxy, Valkey and MariaDB, each a process of its own."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from peers import DOMAIN
from peers.nestbox import create_accounts

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "app" / "tests"))
from databases import MariaDB, Valkey

__all__ = ["Cluster"]

SERVER = ("-m", "nestbox")
# Acknowledges before the commit: the promise that all this is about is broken, and must be seen to be.
_BREAK = """
from nestbox.__main__ import main
from nestbox.core.session import Session

count = Session.count
Session.count = lambda session, batch, committer: count(session, 0, committer)
main()
"""
BROKEN = ("-c", _BREAK)
# The backends of the appliance (roles/haproxy) without TLS, and two doors on Unix sockets.
_HAPROXY = """
global
    maxconn 8000
defaults
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout http-request 10s
    timeout tunnel 1h
    option redispatch 1
    retries 3
    retry-on conn-failure empty-response
    default-server inter 2s fastinter 500ms downinter 1s fall 3 rise 2 on-marked-down shutdown-sessions
frontend fe_http
    mode http
    bind unix@{folder}/http.sock
    default_backend be_websocket
frontend fe_c2s_tls
    mode tcp
    bind unix@{folder}/c2s.sock
    default_backend be_c2s_tls
backend be_http
    mode http
    option httpchk
    http-check send meth GET uri /healthz ver HTTP/1.1 hdr Host localhost
    http-check expect status 200
{http}
backend be_websocket
    mode http
{websocket}
backend be_c2s_tls
    mode tcp
{c2s_tls}
"""


class _Process:
    """A process that can be killed and started again; what it says goes to ``log``."""

    def __init__(self, name: str, command: list[object], log: Path) -> None:
        self.name = name
        self._command = command
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.end(signal.SIGKILL)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def see_to(self) -> None:
        """What systemd does: start it again when it has ended by itself, as when its database was away at its start."""
        if self._process is not None and self._process.poll() is not None:
            self.start()


class Cluster:
    """Workers, bus and database; clients call at the sockets ``c2s`` (XMPP) and ``http`` (WebSocket) of HAProxy."""

    def __init__(self, folder: Path, workers: int, sessions: int, database: str, broken: bool) -> None:
        self.log = folder / "log"
        self.c2s, self.http = folder / "c2s.sock", folder / "http.sock"
        self.maria = MariaDB(_subfolder(folder, "m")) if database == "mariadb" else None
        self.valkey = Valkey(_subfolder(folder, "v"))
        self.url = self.maria.create() if self.maria is not None else f"sqlite:///{folder}/nestbox.db"
        window = "commit_window: 1.0" if broken else ""
        config = folder / "nestbox.yml"
        config.write_text(
            f"domain: {DOMAIN}\nstate_dir: {folder}\nworkers: {workers}\n"
            f"database: {{url: '{self.url}', {window}}}\nbus: {{url: '{self.valkey.url}'}}\n"
            "tls: {require: false}\nlog: {level: warning}\n"
            f"listen: {{http: 'unix:{folder}/{{worker}}-http.sock', c2s: '', metrics: '', "
            f"c2s_tls: 'unix:{folder}/{{worker}}-c2s.sock'}}\n"
        )
        asyncio.run(create_accounts(self.url, sessions))
        numbers = range(1, workers + 1)
        command = [sys.executable, *(BROKEN if broken else SERVER), "--config", config, "--worker"]
        self.workers = [_Process(f"worker {number}", [*command, str(number)], self.log) for number in numbers]
        self.haproxy = _haproxy(folder, numbers)

    def start(self) -> None:
        """Start HAProxy and the workers, and wait until clients may come."""
        for process in (*self.workers, self.haproxy):
            process.start()
        deadline = time.monotonic() + 60
        while not self.c2s.exists():
            if time.monotonic() > deadline:
                raise SystemExit(f"chaos: HAProxy did not start:\n{self.said()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End everything that was started."""
        for process in (self.haproxy, *self.workers):
            process.end()
        self.valkey.stop()
        if self.maria is not None:
            self.maria.stop()

    def see_to(self) -> None:
        """Start again what has ended by itself."""
        for process in (self.haproxy, *self.workers):
            process.see_to()

    def said(self) -> str:
        """The end of the log."""
        return self.log.read_text(errors="replace")[-2000:]

    def victims(self, chance: random.Random) -> Iterator[object]:
        """Whom to kill, one after another: in rounds, in each of which everything has its turn, workers twice."""
        others = [self.haproxy, self.valkey, *([self.maria] if self.maria is not None else [])]
        while True:
            victims = [*self.workers, *self.workers, *others]
            chance.shuffle(victims)
            yield from victims

    async def strike(self, victim: object, pause: float) -> str:
        """Kill something, start it again after ``pause`` seconds; what it was."""
        await asyncio.to_thread(victim.kill)
        await asyncio.sleep(pause)
        await asyncio.to_thread(victim.start)
        return getattr(victim, "name", type(victim).__name__)


def _haproxy(folder: Path, numbers: range) -> _Process:
    def servers(kind: str, options: str, check: str = "track be_http/w{0}") -> str:
        line = f"    server w{{0}} unix@{folder}/{{0}}-{kind}.sock {options}{check}"
        return "\n".join(line.format(number) for number in numbers)

    config = folder / "haproxy.cfg"
    proxy = "send-proxy-v2 proxy-v2-options ssl,authority "
    config.write_text(
        _HAPROXY.format(
            folder=folder,
            http=servers("http", "", "check"),
            websocket=servers("http", ""),
            c2s_tls=servers("c2s", proxy),
        )
    )
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if program is None:
        raise SystemExit("chaos: HAProxy is not installed; the distribution has it.")
    return _Process("HAProxy", [program, "-db", "-f", config], folder / "haproxy.log")


def _subfolder(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name

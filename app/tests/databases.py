"""Real databases for tests: a MariaDB and a Valkey or Redis of one's own, on Unix sockets, ended with the test session.

Use the fixtures by ``pytest_plugins`` or by importing them into a conftest.py.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncmy
import pytest


def _executable(*names: str) -> str:
    for name in names:
        found = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:/sbin:/bin")
        if found:
            return found
    raise RuntimeError(f"None of {', '.join(names)} is installed; the distribution has it.")


def _await(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{process.args[0]} did not start:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.02)


class MariaDB:
    """A private server in ``folder``; it can be stopped, killed and started again with its data.

    It listens on its socket alone, and on loopback where a ``port`` is given; ``options`` are more of its own.
    """

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        self.folder = folder
        self._options = [*options, *(["--bind-address=127.0.0.1", f"--port={port}"] if port else ["--skip-networking"])]
        self.socket = folder / "m.sock"
        self.data = folder / "data"
        self.log = folder / "log"
        self.user = getpass.getuser()
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        # A server that starts removes what lies in the folder for temporary tables, also another's.
        self._environment = {**os.environ, "TMPDIR": str(folder)}
        install = _executable("mariadb-install-db", "mysql_install_db")
        command = [install, "--no-defaults", f"--datadir={self.data}", f"--user={self.user}", "--skip-test-db"]
        command += [f"--auth-root-socket-user={self.user}", "--auth-root-authentication-method=socket"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=self._environment)
        if done.returncode:
            raise RuntimeError(f"{install} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        # The defaults of the distribution's own files are left out; the durable settings are MariaDB's own.
        command = [_executable("mariadbd", "mysqld"), "--no-defaults", f"--datadir={self.data}", f"--user={self.user}"]
        command += [f"--socket={self.socket}", f"--pid-file={self.folder}/pid", *self._options]
        command += ["--innodb-buffer-pool-size=64M", "--innodb-log-file-size=32M", "--performance-schema=OFF"]
        command += ["--innodb-flush-log-at-trx-commit=1"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=self._environment)
        _await(self._answers, self._process, self.log)

    @property
    def pid(self) -> int:
        """Its process, while it runs."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """End it as an operator would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    def create(self) -> str:
        """Make an empty database and return its URL."""
        self._databases += 1
        name = f"t{self._databases}"
        self.query(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return self.url(name)

    def url(self, name: str) -> str:
        """The URL of a database."""
        return f"mysql://{self.user}@localhost/{name}?unix_socket={self.socket}"

    def drop(self, url: str) -> None:
        """Remove a database that `create` made."""
        self.query(f"DROP DATABASE {url.partition('?')[0].rpartition('/')[2]}")

    def query(self, sql: str) -> None:
        """Run a statement as the administrator."""

        async def run() -> None:
            async with asyncmy.connect(unix_socket=str(self.socket), user=self.user, autocommit=True) as connection:
                await connection.query(sql)

        # The caller may be on a loop of its own already, so this one runs in a thread.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, run()).result()

    def _answers(self) -> bool:
        try:
            self.query("SELECT 1")
        except Exception:
            return False
        return True


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """The session's MariaDB."""
    with tempfile.TemporaryDirectory(prefix="nestbox-mariadb-") as folder:  # short: a socket's path has 107 bytes
        server = MariaDB(Path(folder))
        yield server
        server.stop()


@pytest.fixture(params=["sqlite", "mariadb"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/nestbox.db"
        return
    server: MariaDB = request.getfixturevalue("mariadb")
    url = server.create()
    yield url
    server.drop(url)


@pytest.fixture
def mariadb_url(mariadb: MariaDB) -> Iterator[str]:
    """The URL of an empty database on MariaDB."""
    url = mariadb.create()
    yield url
    mariadb.drop(url)


class Valkey:
    """A private Valkey or Redis in ``folder``, without persistence as on the appliance."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "bus.sock"
        self.url = f"unix://{self.socket}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, empty, and wait until it listens."""
        self.socket.unlink(missing_ok=True)
        command = [_executable("valkey-server", "redis-server"), "--port", "0", "--unixsocket", str(self.socket)]
        command += ["--save", "", "--appendonly", "no", "--maxmemory", "64mb", "--maxmemory-policy", "noeviction"]
        log = self._folder / "log"
        with log.open("ab") as output:
            self._process = subprocess.Popen([*command, "--dir", str(self._folder)], stdout=output, stderr=output)
        _await(self._listens, self._process, log)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:  # the file is there a moment before anybody listens
            return probe.connect_ex(str(self.socket)) == 0

    @property
    def pid(self) -> int:
        """Its process, while it runs."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """End it; what it held is gone."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(20)
            self._process = None


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """An empty Valkey (or Redis) of the test's own."""
    with tempfile.TemporaryDirectory(prefix="nestbox-bus-") as folder:
        server = Valkey(Path(folder))
        yield server
        server.stop()

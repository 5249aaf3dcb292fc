"""Clients of the appliance, run on the controller, and HAProxy's admin socket."""

import json
import os
import socket
import ssl
from pathlib import Path
from typing import Self

from conftest import container_name


def tls_context(host, *alpn: str) -> ssl.SSLContext:
    """Return what a client uses that trusts the appliance's own authority."""
    context = ssl.create_default_context(
        cafile=Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], f"{container_name(host)}.pem")
    )
    context.set_alpn_protocols(list(alpn))
    return context


class Client:
    """A connection to a port of the appliance, over TLS when a context is given; usable as a context manager."""

    def __init__(
        self, address: str, port: int, context: ssl.SSLContext | None = None, name: str = "nestbox.test"
    ) -> None:
        self.socket = socket.create_connection((address, port), timeout=10)
        if context:
            self.socket = context.wrap_socket(self.socket, server_hostname=name)
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def greeting(self) -> dict:
        """Return what the stand-in worker says of a connection to 5222 or 5223."""
        return json.loads(self.file.readline())

    def echoes(self) -> bool:
        """Tell whether a line goes to the worker and back; False once the connection is closed."""
        try:
            self.socket.sendall(b"still there?\n")
            return self.file.readline() == b"still there?\n"
        except (ConnectionError, ssl.SSLError):
            return False

    def request(
        self, path: str, host: str = "nestbox.test", *headers: str, post: str = ""
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a GET, or a POST of some text, and return status, headers (lower case) and body."""
        lines = [f"{'POST' if post else 'GET'} {path} HTTP/1.1", f"Host: {host}", *headers]
        if post:
            lines.append(f"Content-Length: {len(post)}")
        self.socket.sendall("\r\n".join([*lines, "", post]).encode())
        return self.answer()

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read the answer to what was sent, as `request` returns it."""
        status = int(self.file.readline().split()[1])
        answered = {}
        while line := self.file.readline().strip():
            name, value = line.decode().split(":", 1)
            answered[name.lower()] = value.strip()
        return status, answered, self.file.read(int(answered.get("content-length", 0)))


def handshake(host, *options: str) -> str:
    """Return what openssl says of a TLS 1.3 handshake with port 443."""
    command = "openssl s_client -connect 127.0.0.1:443 -servername nestbox.test -tls1_3 </dev/null 2>/dev/null "
    return host.check_output(command + " ".join(options))


def xmpp_worker(address: str) -> int:
    """Return the number of the worker that a new connection to 5222 meets."""
    with Client(address, 5222) as client:
        return client.greeting()["worker"]


def workers_met(address: str, count: int) -> list[int]:
    """Return the number of the worker that each of so many connections to 5222 meets, all open at the same time."""
    clients = [Client(address, 5222) for _ in range(count)]
    try:
        return [client.greeting()["worker"] for client in clients]
    finally:
        for client in clients:
            client.close()


def admin(host, command: str) -> str:
    """Send one command to HAProxy's admin socket and return the answer."""
    script = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect('/run/haproxy/admin.sock'); "
        "s.sendall(sys.argv[1].encode() + b'\\n'); print(b''.join(iter(lambda: s.recv(65536), b'')).decode())"
    )
    return host.check_output("python3 -c %s %s", script, command)


def statistics(host, worker: int) -> dict[str, dict[str, str]]:
    """Return what HAProxy's statistics say of one worker, by backend and column."""
    head, *lines = admin(host, "show stat -1 4 -1").removeprefix("# ").strip().splitlines()
    rows = [dict(zip(head.split(","), line.split(","), strict=True)) for line in lines]
    return {row["pxname"]: row for row in rows if row["svname"] == f"w{worker}"}


def server_states(host, worker: int) -> dict[str, str]:
    """Return the state of one worker by backend, as HAProxy's statistics name it."""
    return {backend: row["status"] for backend, row in statistics(host, worker).items()}


def redispatched(host, worker: int) -> int:
    """Return how many connections to 5222 were sent elsewhere because they could not be made to this worker."""
    return int(statistics(host, worker)["be_c2s"]["wredis"])

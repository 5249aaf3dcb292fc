"""A worker's HTTP side on real sockets, over a real core and store."""

import asyncio
import contextlib
from types import SimpleNamespace

import pytest

from nestbox.bus import open_bus
from nestbox.config import Config, Database, Listen, Uploads, Web
from nestbox.core.ids import IdSource
from nestbox.core.server import Server
from nestbox.http.app import serve_http
from nestbox.modules import setup_all
from nestbox.net.transport import TransportOptions
from nestbox.store import open_store


class Answer:
    """An HTTP answer: ``status`` (0 when the server hung up without one), ``headers`` by lower-case name, ``body``."""

    def __init__(self, head, body):
        lines = head.decode().split("\r\n")
        self.status = int(lines[0].split()[1]) if head else 0
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:] if line)}
        self.body = body


class Site:
    """What the tests talk to."""

    def __init__(self, server, tmp_path):
        self.server = server
        self.web = tmp_path / "web"
        self.socket = tmp_path / "http.sock"
        self.metrics_socket = tmp_path / "metrics.sock"

    async def get(self, path, *, method="GET", socket=None, body=b"", **headers):
        """One request on a connection of its own; the path goes out as it is."""
        reader, writer = await self.begin(path, method=method, socket=socket, **headers)
        writer.write(body)
        head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
        writer.close()
        return Answer(head, body)

    async def begin(self, path, *, method, socket=None, **headers):
        """Send the head of a request; the connection's reader and writer."""
        reader, writer = await asyncio.open_unix_connection(str(socket or self.socket))
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: nestbox.test\r\nConnection: close\r\n{lines}\r\n".encode())
        return reader, writer

    async def put(self, path, body, **headers):
        """PUT with the right Content-Length, unless another one is given."""
        return await self.get(path, method="PUT", body=body, **{"Content_Length": len(body), **headers})


@pytest.fixture
async def site(tmp_path):
    web = tmp_path / "releases" / "1"
    (web / "dist").mkdir(parents=True)
    (web / "index.html").write_text("<!DOCTYPE html><title>chat</title>")
    (web / "nestbox.js").write_text("let one = 1;")
    (web / "dist" / "omemo.wasm").write_bytes(b"\0asm")
    (web / "dist" / "app.0123abcdef.js").write_text("hashed")
    (web / "big.bin").write_bytes(bytes(3_000_000))
    (web / ".hidden").write_text("secret")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "web").symlink_to(web)
    config = Config(
        domain="nestbox.test",
        state_dir=str(tmp_path),
        database=Database(url=f"sqlite:///{tmp_path}/nestbox.db"),
        listen=Listen(http=f"unix:{tmp_path}/http.sock", metrics=f"unix:{tmp_path}/metrics.sock"),
        web=Web(root=str(tmp_path / "web"), https_url="https://nestbox.test:8443"),
        uploads=Uploads(min_free_bytes=0),
    )
    async with contextlib.AsyncExitStack() as stack:
        store = await open_store(config.database.url, commit_window=0.0)
        stack.push_async_callback(store.close)
        await store.migrate()
        bus = open_bus("local", 3)
        server = Server(config, store, bus, IdSource(3))
        setup_all(server)
        stop = await serve_http(server, SimpleNamespace(accept=None), TransportOptions(), 3)
        stack.push_async_callback(stop)
        yield Site(server, tmp_path)

"""The HTTP side of a worker: its routes, and the two ports that they are served on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.web import Application

from nestbox.http.bosh import BoshHandler
from nestbox.http.health import Health, HealthHandler
from nestbox.http.invite import PATH as INVITE_PATH
from nestbox.http.invite import Invitations, InviteHandler
from nestbox.http.metrics import Metrics, MetricsHandler
from nestbox.http.page import NotFoundHandler, Page, log_request
from nestbox.http.upload import PATH as UPLOAD_PATH
from nestbox.http.upload import UploadHandler
from nestbox.http.webchat import WebChatHandler
from nestbox.http.well_known import HostMetaHandler
from nestbox.net.bosh import Bosh
from nestbox.net.listen import bind
from nestbox.net.transport import MakeReceiver, TransportOptions
from nestbox.net.websocket import XmppWebSocketHandler
from nestbox.store.upload_files import UploadFiles

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.net.connections import Connections

__all__ = ["make_app", "serve_http"]

_LIMITS = {
    "max_header_size": 16 * 1024,
    "max_body_size": 64 * 1024,
    "idle_connection_timeout": 60,
    "body_timeout": 30,
}
_ACCEPTS = 8  # each brings a request, which may become a WebSocket on which somebody logs in


class _Server(HTTPServer):
    """Takes a few new connections in a turn of the loop, the others wait in the kernel; Tornado takes 128."""

    def listen_on(self, sock: socket.socket) -> None:
        """Serve those who connect to a listening, non-blocking socket, which is ours from now on."""
        self._listening = sock
        asyncio.get_running_loop().add_reader(sock, self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS):
            try:
                connection, address = self._listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            self.handle_stream(IOStream(connection), address)

    def stop(self) -> None:
        """Tornado's: take no more connections."""
        asyncio.get_running_loop().remove_reader(self._listening)
        self._listening.close()
        super().stop()


class _WebSocketPage(Page, XmppWebSocketHandler):
    """The WebSocket's handshake with the headers of every answer."""


def make_app(
    server: Server,
    worker: int,
    *,
    make_receiver: MakeReceiver,
    websockets: TransportOptions,
    bosh: Bosh,
    problem: Callable[[], str | None],
    trusted: bool,
) -> Application:
    """The routes that clients reach. ``trusted`` says that only HAProxy connects, whose X-Forwarded headers count."""
    config = server.config
    origins = frozenset((config.https_url, *config.web.origins))
    websocket = {
        "make_receiver": make_receiver,
        "options": websockets,
        "max_message": config.limits.stanza_bytes_before_login,
        "trusted": trusted,
        "origins": origins,
    }
    routes = [
        (r"/healthz", HealthHandler, {"worker": worker, "problem": problem}),
        (r"/xmpp-websocket", _WebSocketPage, websocket),
        (r"/http-bind/?", BoshHandler, {"bosh": bosh, "trusted": trusted, "origins": origins}),
        (r"/\.well-known/host-meta(\.json)?", HostMetaHandler, {"https_url": config.https_url}),
        (INVITE_PATH, InviteHandler, {"invitations": Invitations(server, trusted)}),
    ]
    if config.uploads.enabled:
        uploads = {"server": server, "files": UploadFiles(config.state_dir)}
        routes.append((UPLOAD_PATH, UploadHandler, uploads))
    if config.web.root:
        chat = {"path": config.web.root, "default_filename": "index.html"}
        routes.append((r"/((?!\.well-known/|api/|admin/|upload/|invite/|http-bind).*)", WebChatHandler, chat))
    return Application(routes, default_handler_class=NotFoundHandler, log_function=log_request)


async def serve_http(
    server: Server, connections: Connections, transports: TransportOptions, worker: int
) -> Callable[[], Awaitable[None]]:
    """Serve clients and, on a port of its own, metrics; returns what stops that.

    ``transports`` are the limits and counts of TCP; WebSocket and BOSH get the same limits. Raises OSError when an
    address cannot be listened on.
    """
    config = server.config
    websockets = TransportOptions(max_buffer=transports.max_buffer, close_timeout=transports.close_timeout)
    polls = TransportOptions(max_buffer=transports.max_buffer)
    health = Health(server)
    metrics = Metrics(server, {"tcp": transports, "websocket": websockets, "bosh": polls})
    address = config.address("http", worker)
    routes = make_app(
        server,
        worker,
        make_receiver=connections.accept,
        websockets=websockets,
        bosh=Bosh(server, connections.accept, polls),
        problem=health.problem,
        trusted=address.startswith("unix:") or config.listen.proxy_protocol,
    )
    local = Application(
        [
            (r"/metrics", MetricsHandler, {"metrics": metrics}),
            (r"/healthz", HealthHandler, {"worker": worker, "problem": health.problem}),
        ],
        default_handler_class=NotFoundHandler,
        log_function=log_request,
    )
    servers = []
    for application, where in ((routes, address), (local, config.address("metrics", worker))):
        if where:
            servers.append(_Server(application, **_LIMITS))
            servers[-1].listen_on(bind(where))
    tasks = [asyncio.create_task(health.watch_store()), asyncio.create_task(metrics.lag.watch())]

    async def stop() -> None:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)  # the store is closed next, and must not be asked then
        for one in servers:
            one.stop()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await one.close_all_connections()

    return stop

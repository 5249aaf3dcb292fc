"""Wires one worker together, tells systemd how it is, and takes it apart again."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import signal
import socket
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from nestbox.bus import BusError, open_bus
from nestbox.config import Config
from nestbox.core.handover import hand_over
from nestbox.core.ids import IdSource
from nestbox.core.server import TICK, Server
from nestbox.http.app import serve_http
from nestbox.modules import setup_all
from nestbox.net.component import listen_for_components
from nestbox.net.connections import Connections
from nestbox.net.tcp import listen
from nestbox.net.tls import TlsContext, TlsError
from nestbox.net.transport import TransportOptions
from nestbox.protocol.stream import StreamOptions
from nestbox.store import StoreError, open_store
from nestbox.store.passwords import ITERATIONS
from nestbox.wire.element import namespace

__all__ = ["StartError", "run"]

_log = logging.getLogger("nestbox.worker")


class StartError(Exception):
    """The worker cannot start; the message says why and what to do, in one sentence."""


async def run(config: Config, worker: int) -> None:
    """Run worker number ``worker`` until SIGTERM or SIGINT; SIGUSR1 hands its sessions over. Raises StartError."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    async with AsyncExitStack() as stack:
        try:
            server, connections = await _start(config, worker, stack)
        except (StoreError, BusError, TlsError, OSError, ValueError) as error:
            raise StartError(str(error)) from error
        if connections.tls is not None:
            loop.add_signal_handler(signal.SIGHUP, _reload, connections.tls)
        # What is there now stays: the collector need not look at it again, and forks of nothing share it.
        gc.collect()
        gc.freeze()
        stack.enter_context(_Tasks(server.run_ticks(), _run_ticks(connections), _notify_watchdog()))
        loop.add_signal_handler(signal.SIGUSR1, lambda: server.spawn(hand_over(server, _say)))
        _log.info("worker is ready", extra={"fields": {"domain": config.domain}})
        _notify("READY=1")
        _say("serving")
        await stop.wait()
        _notify("STOPPING=1")
        server.draining = True
        connections.turn_away()
        await server.stop()


async def _start(config: Config, worker: int, stack: AsyncExitStack) -> tuple[Server, Connections]:
    database = config.database
    store = await open_store(database.url, database.commit_window, database.replica_url)
    stack.push_async_callback(store.close)
    await store.check_schema()
    bus = open_bus(config.bus.address(), worker)
    server = Server(config, store, bus, IdSource(worker), _secret(Path(config.state_dir)))
    bus.on_worker_lost = lambda lost: server.spawn(server.registry.worker_lost(lost))
    bus.on_reconnect = lambda: server.spawn(server.bus_was_away())
    bus.on_undelivered = lambda lost, payload: server.spawn(server.router.undelivered(lost, payload))
    setup_all(server)  # before the first message comes
    await bus.start(server.registry.receive)
    stack.push_async_callback(bus.close)
    await server.registry.reload()

    tls = None
    if config.tls.certificate:
        modern = config.tls.policy == "modern"
        tls = TlsContext(config.tls.certificate, config.tls.key, modern=modern, chacha_first=config.tls.chacha_first)
    limits = config.limits
    options = StreamOptions(
        domain=config.domain,
        starttls=tls is not None,
        require_tls=config.tls.require,
        plain_allowed=config.sasl.plain,
        features_after_auth=list(server.stream_features),
        visitor_features=list(server.visitor_features),
        visitor_iqs=frozenset(server.visitor_iqs),
        inline=list(dict.fromkeys(map(namespace, server.inline))),
        max_bytes_before_auth=limits.stanza_bytes_before_login,
        max_bytes=limits.stanza_bytes,
        idle_seconds=limits.idle_seconds,
        secret=server.secret,
        iterations=ITERATIONS,
    )
    connections = Connections(server, options, tls)
    transports = TransportOptions(max_buffer=limits.write_buffer_bytes, pace=connections.pace)
    for name, secure in (("c2s", False), ("c2s_tls", True)):
        address = config.address(name, worker)
        if address:
            listener = await listen(
                address, connections.accept, proxy=config.listen.proxy_protocol, secure=secure, options=transports
            )
            stack.callback(listener.close)
            connections.listeners.append(listener)
    components = await listen_for_components(server, worker)
    if components is not None:
        stack.callback(components.close)
    stack.push_async_callback(await serve_http(server, connections, transports, worker))
    return server, connections


def _secret(folder: Path) -> bytes:
    """32 bytes that all workers share and keep: tokens are made from them, and salts for names that do not exist."""
    path = folder / "secret"
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as new:  # mode 0600
            new.write(secrets.token_bytes(32))
            new.flush()
            os.link(new.name, path)  # of several workers, the first one's stays
    except FileExistsError:
        pass
    return path.read_bytes()


class _Tasks:
    """Tasks that run as long as the worker."""

    def __init__(self, *coroutines: object) -> None:
        self._tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()


async def _run_ticks(connections: Connections) -> None:
    while True:
        await asyncio.sleep(TICK)
        connections.tick()


def _reload(tls: TlsContext) -> None:
    try:
        tls.reload()
        _log.info("the certificate was read again")
    except TlsError as error:
        _log.error("the new certificate is not used: %s", error)


def _notify(state: str) -> None:
    """Tell systemd (sd_notify(3)); does nothing without it."""
    path = os.environ.get("NOTIFY_SOCKET")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
            notify.connect("\0" + path[1:] if path[0] == "@" else path)
            notify.send(state.encode())


def _say(status: str) -> None:
    """What `systemctl status` shows; nestbox-rolling-restart waits for it."""
    _notify(f"STATUS={status}")


async def _notify_watchdog() -> None:
    """Show systemd that the loop turns, three times as often as it asks."""
    microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    while microseconds:
        _notify("WATCHDOG=1")
        await asyncio.sleep(microseconds / 3_000_000)

"""Binding the addresses of the configuration: ``unix:/path`` or ``host:port``."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

__all__ = ["bind"]


def bind(address: str, *, mode: int = 0o660, backlog: int = 4096) -> socket.socket:
    """A listening, non-blocking socket; a Unix socket gets ``mode`` before anybody can connect.

    A Unix socket that a dead process left behind is replaced. Raises OSError with a message for the operator:
    the address is in use, is not a socket or may not be bound. Raises ValueError for a malformed address.
    """
    try:
        return _bind_unix(address[5:], mode, backlog) if address.startswith("unix:") else _bind_tcp(address, backlog)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {address}: {os.strerror(error.errno)}") from error


def _bind_unix(path: str, mode: int, backlog: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        sock.bind(path)
        os.chmod(path, mode)
        sock.listen(backlog)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, path)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        except TimeoutError:
            pass
    raise OSError(errno.EADDRINUSE, path)


def _bind_tcp(address: str, backlog: int) -> socket.socket:
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{address!r} is neither unix:/path nor host:port")
    host = host.strip("[]")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ValueError(f"{address!r}: {host} is no address of this machine") from error
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        sock.bind(where)
        sock.listen(backlog)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock

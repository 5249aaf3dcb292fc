"""Asks a worker how it is."""

from __future__ import annotations

import asyncio
import json

from nestbox.config import Config

__all__ = ["health"]

_SECONDS = 5.0


async def health(config: Config, worker: int) -> str:
    """What a worker says of itself: ok, or what is wrong."""
    address = config.address("http", worker) or config.address("metrics", worker)
    try:
        async with asyncio.timeout(_SECONDS):
            if address.startswith("unix:"):
                reader, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
            else:
                host, _, port = address.rpartition(":")
                reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            try:
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                answer = await reader.read(65536)
            finally:
                writer.close()
    except TimeoutError:
        return "it does not answer"
    except OSError as error:
        return f"it is not running ({error.strerror or error})"
    head, _, body = answer.partition(b"\r\n\r\n")
    try:
        return str(json.loads(body)["status"])
    except (ValueError, KeyError, TypeError):
        return f"it answers {head[:40]!a}"

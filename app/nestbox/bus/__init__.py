"""How workers reach each other: in one process, or over Valkey or Redis."""

from __future__ import annotations

from nestbox.bus.base import Bus, BusError
from nestbox.bus.local import LocalBus
from nestbox.bus.redis import RedisBus

__all__ = ["Bus", "BusError", "open_bus"]


def open_bus(url: str, worker: int) -> Bus:
    """The bus of the configuration: ``local``, ``unix:///path`` or ``redis://host:port``. Raises ValueError."""
    return LocalBus(worker) if url == "local" else RedisBus(url, worker)

"""Logs for the journal: one JSON object a line, after the priority that journald reads (sd-daemon(3))."""

from __future__ import annotations

import ipaddress
import json
import logging
import sys

__all__ = ["set_up", "short_address"]

_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class _JournalFormatter(logging.Formatter):
    """``<6>{"message": ..., "logger": ..., "worker": ...}``; what is passed as ``extra={"fields": {...}}`` joins in."""

    def __init__(self, worker: int) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        fields = {"message": record.getMessage(), "logger": record.name, "worker": self._worker}
        fields.update(getattr(record, "fields", {}))
        if record.exc_info:
            fields["trace"] = self.formatException(record.exc_info)
        return f"<{_PRIORITY.get(record.levelno, 6)}>{json.dumps(fields, ensure_ascii=False)}"


def set_up(level: str, worker: int) -> None:
    """Log to standard error: our own at ``level`` (a name of `logging`, lower case), libraries' warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JournalFormatter(worker))
    logging.basicConfig(level="WARNING", handlers=[handler], force=True)
    logging.getLogger("nestbox").setLevel(level.upper())


def short_address(address: str, mode: str) -> str:
    """A client's address for the log: its /24 or /48 network for ``mode`` 'short', itself for 'full'."""
    if mode == "full" or not address:
        return address
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    return str(ipaddress.ip_network(f"{parsed}/{24 if parsed.version == 4 else 48}", strict=False))

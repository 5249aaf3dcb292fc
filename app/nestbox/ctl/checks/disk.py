"""Whether there is room for messages and files."""

from __future__ import annotations

import os

from nestbox.config import Config
from nestbox.ctl.checks.finding import Finding, fault, fine, warning

__all__ = ["check", "judge"]

_NAME = "disk"
_LEAST = 256 * 1024 * 1024
_CURE = (
    "See what is large with 'sudo du -xhd1 / | sort -h'; keep messages and files for fewer days, or take a larger disk."
)


async def check(config: Config) -> list[Finding]:
    """One finding for the file system that holds the server's data."""
    state = os.statvfs(config.state_dir)
    if state.f_flag & os.ST_RDONLY:
        return [fault(_NAME, "It is read-only: messages cannot be stored.", "Read 'dmesg'; a worn-out card must go.")]
    free, size = state.f_bavail * state.f_frsize, state.f_blocks * state.f_frsize
    reserve = config.uploads.min_free_bytes if config.uploads.enabled else 0
    return [judge(free, size, state.f_favail, state.f_files, reserve)]


def judge(free: int, size: int, inodes_free: int, inodes: int, reserve: int) -> Finding:
    """Sizes are in bytes; ``reserve`` is what uploads leave alone."""
    what = f"{_gib(free)} of {_gib(size)} GiB free"
    if inodes and inodes_free < 1000:
        return fault(_NAME, f"It takes only {inodes_free} more files.", _CURE)
    if free < _LEAST:
        return fault(_NAME, f"It is full: {what}.", _CURE)
    if free < reserve:
        return warning(_NAME, f"{what}, so uploads are refused (uploads.min_free_bytes).", _CURE)
    if free < size / 10 and free < 10 * 1024**3:
        return warning(_NAME, f"{what}.", _CURE)
    return fine(_NAME, what)


def _gib(size: int) -> str:
    return f"{size / 1024**3:.1f}"

"""The bytes of uploaded files: ``<state_dir>/uploads/<account id>/<token>``.

Each account has a folder of its own, so that deleting it needs no list of its files. Everything here blocks and is for
a thread. A file appears under its name only when all of it is on the disk.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nestbox.store import Store

__all__ = ["PUT_SECONDS", "SLOT_SECONDS", "Incoming", "UploadFiles", "maintain"]

SLOT_SECONDS = 15 * 60  # within which an upload must begin
PUT_SECONDS = 2 * 3600  # that it may take
SYNC_BYTES = 8 * 1024 * 1024  # what may wait in memory for a slow card
_PART = ".part"
_BATCH = 500


class UploadFiles:
    """The folder of all files."""

    def __init__(self, state_dir: str | Path) -> None:
        self.folder = Path(state_dir) / "uploads"

    def path(self, user_id: int, token: str) -> Path:
        """Where a file is; ``token`` is one of ours, never what a client sent."""
        return self.folder / str(user_id) / token

    def begin(self, user_id: int, token: str) -> Incoming:
        """Start to write a file. Raises FileExistsError when somebody else does so now, OSError."""
        path = self.path(user_id, token)
        path.parent.mkdir(parents=True, exist_ok=True)
        return Incoming(path)

    def free_bytes(self) -> int:
        """What the disk has left for us."""
        folder = self.folder if self.folder.exists() else self.folder.parent
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize

    def remove(self, user_id: int, token: str) -> None:
        """Remove a file, if it is there."""
        self.path(user_id, token).unlink(missing_ok=True)

    def remove_account(self, user_id: int) -> None:
        """Remove all files of an account that was deleted."""
        shutil.rmtree(self.folder / str(user_id), ignore_errors=True)

    def accounts(self) -> list[int]:
        """The accounts that have a folder."""
        return [int(entry.name) for entry in self.folder.iterdir()] if self.folder.exists() else []

    def sweep(self, user_id: int, known: set[str]) -> int:
        """Remove what a killed worker left: old files that are not ``known``; how many."""
        removed = 0
        for entry in os.scandir(self.folder / str(user_id)):
            if entry.name not in known and entry.stat().st_mtime < time.time() - PUT_SECONDS - SLOT_SECONDS:
                os.unlink(entry.path)
                removed += 1
        return removed


class Incoming:
    """A file while it is being written. Methods may be called from several threads; they raise OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(path.name + _PART)
        self._lock = threading.Lock()  # a client may vanish while a piece is being written
        # That it must not exist is what keeps a second upload, on whichever worker, out of this slot.
        self._fd = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._unsynced = 0
        self.size = 0

    def write(self, data: bytes) -> None:
        """Add a piece."""
        with self._lock:
            if self._fd < 0:
                return
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
            self.size += len(data)
            self._unsynced += len(data)
            if self._unsynced >= SYNC_BYTES:
                os.fdatasync(self._fd)
                self._unsynced = 0

    def finish(self) -> None:
        """Make it durable under its name. Raises FileNotFoundError when it was discarded or its account erased."""
        with self._lock:
            if self._fd < 0:
                raise FileNotFoundError(self._part)
            os.fsync(self._fd)
            self._close()
            os.rename(self._part, self._path)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def discard(self) -> None:
        """Remove it, unless it is finished."""
        with self._lock:
            if self._fd >= 0:
                self._close()
                self._part.unlink(missing_ok=True)

    def _close(self) -> None:
        os.close(self._fd)
        self._fd = -1


async def maintain(store: Store, files: UploadFiles, days: int) -> int:
    """Remove files older than ``days`` (0: none), unused slots, and what belongs to no account; how many files."""
    now = int(time.time())
    stored_before = now - days * 24 * 3600 if days else 0
    removed = 0
    while old := await store.uploads.expired(stored_before, now - SLOT_SECONDS - PUT_SECONDS, _BATCH):
        for upload in old:  # before the row: what breaks off between the two is finished by the next run
            files.remove(upload.user_id, upload.token)
            removed += upload.stored is not None
        await store.uploads.forget([upload.token for upload in old])
    folders = files.accounts()
    exists = await store.accounts.existing_ids(folders)
    for user_id in folders:
        if user_id in exists:
            removed += files.sweep(user_id, await store.uploads.tokens(user_id))
        else:
            files.remove_account(user_id)
    return removed

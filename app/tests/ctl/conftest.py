"""nestboxctl as an operator runs it: a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.databases import database_url, mariadb, mariadb_url, valkey

__all__ = ["database_url", "mariadb", "mariadb_url", "valkey"]


@dataclass
class Done:
    status: int
    out: str
    err: str


class Ctl:
    """Runs commands against the configuration in ``folder``."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.config = folder / "nestbox.yml"
        self.settings = {
            "domain": "nestbox.test",
            "state_dir": str(folder),
            "database": {"url": f"sqlite:///{folder}/nestbox.db"},
            "listen": {"http": f"unix:{folder}/http{{worker}}.sock"},
            **settings,
        }
        self.config.write_text(json.dumps(self.settings))  # JSON is YAML

    async def run(self, *arguments: str, input: str = "") -> Done:
        """Run a command to its end."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "import sys; from nestbox.ctl import main; sys.exit(main())"),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "NESTBOX_CONFIG": str(self.config), "PYTHONUTF8": "1", "COLUMNS": "200"},
        )
        out, err = await process.communicate(input.encode())
        assert "Traceback" not in err.decode(), err.decode()
        return Done(process.returncode, out.decode(), err.decode())

    async def ok(self, *arguments: str, input: str = "") -> str:
        """Run a command that must succeed and return what it printed."""
        done = await self.run(*arguments, input=input)
        assert done.status == 0, (arguments, done)
        return done.out

    async def fails(self, *arguments: str, input: str = "") -> str:
        """Run a command that must fail with one sentence and return that."""
        done = await self.run(*arguments, input=input)
        assert done.status == 1, (arguments, done)
        *_, last = done.err.splitlines()
        assert last.startswith("nestboxctl: ") and last.endswith("."), done.err
        return last.removeprefix("nestboxctl: ")


@pytest.fixture
async def ctl(tmp_path: Path) -> Ctl:
    """nestboxctl for a server on SQLite without a bus."""
    ctl = Ctl(tmp_path)
    await ctl.ok("migrate")
    return ctl

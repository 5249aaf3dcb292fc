"""The fixtures of the modules' tests; see harness.py for what one can do with a ``world``."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from harness import DOMAIN, World

from nestbox.config import Config, Limits
from nestbox.store import open_store


@pytest.fixture
def limits() -> Limits:
    """Override it in a test file for other limits."""
    return Limits()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite database, made once and copied for each test."""
    path = tmp_path_factory.mktemp("store") / "nestbox.db"

    async def make() -> None:
        store = await open_store(f"sqlite:///{path}")
        await store.migrate()
        await store.close()

    asyncio.run(make())
    return path


@pytest.fixture
def config(tmp_path: Path, limits: Limits, empty_database: Path) -> Config:
    config = Config(domain=DOMAIN, limits=limits, state_dir=str(tmp_path))
    shutil.copy(empty_database, tmp_path / "nestbox.db")
    config.database.url = f"sqlite:///{tmp_path}/nestbox.db"
    return config


@pytest.fixture
async def world(config: Config) -> AsyncIterator[World]:
    """Two workers; ``world.client(name, worker=2)`` for the second."""
    world = World(config)
    await world.start(2)
    yield world
    await world.stop()

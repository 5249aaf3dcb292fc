"""Stores on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from nestbox.store import Store, open_store
from tests.databases import database_url, mariadb, mariadb_url

__all__ = ["database_url", "mariadb", "mariadb_url"]


async def _opened(url: str) -> AsyncIterator[Store]:
    store = await open_store(url, commit_window=0.005)
    await store.migrate()
    yield store
    await store.close()


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    """A migrated store on each database in turn."""
    async for store in _opened(database_url):
        yield store


@pytest.fixture
async def mariadb_store(mariadb_url: str) -> AsyncIterator[Store]:
    """A migrated store on MariaDB."""
    async for store in _opened(mariadb_url):
        yield store

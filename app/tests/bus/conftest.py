"""A private Valkey or Redis, event loops, and a quick pulse."""

import asyncio

import pytest
import uvloop

from nestbox.bus import redis as redis_module
from tests.databases import valkey  # noqa: F401


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    """Runs a coroutine to its end on asyncio's own loop and on uvloop; a test that hangs fails after 60 s."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        yield lambda coroutine: runner.run(asyncio.wait_for(coroutine, 60))


@pytest.fixture
def fast_heart(monkeypatch):
    monkeypatch.setattr(redis_module, "HEARTBEAT_SECONDS", 0.5)
    monkeypatch.setattr(redis_module, "ALIVE_SECONDS", 3)

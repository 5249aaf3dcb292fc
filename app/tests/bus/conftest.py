"""A private Valkey or Redis, and event loops."""

import asyncio

import pytest
import uvloop

from tests.databases import valkey  # noqa: F401


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    """Runs a coroutine to its end on asyncio's own loop and on uvloop; a test that hangs fails after 60 s."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        yield lambda coroutine: runner.run(asyncio.wait_for(coroutine, 60))

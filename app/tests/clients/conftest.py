"""Other people's clients against a live server: JavaScript's libraries in Node, slixmpp, the web chat in Chromium."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.browser import Browser, build
from tests.clients.node import NodeClient, install
from tests.clients.service import Service
from tests.clients.site import Site, make_certificate
from tests.databases import MariaDB, mariadb
from tests.live.conftest import Person, quiet

__all__ = ["mariadb", "quiet"]


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """See `make_certificate`."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def sites(
    tls: tuple[Path, Path], request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Site]]:
    """``sites("sqlite")``, ``sites("mariadb")``: the running server on that database, one for all tests."""
    running: dict[str, Site] = {}
    folders = []

    def get(kind: str) -> Site:
        if kind not in running:
            folders.append(tempfile.TemporaryDirectory(prefix="nestbox-site-"))  # short: a socket's path has 107 bytes
            folder = Path(folders[-1].name)
            server: MariaDB | None = request.getfixturevalue("mariadb") if kind == "mariadb" else None
            database = server.create() if server else f"sqlite:///{folder}/nestbox.db"
            site = Site(folder, database, *tls, build(tmp_path_factory.mktemp("web") / "current"))
            running[kind] = site
            asyncio.run(site.prepare())
            site.start()
        return running[kind]

    yield get
    for site in running.values():
        site.stop()
    for folder in folders:
        folder.cleanup()


@pytest.fixture
def site(sites: Callable[[str], Site], request: pytest.FixtureRequest) -> Iterator[Site]:
    """The running server."""
    site = sites(getattr(request, "param", "mariadb"))
    begin = site.log.stat().st_size
    yield site
    # What a worker could not explain is a fault, whatever the clients saw.
    said = site.log.read_bytes()[begin:].decode()
    assert "Traceback" not in said, said


@pytest.fixture
async def names(site: Site) -> list[str]:
    """Three new accounts."""
    return await site.accounts()


@pytest.fixture(scope="session")
def libraries() -> Path:
    """The folder of JavaScript's clients."""
    return install()


@pytest.fixture
async def node(site: Site, libraries: Path) -> AsyncIterator[object]:
    """``node(XmppClient, "anna1")``: a client that is told to leave at the end."""
    clients: list[NodeClient] = []

    def make(kind: type[NodeClient], name: str, resource: str = "phone") -> NodeClient:
        clients.append(kind(libraries, site, name, resource))
        return clients[-1]

    yield make
    await asyncio.gather(*(client.leave() for client in clients))


@pytest.fixture
async def person(site: Site) -> AsyncIterator[object]:
    """``await person("anna1", 2)``: slixmpp, online at worker 2; all leave at the end."""
    people: list[Person] = []

    async def come(name: str, worker: int, resource: str = "phone", kind: type[Person] = Person) -> Person:
        somebody = kind(name, resource, site)
        people.append(somebody)
        return await somebody.come(worker)

    yield come
    for somebody in people:
        await somebody.leave()


@pytest.fixture
async def web_chat(site: Site, request: pytest.FixtureRequest) -> AsyncIterator[Browser]:
    """``await web_chat("anna1")``: somebody in the web chat; what each saw and said is left in .test."""
    async with Browser(site) as browser:
        try:
            yield browser
        finally:
            for number, chat in enumerate(browser.chats, 1):
                await chat.leave_traces(f"clients-{request.node.name}-{number}")
        for chat in browser.chats:
            chat.check()


@pytest.fixture
async def service(site: Site) -> AsyncIterator[object]:
    """``await service("bot", 2)``: the component bot.DOMAIN at worker 2; all leave at the end."""
    services: list[Service] = []

    async def come(name: str, worker: int) -> Service:
        services.append(Service(name, site))
        return await services[-1].come(worker)

    yield come
    for one in services:
        await one.leave()

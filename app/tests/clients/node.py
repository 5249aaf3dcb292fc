"""XMPP libraries of JavaScript, each in a Node process that does what the test says (``js/``)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

from tests.clients.site import DOMAIN, PASSWORD, Site

__all__ = ["NodeClient", "StropheClient", "XmppClient", "install"]

SOURCES = Path(__file__).parent / "js"
Match = Callable[[object], bool]
CACHE = Path(__file__).parents[3] / ".cache" / "nestbox" / "clients"


def install() -> Path:
    """Bring the libraries of ``js/package-lock.json`` into the checkout's cache, once; returns the folder."""
    if not (shutil.which("node") and shutil.which("npm")):
        raise RuntimeError("The tests with JavaScript's clients need Node.js and npm; the distribution has both.")
    CACHE.mkdir(parents=True, exist_ok=True)
    lock, done = SOURCES / "package-lock.json", CACHE / "node_modules" / ".done"
    for file in SOURCES.iterdir():
        shutil.copy(file, CACHE)
    if not done.exists() or done.read_bytes() != lock.read_bytes():
        npm = subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund"], cwd=CACHE, capture_output=True, text=True, check=False
        )
        if npm.returncode:
            raise RuntimeError(f"npm could not bring the clients that the tests use:\n{npm.stderr[-2000:]}")
        shutil.copy(lock, done)
    return CACHE


def _parse(stanza: object) -> ET.Element:
    return ET.fromstring(f"<stream xmlns='jabber:client'>{stanza}</stream>")


class NodeClient:
    """One client. Everything that it tells is kept until a test asks for it."""

    script: str

    def __init__(self, folder: Path, site: Site, name: str, resource: str = "phone") -> None:
        self.folder, self.site, self.name, self.resource = folder, site, name, resource
        self.jid = self.full = f"{name}@{DOMAIN}"  # once it is there, with the resource that it was given
        self._told: list[tuple[str, object]] = []
        self._news = asyncio.Condition()
        self._asked = 0
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Start the process."""
        self._process = await asyncio.create_subprocess_exec(
            "node",
            self.script,
            cwd=self.folder,
            env={**os.environ, "NODE_EXTRA_CA_CERTS": str(self.site.certificate)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            limit=2**24,
        )
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for line in self._process.stdout:
            async with self._news:
                self._told.append(tuple(json.loads(line)))
                self._news.notify_all()

    async def do(self, command: str, *data: object) -> None:
        """Give it a command (see js/)."""
        self._process.stdin.write(json.dumps([command, *data]).encode() + b"\n")
        await self._process.stdin.drain()

    async def told(self, event: str, match: Match = lambda data: True, seconds: float = 15) -> object:
        """Wait for the first event of this name whose data match; it is not told again."""
        try:
            async with asyncio.timeout(seconds), self._news:
                while True:
                    for index, (name, data) in enumerate(self._told):
                        if name == event and match(data):
                            del self._told[index]
                            return data
                    await self._news.wait()
        except TimeoutError:
            lines = "\n".join(f"{name}: {data}" for name, data in self._told)
            raise AssertionError(f"{self.jid} never told {event}; it told:\n{lines}") from None

    def has_told(self, event: str, match: Match = lambda data: True) -> bool:
        """Whether such an event came and was not asked for yet."""
        return any(name == event and match(data) for name, data in self._told)

    async def stanza(self, path: str, seconds: float = 15) -> ET.Element:
        """Wait for a stanza in which ElementTree's ``path``, from its parent on, finds something."""
        return _parse(await self.told("stanza", lambda data: _parse(data).find(path) is not None, seconds))[0]

    def stanzas(self, path: str) -> list[ET.Element]:
        """All such stanzas that have come; they are not told again."""
        found = [told for told in self._told if told[0] == "stanza" and _parse(told[1]).find(path) is not None]
        self._told = [told for told in self._told if told not in found]
        return [_parse(data)[0] for _, data in found]

    async def body(self) -> str:
        """The next message's text."""
        return (await self.stanza("{jabber:client}message/{jabber:client}body")).findtext("{jabber:client}body")

    async def send(self, stanza: str) -> None:
        """Send a stanza, given as XML without its namespace."""
        await self.do("send", stanza)

    async def ask(self, payload: str, to: str = "", kind: str = "get", seconds: float = 15) -> ET.Element:
        """Send an iq, await its answer: a result or an error."""
        self._asked += 1
        number = f"ask-{self._asked}"
        address = f" to='{to}'" if to else ""
        await self.send(f"<iq xmlns='jabber:client' type='{kind}' id='{number}'{address}>{payload}</iq>")
        return await self.stanza(f"{{jabber:client}}iq[@id='{number}']", seconds)

    async def say(self, name: str, text: str) -> None:
        """Send a chat message to an account."""
        await self.say_to(f"{name}@{DOMAIN}", text)

    async def say_to(self, address: str, text: str) -> None:
        """Send a chat message to any address."""
        await self.send(f"<message xmlns='jabber:client' type='chat' to='{address}'><body>{text}</body></message>")

    async def leave(self) -> None:
        """Close the stream if it is open, then end the process."""
        if self._process is None:
            return
        with contextlib.suppress(AssertionError, BrokenPipeError, ConnectionResetError):
            await self.do("stop")
            await self.told("stopped", seconds=3)
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        self._reading.cancel()


class XmppClient(NodeClient):
    """@xmpp/client."""

    script = "xmpp.js"

    async def come(self, service: str, **options: object) -> XmppClient:
        """Log in at ``service`` (xmpp:, xmpps: or wss:) and be there."""
        await self.run()
        told = {"service": service, "domain": DOMAIN, "username": self.name, "password": PASSWORD}
        await self.do("start", {**told, "resource": self.resource, **options})
        self.full = await self.told("online")
        await self.send("<presence/>")
        return self

    def worker(self, number: int) -> str:
        """The address of a worker, to be reached with STARTTLS."""
        return f"xmpp://127.0.0.1:{self.site[number].port}"


class StropheClient(NodeClient):
    """strophe.js."""

    script = "strophe.js"

    async def come(self, service: str, **options: object) -> StropheClient:
        """Log in at ``service`` (wss: or https:) and be there."""
        await self.run()
        told = {"service": service, "jid": f"{self.jid}/{self.resource}", "password": PASSWORD}
        await self.do("start", {**told, **options})
        self.full = await self.told("online")
        await self.send("<presence xmlns='jabber:client'/>")
        return self

"""The web chat in a real Chromium."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from playwright.async_api import BrowserContext, Page, WebSocket, async_playwright

from tests.clients.site import DOMAIN, PASSWORD, Site

__all__ = ["ARTIFACTS", "ROOT", "Browser", "WebChat", "build"]

ROOT = Path(__file__).parents[3]
ARTIFACTS = ROOT / ".test"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]


def build(folder: Path) -> Path:
    """The web chat's files, as the role installs them."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "web_chat.py", folder, DOMAIN], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return folder


class WebChat:
    """Somebody's web chat on Playwright's ``page``; ``said`` has console lines, ``asked`` hosts, ``wire`` frames."""

    def __init__(self, context: BrowserContext, page: Page, site: Site, name: str) -> None:
        self.context, self.page, self.site = context, page, site
        self.jid = f"{name}@{DOMAIN}"
        self.said: list[str] = []
        self.asked: set[str] = set()
        self.wire: list[str] = []
        page.on("websocket", self._listen)
        page.on("console", lambda line: self.said.append(f"{line.type}: {line.text}"))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("request", lambda request: self.asked.add(request.url.split("/")[2] if "//" in request.url else ""))

    def _listen(self, socket: WebSocket) -> None:
        socket.on("framesent", lambda frame: self.wire.append(f"> {frame}"))
        socket.on("framereceived", lambda frame: self.wire.append(f"< {frame}"))

    async def log_in(self) -> WebChat:
        """Fill in the form and wait until one is in."""
        await self.page.goto(f"{self.site.url}/")
        await self.page.fill("input[name=jid]", self.jid)
        await self.page.fill("input[name=password]", PASSWORD)
        await self.page.click("input[type=submit], button[type=submit]")
        await self.page.wait_for_selector("converse-user-profile")
        return self

    async def open_chat(self, jid: str) -> None:
        """Open the chat with somebody whose message came or who is a contact."""
        await self.page.click(f"converse-roster >> text={jid} >> nth=0")
        await self.page.wait_for_selector("textarea.chat-textarea")

    async def join(self, room: str) -> None:
        """Enter a room by its link."""
        await self.page.goto(f"{self.site.url}/#converse/room?jid={room}")
        await self.page.wait_for_selector("converse-muc-message-form textarea.chat-textarea")

    async def encrypt(self) -> None:
        """Close the lock of the chat that is open."""
        await self.page.click(".toggle-omemo[data-disabled=false]")
        await self.page.wait_for_selector(".toggle-omemo .fa-lock")

    async def say(self, text: str) -> None:
        """Send a message in the chat that is open."""
        await self.page.fill("textarea.chat-textarea", text)
        await self.page.keyboard.press("Enter")

    async def attach(self, name: str, data: bytes) -> None:
        """Send a picture in the chat that is open."""
        file = {"name": name, "mimeType": "image/png", "buffer": data}
        await self.page.set_input_files("input.fileupload", files=[file])

    async def sees(self, text: str) -> None:
        """Wait until a message with this text is shown."""
        await self.page.wait_for_selector(f"converse-chat-message >> text={text}")

    async def leave_traces(self, name: str) -> None:
        """A picture, the console's lines and the frames, in the checkout's .test folder."""
        ARTIFACTS.mkdir(exist_ok=True)
        (ARTIFACTS / f"{name}.log").write_text("\n".join([*self.said, *self.wire]))
        await self.page.screenshot(path=ARTIFACTS / f"{name}.png")

    def check(self) -> None:
        """It asked nobody but its own server, and the content security policy refused nothing."""
        assert self.asked <= {f"127.0.0.1:{self.site.https}", ""}, self.asked
        assert not [line for line in self.said if "Content Security Policy" in line], self.said


class Browser:
    """One Chromium; each web chat has its own profile."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.chats: list[WebChat] = []

    async def __aenter__(self) -> Browser:
        path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if path is None:
            raise RuntimeError("The tests of the web chat need Chromium; the distribution has it.")
        self._playwright = await async_playwright().start()
        self._chromium = await self._playwright.chromium.launch(executable_path=path, args=FLAGS)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._chromium.close()
        await self._playwright.stop()

    async def visit(self, name: str) -> WebChat:
        """The browser of somebody who is not logged in."""
        context = await self._chromium.new_context(ignore_https_errors=True, locale="en-GB")
        self.chats.append(WebChat(context, await context.new_page(), self.site, name))
        return self.chats[-1]

    async def __call__(self, name: str) -> WebChat:
        """Somebody logged in to the web chat."""
        return await (await self.visit(name)).log_in()

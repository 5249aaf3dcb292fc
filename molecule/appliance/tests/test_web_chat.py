"""A real browser logs in to the web chat, talks to a phone's kind of client, and asks no other host for anything."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import urllib.request
from pathlib import Path

import pytest
from clients import DOMAIN
from playwright.async_api import async_playwright

pytest_plugins = ["appliance"]

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ARTIFACTS = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / ".test"


def test_browser_chats(appliance, release):
    assert BROWSER, "no Chromium on this machine: scripts/apt-need 'The tests' chromium"

    async def chat() -> None:
        async with async_playwright() as playwright, appliance.tcp("bob") as bob:
            bob.send_presence()
            browser = await playwright.chromium.launch(
                executable_path=BROWSER, args=[*FLAGS, f"--host-resolver-rules=MAP {DOMAIN} {appliance.address}"]
            )
            page = await browser.new_page(ignore_https_errors=True, locale="en-GB")
            asked, said = set(), []
            page.on("request", lambda request: asked.add(request.url.split("/")[2] if "//" in request.url else DOMAIN))
            page.on("console", lambda line: said.append(line.text))
            try:
                await page.goto(f"https://{DOMAIN}/")
                await page.fill("input[name=jid]", "ada")
                await page.fill("input[name=password]", appliance.passwords["ada"])
                await page.click("input[type=submit], button[type=submit]")
                await page.wait_for_selector("converse-user-profile")
                assert "Nestbox" in await page.title()
                bob.send_message(f"ada@{DOMAIN}", "Good morning, browser", mtype="chat")
                await page.click(f"converse-roster >> text=bob@{DOMAIN} >> nth=0")
                await page.wait_for_selector("text=Good morning, browser")
                await page.fill("textarea.chat-textarea", "Good morning, phone")
                await page.keyboard.press("Enter")
                assert await bob.text() == (f"ada@{DOMAIN}", "Good morning, phone")
                await page.wait_for_selector("converse-chat-message >> text=Good morning, phone")
            finally:
                ARTIFACTS.mkdir(exist_ok=True)
                await page.screenshot(path=ARTIFACTS / f"web-chat-{release}.png")
                await browser.close()
            assert asked == {DOMAIN}, said
            assert not [line for line in said if "Content Security Policy" in line]

    asyncio.run(chat())


@pytest.fixture
def fetch(appliance):
    """GET a path over HTTPS: status, headers, text. The certificate is checked against the appliance's CA and name."""
    context = ssl.create_default_context(cafile=appliance.ca)
    context.check_hostname = False  # the request goes to the address; the certificate's name is checked in test_site.py

    def get(path: str):
        request = urllib.request.Request(f"https://{appliance.address}{path}", headers={"Host": DOMAIN})
        with urllib.request.urlopen(request, context=context, timeout=20) as answer:
            return answer.status, answer.headers, answer.read().decode()

    return get


def test_page_is_in_the_appliances_name(fetch):
    status, headers, text = fetch("/")
    assert status == 200 and "<title>Nestbox</title>" in text
    assert headers["Strict-Transport-Security"]


def test_web_clients_find_the_websocket(fetch):
    links = json.loads(fetch("/.well-known/host-meta.json")[2])["links"]
    assert {"rel": "urn:xmpp:alt-connections:websocket", "href": f"wss://{DOMAIN}/xmpp-websocket"} in links


def test_nobody_reads_files_outside_the_web_chat(appliance):
    paths = ["/../../../../etc/passwd", "/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/dist/..%2f..%2f..%2f..%2fetc/passwd"]
    for path in paths:
        said = appliance.host.run(
            f"curl -ks --path-as-is -o /dev/null -w %{{http_code}} https://127.0.0.1{path}"
        ).stdout
        assert said in {"400", "403", "404"}, path

"""What apps expect beside messages, through HAProxy and across workers: keys for OMEMO, files, bots."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import secrets
import ssl
import urllib.error
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar

import pytest
from clients import DOMAIN
from slixmpp.xmlstream import ET

pytest_plugins = ["appliance"]

UPLOAD = "urn:xmpp:http:upload:0"
OMEMO = "eu.siacs.conversations.axolotl.devicelist"


def test_a_list_of_omemo_devices_is_read_and_announced_on_another_worker(appliance):
    devices = ET.fromstring('<list xmlns="eu.siacs.conversations.axolotl"><device id="31415"/></list>')

    async def publish() -> None:
        async with appliance.on_each_worker("ada") as ada, appliance.tcp("bob", 5223) as bob:
            heard = asyncio.create_task(ada[2].wait_until("pubsub_publish", 20))
            ada[2].plugin["xep_0030"].add_feature(f"{OMEMO}+notify")
            await ada[2].plugin["xep_0115"].update_caps()
            form = ada[1].plugin["xep_0004"].make_form("submit")
            form.add_field("FORM_TYPE", ftype="hidden", value="http://jabber.org/protocol/pubsub#publish-options")
            form.add_field("pubsub#access_model", value="open")
            await ada[1].plugin["xep_0060"].publish(None, OMEMO, id="current", payload=devices, options=form)
            await heard
            got = await bob.plugin["xep_0060"].get_items(f"ada@{DOMAIN}", OMEMO)
            [item] = got["pubsub"]["items"]
            assert [device.get("id") for device in item["payload"]] == ["31415"]

    asyncio.run(publish())


class Cookies(CookieJar):
    """Sends back what it was given, to the one host that is asked."""

    def add_cookie_header(self, request: urllib.request.Request) -> None:
        kept = [f"{cookie.name}={cookie.value}" for cookie in self]
        if kept:
            request.add_unredirected_header("Cookie", "; ".join(kept))


@pytest.fixture
def https(appliance):
    """Send a request to the appliance: status, headers and body of the answer. The certificate must be of the appliance's CA."""
    context = ssl.create_default_context(cafile=appliance.ca)
    context.check_hostname = False  # the request goes to the address; names are checked in test_site.py
    browser = urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=context), urllib.request.HTTPCookieProcessor(Cookies())
    )

    def send(method: str, url: str, data: bytes | None = None, **headers: str):
        assert url.startswith(f"https://{DOMAIN}/"), url
        request = urllib.request.Request(url.replace(DOMAIN, appliance.address, 1), data, method=method)
        for name, value in {"Host": DOMAIN, **headers}.items():
            request.add_header(name, value)
        try:
            with browser.open(request, timeout=60) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    return send


async def slot(client, name: str, size: int) -> tuple[str, str]:
    """Ask for a slot (XEP-0363, section 5): the addresses to put and to get."""
    ask = client.make_iq_get(ito=f"upload.{DOMAIN}")
    ask.append(ET.fromstring(f'<request xmlns="{UPLOAD}" filename="{name}" size="{size}" content-type="video/mp4"/>'))
    answer = (await ask.send(timeout=20)).xml
    put, get = (answer.find(f".//{{{UPLOAD}}}{kind}").get("url") for kind in ("put", "get"))
    return put, get


def test_a_file_goes_up_and_comes_down_whole_through_443(appliance, https):
    film = os.urandom(20_000_000)

    async def slots() -> list[tuple[str, str]]:
        async with appliance.tcp("ada") as ada:
            return [await slot(ada, name, len(film)) for name in ("a film.mp4", "unused.mp4")]

    (put, get), (unused, never) = asyncio.run(slots())
    assert https("PUT", put, film, **{"Content-Type": "video/mp4"})[0] == 201
    for _ in range(4):  # whichever worker answers
        status, headers, body = https("GET", get)
        assert (status, headers["Content-Type"]) == (200, "video/mp4")
        assert hashlib.sha256(body).digest() == hashlib.sha256(film).digest()
    assert https("PUT", put, film)[0] in {403, 404, 409}, "a slot is for one file"
    assert https("PUT", unused, film[:100])[0] in {400, 403, 413}, "a file has the announced length"
    assert https("GET", never)[0] == 404


def test_an_invite_makes_an_account_that_can_chat(appliance, https):
    host = appliance.host
    host.run("nestboxctl user delete fay --yes")
    invite = json.loads(host.check_output("nestboxctl invite create --contact bob --json"))
    status, _, page = https("GET", invite["link"])
    form = re.search(r'name="form" value="([^"]+)"', page.decode())
    assert status == 200 and f"bob@{DOMAIN}" in page.decode() and form
    password = secrets.token_urlsafe(12)
    fields = {"form": form[1], "username": "fay", "password": password, "again": password}
    made = https("POST", invite["link"], urllib.parse.urlencode(fields).encode())
    assert made[0] == 201 and f"fay@{DOMAIN}" in made[2].decode(), made
    assert https("GET", invite["link"])[0] == 410, "good for one account"
    appliance.passwords["fay"] = password

    async def chat() -> None:
        async with appliance.tcp("fay") as fay, appliance.tcp("bob", 5223) as bob:
            for client in (fay, bob):
                client.send_presence()
            await fay.get_roster()
            assert f"bob@{DOMAIN}" in fay.client_roster
            fay.send_message(f"bob@{DOMAIN}", "thank you", mtype="chat")
            assert await bob.text() == (f"fay@{DOMAIN}", "thank you")

    asyncio.run(chat())


def test_files_lie_where_only_the_server_reads_them(host):
    assert host.check_output("stat -c '%a %U' /var/lib/nestbox/uploads") == "700 nestbox"


def test_a_bot_on_the_pi_connects_as_its_host(host):
    """Raw XEP-0114, from inside: the port is for this machine only."""
    script = """
import hashlib, re, socket
bot = socket.create_connection(("127.0.0.1", 5347), 10)
said = b""
def read_until(pattern):
    global said
    while not (found := re.search(pattern, said)):
        data = bot.recv(4096)
        assert data, said
        said += data
    return found[1]
bot.sendall(b"<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='bot.nestbox.test'>")
number = read_until(rb" id=.([0-9a-f]+)")
bot.sendall(b"<handshake>%s</handshake>" % hashlib.sha1(number + b"a-secret-of-the-test").hexdigest().encode())
print(read_until(rb"(<handshake)").decode())
"""
    assert host.check_output("timeout 20 python3 -c %s", script) == "<handshake"

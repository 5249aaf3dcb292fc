"""The stream of a component (XEP-0114), who may open one, and what is too much."""

import asyncio
import hashlib
import re

import pytest

from nestbox.config import ConfigError, load
from nestbox.core.server import Server
from nestbox.net.component import listen_for_components
from tests.net.components.conftest import BOT, DOMAIN, PATIENCE, SECRET

# the stream


async def test_the_handshake(site):
    bot = await site.bot()
    assert bot.header["from"] == BOT and len(bot.header["id"]) >= 16 and "version" not in bot.header
    other = await site.stranger().open()
    assert other.header["id"] != bot.header["id"]


@pytest.mark.parametrize("proof", ["", "0" * 40, "é", hashlib.sha1(SECRET.encode()).hexdigest()])
async def test_a_wrong_handshake(site, proof):
    bot = await site.stranger().open()
    bot.send(f"<handshake>{proof}</handshake>")
    assert await bot.end() == "not-authorized"
    assert not site.places(1)


async def test_a_stanza_before_the_handshake(site):
    bot = await site.stranger().open()
    bot.send(f"<message from='{BOT}' to='anna@{DOMAIN}'/>")
    assert await bot.end() == "not-authorized"


async def test_an_upper_case_handshake_is_one(site):
    bot = await site.stranger().open()
    proof = hashlib.sha1((bot.header["id"] + SECRET).encode()).hexdigest().upper()
    bot.send(f"<handshake>{proof}</handshake>")
    await bot.expect("handshake")


@pytest.mark.parametrize(
    ("facts", "error"),
    [
        ({"to": "other.nestbox.test"}, "host-unknown"),
        ({"to": DOMAIN}, "host-unknown"),
        ({"to": "x" * 300}, "host-unknown"),
        ({"ns": "jabber:client"}, "invalid-namespace"),
        ({"ns": "jabber:server"}, "invalid-namespace"),
    ],
)
async def test_a_header_that_is_refused(site, facts, error):
    bot = await site.stranger().open(**facts)
    assert await bot.end() == error


@pytest.mark.parametrize("worker", [1, 2])
async def test_a_second_connection_is_a_conflict(site, worker):
    first = await site.bot(worker=1)
    second = await site.stranger(worker=worker).come()
    assert await second.end() == "conflict"
    anna = await site.world.client("anna")
    await anna.send(f"<message to='{BOT}'><body>still there?</body></message>")
    await first.expect("message")


async def test_it_may_come_back_on_another_worker(site):
    await (await site.bot(worker=1)).leave()
    await site.world.settle()
    bot = await site.bot(worker=2)
    anna = await site.world.client("anna")
    await anna.send(f"<message to='{BOT}'><body>hi</body></message>")
    await bot.expect("message")


@pytest.mark.parametrize(
    ("xml", "error"),
    [
        (f"<message from='anna@{DOMAIN}' to='anna@{DOMAIN}'/>", "invalid-from"),
        (f"<message from='{DOMAIN}' to='anna@{DOMAIN}'/>", "invalid-from"),
        (f"<message from='irc.nestbox.test' to='anna@{DOMAIN}'/>", "invalid-from"),
        (f"<message from='x.{BOT}' to='anna@{DOMAIN}'/>", "invalid-from"),
        ("<message from='@' to='anna@nestbox.test'/>", "invalid-from"),
        (f"<message to='anna@{DOMAIN}'/>", "invalid-from"),
        (f"<message from='{BOT}'/>", "improper-addressing"),
        ("<other/>", "unsupported-stanza-type"),
        ("<message xmlns='jabber:server'/>", "unsupported-stanza-type"),
        ("<message", "not-well-formed"),
        ("<!-- -->", "restricted-xml"),
    ],
)
async def test_what_a_component_may_not_send(site, xml, error):
    bot = await site.bot()
    bot.send(xml + "</stream:stream>" if xml == "<message" else xml)
    assert await bot.end() == error
    await site.world.settle()
    assert not site.places(1) and not site.places(2)


async def test_it_ends_its_stream(site):
    bot = await site.bot()
    bot.send("</stream:stream>")
    assert await bot.end() is None
    await site.world.settle()
    assert not site.places(2)


# limits


async def test_so_many_connections_only(site):
    site.world.config.limits.component_connections = 1
    await site.bot()
    assert await (await site.stranger().open()).end() == "resource-constraint"
    assert site.world.limits_hit() == {"component_connections": 1}


async def test_no_handshake(site, monkeypatch):
    monkeypatch.setattr(site.world.config.limits, "login_seconds", 0.05)
    assert await (await site.stranger().open()).end() == "connection-timeout"
    assert site.world.limits_hit() == {"login_seconds": 1}


async def test_little_is_read_before_the_handshake_and_much_after(site):
    bot = await site.stranger().open()
    bot.send(f"<handshake>{'0' * 20_000}</handshake>")
    assert await bot.end() == "policy-violation"
    bot = await site.bot()
    anna = await site.world.client("anna")
    bot.send(f"<message from='{BOT}' to='{anna.jid}'><body>{'x' * 200_000}</body></message>")
    await anna.expect("message")
    bot.send(f"<message from='{BOT}' to='{anna.jid}'><body>{'x' * 300_000}</body></message>")
    assert await bot.end() == "policy-violation"
    assert site.world.limits_hit() == {"stanza_bytes_before_login": 1, "stanza_bytes": 1}


async def test_a_component_that_does_not_read_is_cut(site):
    bot = await site.bot()
    bot.reader._transport.pause_reading()
    anna = await site.world.client("anna")
    server = site.world.servers[1]
    async with asyncio.timeout(PATIENCE):
        while server.components.here:
            for _ in range(20):
                await anna.send(f"<message to='{BOT}' type='headline'><body>{'x' * 200_000}</body></message>")
            await asyncio.sleep(0)
    bot.reader._transport.abort()


# who may come


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:5347", ":5347"])
async def test_only_this_machine_may_connect(site, address):
    site.world.config.listen.component = address
    with pytest.raises(ValueError, match="may only come from this machine"):
        await listen_for_components(site.world.servers[1], 1)


async def test_without_components_nobody_listens(config, tmp_path):
    config.components = []
    server = Server.__new__(Server)
    server.config, server.components = config, None
    assert await listen_for_components(server, 1) is None


@pytest.mark.parametrize(
    "components",
    [
        "[{host: nestbox.test, secret: 0123456789abcdef}]",
        "[{host: rooms.nestbox.test, secret: 0123456789abcdef}]",
        "[{host: a.b, secret: 0123456789abcdef}, {host: A.B, secret: 0123456789abcdef}]",
        "[{host: a.b, secret: short}]",
        "[{host: a.b, secret: '0123456789abcdef&'}]",
        "[{host: 'a b', secret: 0123456789abcdef}]",
        "[{host: a.b}]",
    ],
)
def test_a_configuration_that_cannot_be(tmp_path, components):
    path = tmp_path / "nestbox.yml"
    path.write_text(f"domain: nestbox.test\ncomponents: {components}\n")
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        load(path)

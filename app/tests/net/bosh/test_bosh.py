"""BOSH (XEP-0124, XEP-0206): sessions, how they begin and end, and the HTTP they are carried by."""

import asyncio
import contextlib
from xml.etree import ElementTree

import pytest
from tornado.httpclient import HTTPError

from nestbox.core.errors import StreamError
from nestbox.net import bosh_session as module
from tests.net.bosh.conftest import AUTH, DOMAIN, NS, PING, RID, SASL, Client, over

# sessions


async def test_a_session_is_created_as_the_client_asked(site):
    client = Client(site)
    answer = await client.create(ver="1.11", ack="1", wait="45", hold="3")
    facts = {name: answer.get(name) for name in ("wait", "hold", "requests", "ver", "from", "ack", "polling")}
    assert facts == {
        "wait": "45", "hold": "1", "requests": "2", "ver": "1.11", "from": DOMAIN, "ack": str(RID), "polling": "5",
    }  # fmt: skip
    assert int(answer.get("inactivity")) > 5
    assert answer.get("{urn:xmpp:xbosh}version") == "1.0" and answer.get("{urn:xmpp:xbosh}restartlogic") == "true"
    names = answer[0].findall(f".//{{{SASL}}}mechanism")
    assert {"SCRAM-SHA-256", "PLAIN"} <= {name.text for name in names}
    assert not any(name.text.endswith("-PLUS") for name in names)
    other = await Client(site).create()
    assert other.get("sid") != answer.get("sid") and other.get("ver") == "1.6" and other.get("ack") is None


async def test_a_client_logs_in_and_chats(site):
    client = await Client(site).login()
    [session] = site.world.servers[1].registry.sessions.values()
    assert client.jid == session.full and session.entry.transport == "bosh" and session.entry.address == "192.0.2.7"
    ben = await site.world.client("ben", worker=2)
    hello = f"<message xmlns='jabber:client' to='{ben.bare}' type='chat'><body>hi</body></message>"
    holding = asyncio.create_task(client.send("<presence xmlns='jabber:client'/>" + hello))
    assert (await ben.expect("message")).element[0].text == "hi"
    await holding
    waiting = asyncio.create_task(client.send())
    await ben.send(f"<message to='{client.jid}' type='chat'><body>a &lt; b</body></message>")
    got = (await waiting).find("{jabber:client}message")
    assert got.findtext("{jabber:client}body") == "a < b" and got.get("from") == ben.jid


async def test_a_session_works_through_the_other_worker(site):
    client = await Client(site).login()
    client.worker = 2
    assert (await client.send(PING))[0].get("type") == "result"
    assert not site.world.servers[2].registry.sessions
    waiting = asyncio.create_task(client.send())
    ben = await site.world.client("ben", worker=2)
    await ben.send(f"<message to='{client.jid}' type='chat'><body>over there</body></message>")
    assert b"over there" in ElementTree.tostring(await waiting)
    assert over(await client.send(type="terminate"))
    await site.until(lambda: client.jid not in site.world.servers[1].registry.sessions)
    assert not site.boshes[2]._asked and not site.boshes[1]._serving


async def test_a_request_that_was_given_up_at_the_other_worker_takes_no_message_with_it(site):
    client = await Client(site, worker=1).login()
    client.worker = 2
    waiting = asyncio.create_task(client.send())
    await site.until(lambda: site.boshes[1]._serving)
    for http in site._https[1:]:
        await http.close_all_connections()
    await site.until(lambda: not site.boshes[1]._serving)
    waiting.cancel()
    ben = await site.world.client("ben", worker=2)
    await ben.send(f"<message to='{client.jid}' type='chat'><body>not lost</body></message>")
    assert b"not lost" in ElementTree.tostring(await client.send(worker=1))


async def test_a_dead_workers_session_is_not_there(site):
    client = Client(site, worker=2)
    await client.create()
    await site.world.servers[2].bus.close()
    assert over(await client.send(worker=1), "item-not-found")


async def test_a_request_that_a_worker_held_as_it_died(site):
    client = await Client(site, worker=1).login()
    client.worker = 2
    waiting = asyncio.create_task(client.send())
    await site.until(lambda: site.boshes[1]._serving)
    await site.world.servers[1].bus.close()
    await site.world.servers[2].registry.worker_lost(1)
    assert over(await waiting, "item-not-found")


async def test_the_restart_offers_what_is_there_after_the_login(site):
    client = Client(site)
    await client.create()
    await client.send(AUTH)
    features = (await client.send(xmpp__restart="true"))[0]
    assert features.find("{urn:ietf:params:xml:ns:xmpp-bind}bind") is not None
    assert features.find(f"{{{SASL}}}mechanisms") is None


async def test_nobody_logs_in_over_plain_http(site):
    client = Client(site)
    client.headers = {}
    answer = await client.create()
    assert not answer[0].findall(f".//{{{SASL}}}mechanism")
    assert (await client.send(AUTH))[0].tag == f"{{{SASL}}}failure"


# what cannot become a session


@pytest.mark.parametrize(
    ("attributes", "condition"),
    [
        ({"to": "elsewhere.test"}, "host-unknown"),
        ({"to": None}, "improper-addressing"),
        ({"rid": None}, "bad-request"),
        ({"rid": "x"}, "bad-request"),
        ({"rid": "0"}, "bad-request"),
        ({"rid": str(2**53)}, "bad-request"),
        ({"wait": "soon"}, "bad-request"),
        ({"hold": "-1"}, "bad-request"),
        ({"ver": "new"}, "bad-request"),
    ],
)
async def test_a_session_that_cannot_be(site, attributes, condition):
    answer = await Client(site).create(**attributes)
    assert over(answer, condition) and answer.get("sid") is None
    assert not site.boshes[1]._sessions and site.boshes[1].options.open == 0


@pytest.mark.parametrize(
    "data",
    [
        "",
        "hello",
        "<body",
        f"<body xmlns='{NS}' rid='1' to='{DOMAIN}'>",
        f"<body xmlns='{NS}' rid='1' to='{DOMAIN}'>text</body>",
        f"<other xmlns='{NS}' rid='1' to='{DOMAIN}'/>",
        f"<body rid='1' to='{DOMAIN}'/>",
        f"<!DOCTYPE x [<!ENTITY a 'b'>]><body xmlns='{NS}' rid='1' to='{DOMAIN}'/>",
        f"<body xmlns='{NS}' rid='1' to='{DOMAIN}'/><body/>",
        "<?xml version='1.0' encoding='utf-16'?><body/>".encode("utf-16"),
    ],
)
async def test_what_is_no_request(site, data):
    assert over(await Client(site).post(data), "bad-request")


async def test_an_unsupported_xmpp_version_is_a_stream_error(site):
    answer = await Client(site).create(xmpp__version="zero")
    assert over(answer, "remote-stream-error")
    assert answer[0][0].tag == "{urn:ietf:params:xml:ns:xmpp-streams}unsupported-version"


async def test_an_unknown_session_is_not_found(site):
    client = Client(site)
    for client.sid in ("1-nothing", "2-nothing", "99-nothing", "nothing", "1"):
        assert over(await client.send(), "item-not-found")


async def test_a_bad_request_ends_the_session_it_is_for(site):
    client = await Client(site).login()
    waiting = await site.hold(client)
    assert over(await client.post(f"<body xmlns='{NS}' rid='7' sid='{client.sid}'><a></body>"), "bad-request")
    assert over(await waiting, "other-request")
    assert site.session(client) is None


# the end


async def test_the_client_ends_the_session(site):
    client = await Client(site).login()
    await site.world.friends("anna", "ben")
    ben = await site.world.client("ben", worker=2)
    await client.send("<presence xmlns='jabber:client'/>")
    await ben.expect("presence", from_=client.jid)
    waiting = await site.hold(client)
    gone = "<presence xmlns='jabber:client' type='unavailable'><status>bye</status></presence>"
    ended = asyncio.create_task(client.send(gone, type="terminate"))
    first = await waiting
    assert over(await ended) and first.get("condition") is None
    assert (await ben.expect("presence", type="unavailable", from_=client.jid)).element[0].text == "bye"
    await site.until(lambda: not site.world.servers[1].registry.of(f"anna@{DOMAIN}"))
    assert over(await client.send(), "item-not-found")
    assert site.boshes[1].options.open == 0 and not site.connections[1].open


async def test_the_server_ends_the_session(site):
    client = await Client(site).login()
    [session] = site.world.servers[1].registry.sessions.values()
    waiting = await site.hold(client)
    await site.world.servers[1].end_session(session, StreamError("conflict", "Somewhere else."))
    answer = await waiting
    assert over(answer, "remote-stream-error")
    assert answer[0].tag == "{http://etherx.jabber.org/streams}error"
    assert answer[0][0].tag == "{urn:ietf:params:xml:ns:xmpp-streams}conflict"


async def test_an_end_that_nobody_waits_for_is_told_later(site):
    client = await Client(site).login()
    [session] = site.world.servers[1].registry.sessions.values()
    await site.world.servers[1].end_session(session, StreamError("system-shutdown", "Later."))
    assert over(await client.send(), "system-shutdown")
    assert site.session(client) is None


async def test_a_session_without_requests_ends(site, monkeypatch):
    monkeypatch.setattr(module, "INACTIVITY", 0.2)
    client = await Client(site).login()
    await site.until(lambda: site.session(client) is None)
    await site.until(lambda: not site.world.servers[1].registry.sessions)
    assert over(await client.send(), "item-not-found")


async def test_what_an_absent_client_did_not_fetch_waits_for_the_next(site, monkeypatch):
    client = await Client(site).login()
    await client.send("<presence xmlns='jabber:client'/>")
    ben = await site.world.client("ben", worker=2)
    monkeypatch.setattr(module, "INACTIVITY", 0.3)
    await client.send(PING)
    for number in range(3):
        await ben.send(f"<message to='{client.jid}' type='chat'><body>{number}</body></message>")
    await site.until(lambda: site.session(client) is None)
    await site.world.settle()
    desk = await site.world.client("anna", "desk", presence=None)
    await desk.send("<presence/>")
    bodies = [(await desk.expect("message")).element.findtext("{jabber:client}body") for _ in range(3)]
    assert bodies == ["0", "1", "2"]


async def test_a_held_request_keeps_the_session_alive(site, monkeypatch):
    monkeypatch.setattr(module, "INACTIVITY", 0.3)
    client = await Client(site).login(wait="1")
    await client.send()  # far longer than the inactivity
    assert site.session(client) is not None


async def test_a_client_that_does_not_log_in_is_sent_away(site):
    site.world.config.limits.login_seconds = 0
    client = Client(site)
    await client.create()
    waiting = await site.hold(client)
    site.connections[1].tick()
    assert (await waiting)[0][0].tag == "{urn:ietf:params:xml:ns:xmpp-streams}connection-timeout"


# HTTP


async def test_the_answers_type_is_the_clients_wish_within_reason(site):
    client = Client(site)
    facts = {"to": DOMAIN, "wait": "30", "hold": "1", "ver": "1.6"}
    answer = await client.raw(client.body(**facts))
    assert answer.headers["Content-Type"] == "text/xml; charset=utf-8"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    answer = await client.raw(client.body(**facts, content="text/plain; charset=utf-8"))
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    answer = await client.raw(client.body(**facts, content="a&#10;b"))
    assert answer.headers["Content-Type"] == "text/xml; charset=utf-8"


async def test_pages_of_configured_origins_may_ask(site):
    client = Client(site)
    for origin in ("https://intranet.test", "https://chat.test"):
        answer = await client.raw("", method="OPTIONS", Origin=origin, Access_Control_Request_Method="POST")
        assert answer.code == 204 and answer.headers["Access-Control-Allow-Origin"] == origin
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
        assert answer.headers["Access-Control-Allow-Headers"] == "Content-Type"
        answer = await client.raw(client.body(to=DOMAIN), Origin=origin)
        assert answer.headers["Access-Control-Allow-Origin"] == origin and answer.headers["Vary"] == "Origin"
    for method in ("OPTIONS", "POST"):
        answer = await client.raw("", method=method, Origin="https://evil.test")
        assert answer.code == 403 and "Access-Control-Allow-Origin" not in answer.headers
    assert "Access-Control-Allow-Origin" not in (await client.raw(client.body(to=DOMAIN))).headers
    assert (await client.raw("", method="GET")).code == 405


async def test_a_request_beyond_all_measure_is_cut_short(site):
    with contextlib.suppress(HTTPError):
        assert (await Client(site).raw("A" * 3_000_000)).code in (400, 413, 599)
    assert not site.boshes[1]._sessions

"""Clients of three makers log in by every way there is, and come back to their session on another worker."""

from __future__ import annotations

import pytest

from tests.clients.node import StropheClient, XmppClient
from tests.clients.site import DOMAIN, PASSWORD, both_databases


@pytest.mark.parametrize("way", ["STARTTLS", "TLS", "WebSocket"])
async def test_xmpp_js_logs_in(site, names, node, way):
    anna = node(XmppClient, names[0])
    services = {"STARTTLS": anna.worker(2), "TLS": f"xmpps://127.0.0.1:{site.c2s_tls}", "WebSocket": site.websocket}
    await anna.come(services[way])
    answer = await anna.ask("<ping xmlns='urn:xmpp:ping'/>", DOMAIN)
    assert answer.get("type") == "result"


@pytest.mark.parametrize("way", ["WebSocket", "BOSH"])
async def test_strophe_logs_in(site, names, node, way):
    anna = await node(StropheClient, names[0]).come(site.websocket if way == "WebSocket" else site.bosh)
    answer = await anna.ask("<ping xmlns='urn:xmpp:ping'/>", DOMAIN)
    assert answer.get("type") == "result"
    await anna.told("sent", lambda data: "mechanism='SCRAM-SHA-512'" in data.replace('"', "'"))


@pytest.mark.parametrize("kind", [XmppClient, StropheClient])
async def test_wrong_password_is_said(site, names, node, kind):
    anna = node(kind, names[0])
    await anna.run()
    told = {"service": site.websocket, "domain": DOMAIN, "username": anna.name, "jid": anna.jid, "password": "wrong"}
    await anna.do("start", told)
    await anna.told("error")
    await anna.told("received", lambda data: "<not-authorized" in data)


@both_databases
async def test_xmpp_js_resumes_on_another_worker(site, names, node, person):
    anna = node(XmppClient, names[0])
    await anna.come(anna.worker(1))
    await anna.told("received", lambda data: "<enabled " in data)
    ben = await person(names[1], 2)
    await anna.do("lose", anna.worker(3))
    for number in range(20):
        ben.send_message(anna.jid, f"while you were away {number}", mtype="chat")
    assert await anna.told("resumed") == anna.full
    assert [await anna.body() for _ in range(20)] == [f"while you were away {number}" for number in range(20)]
    await anna.say(names[1], "here again")
    assert (await ben.next_message())["body"] == "here again"
    assert not anna.has_told("unsent")


async def test_strophe_resumes_on_another_worker(site, names, node, person):
    anna = node(StropheClient, names[0])
    await anna.come(site.websocket, enableStreamManagement=True)
    await anna.told("received", lambda data: "<enabled" in data)
    ben = await person(names[1], 2)
    await anna.do("lose", site.websocket, f"{anna.jid}/phone", PASSWORD)  # HAProxy chooses the next worker
    for number in range(5):
        ben.send_message(anna.jid, f"while you were away {number}", mtype="chat")
    await anna.told("resumed")
    assert [await anna.body() for _ in range(5)] == [f"while you were away {number}" for number in range(5)]


async def test_slixmpp_resumes_on_another_worker(site, names, person):
    anna, ben = await person(names[0], 1), await person(names[1], 2)
    await ben.lose()
    anna.send_message(ben.boundjid.bare, "while you were away", mtype="chat")
    await ben.come(4)
    assert (await ben.next_message())["body"] == "while you were away"
    assert ben.plugin["xep_0198"].enabled_in


@both_databases
async def test_xmpp_js_logs_in_at_once_and_again_by_token(site, names, node):
    """SASL2 with Bind 2 in one round trip, then FAST (XEP-0388, XEP-0386, XEP-0484)."""
    anna = node(XmppClient, names[0])
    await anna.come(anna.worker(1))
    request = await anna.told("sent", lambda data: data.startswith("<authenticate "))
    assert "urn:xmpp:bind:0" in request and "request-token" in request and "SCRAM" in request
    success = await anna.told("received", lambda data: data.startswith("<success "))
    assert "urn:xmpp:fast:0" in success and "urn:xmpp:sm:3" in success
    await anna.do("again", anna.worker(2))
    request = await anna.told("sent", lambda data: data.startswith("<authenticate "))
    assert 'mechanism="HT-SHA-256-NONE"' in request
    assert await anna.told("online")
    await anna.do("lose", anna.worker(3))
    await anna.told("sent", lambda data: data.startswith("<authenticate ") and "urn:xmpp:sm:3" in data)
    await anna.told("resumed")
    answer = await anna.ask("<ping xmlns='urn:xmpp:ping'/>", DOMAIN)
    assert answer.get("type") == "result"

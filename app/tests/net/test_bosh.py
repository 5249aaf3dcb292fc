"""BOSH (XEP-0124, XEP-0206) over real HTTP, on two workers with a real core and store."""

import asyncio
import base64
import contextlib
import itertools
from xml.etree import ElementTree

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPError
from tornado.httpserver import HTTPServer

from nestbox.config import Config, Database, Limits, Web
from nestbox.core.errors import StreamError
from nestbox.http.app import make_app
from nestbox.net import bosh_session as module
from nestbox.net.bosh import Bosh
from nestbox.net.connection import Connections
from nestbox.net.listen import bind
from nestbox.net.transport import TransportOptions
from nestbox.protocol.stream import StreamOptions
from nestbox.store import open_store
from tests.modules.harness import World

DOMAIN = "nestbox.test"
NS = "http://jabber.org/protocol/httpbind"
RID = 4_000_000_000
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
PLAIN = base64.b64encode(b"\0anna\0correct horse").decode()
AUTH = f"<auth xmlns='{SASL}' mechanism='PLAIN'>{PLAIN}</auth>"
BIND = "<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"
PING = "<iq xmlns='jabber:client' type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>"
PATIENCE = 8


class Site:
    """Two workers, each with its HTTP port."""

    def __init__(self, world):
        self.world = world
        self.ports = {}
        self.boshes = {}
        self.connections = {}
        self._https = []

    def serve(self, number):
        server = self.world.servers[number]
        options = StreamOptions(domain=DOMAIN, plain_allowed=True, features_after_auth=list(server.stream_features))
        connections = self.connections[number] = Connections(server, options, None)
        self.boshes[number] = Bosh(
            server, connections.accept, TransportOptions(max_buffer=self.world.config.limits.write_buffer_bytes)
        )
        http = HTTPServer(
            make_app(
                server,
                number,
                make_receiver=connections.accept,
                websockets=TransportOptions(),
                bosh=self.boshes[number],
                problem=lambda: None,
                trusted=True,
            )
        )
        sock = bind("127.0.0.1:0")
        self.ports[number] = sock.getsockname()[1]
        http.add_socket(sock)
        self._https.append(http)

    def session(self, client):
        """The server's side of a client's session, None when there is none."""
        return next((b._sessions[client.sid] for b in self.boshes.values() if client.sid in b._sessions), None)

    async def hold(self, client):
        """The task of a request that is held, once there is nothing left to say."""
        while True:
            await self.world.settle()
            waiting = asyncio.create_task(client.send())
            await self.until(lambda task=waiting: task.done() or self.session(client)._live() == 1)
            if not waiting.done():
                return waiting

    async def until(self, condition):
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def stop(self):
        for http in self._https:
            http.stop()
            await http.close_all_connections()


class Client:
    """A BOSH client that sends what a test wants, to the worker that the test wants."""

    def __init__(self, site, worker=1):
        self.site = site
        self.worker = worker
        self.http = AsyncHTTPClient(force_instance=True, max_clients=20)
        self.rids = itertools.count(RID)
        self.sid = None
        self.headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}

    async def raw(self, data, *, worker=None, method="POST", **headers):
        """One request; the HTTP answer."""
        return await self.http.fetch(
            f"http://127.0.0.1:{self.site.ports[worker or self.worker]}/http-bind",
            method=method,
            body=None if method in ("GET", "OPTIONS") else data,
            headers=self.headers | {name.replace("_", "-"): value for name, value in headers.items()},
            request_timeout=PATIENCE,
            raise_error=False,
        )

    async def post(self, data, **options):
        """One request; the answer's <body/>."""
        answer = await self.raw(data, **options)
        assert answer.code == 200, answer.body
        body = ElementTree.fromstring(answer.body)
        assert body.tag == f"{{{NS}}}body"
        return body

    def body(self, payload="", **attributes):
        """A request with the next rid."""
        facts = {"rid": str(next(self.rids)) if "rid" not in attributes else attributes.pop("rid")}
        if self.sid:
            facts["sid"] = self.sid
        facts |= {name.replace("__", ":"): value for name, value in attributes.items()}
        written = "".join(f" {name}='{value}'" for name, value in facts.items() if value is not None)
        return f"<body xmlns='{NS}' xmlns:xmpp='urn:xmpp:xbosh'{written}>{payload}</body>"

    async def create(self, **attributes):
        """Ask for a session."""
        facts = {"to": DOMAIN, "wait": "30", "hold": "1", "ver": "1.6", "xmpp__version": "1.0", "xml__lang": "en"}
        answer = await self.post(self.body(**(facts | attributes)))
        self.sid = answer.get("sid")
        return answer

    async def send(self, payload="", *, worker=None, **attributes):
        return await self.post(self.body(payload, **attributes), worker=worker)

    async def login(self, **attributes):
        """Create a session, authenticate, restart the stream and bind."""
        await self.create(**attributes)
        assert (await self.send(AUTH))[0].tag == f"{{{SASL}}}success"
        features = (await self.send(xmpp__restart="true", to=DOMAIN))[0]
        assert features.tag == "{http://etherx.jabber.org/streams}features"
        answer = (await self.send(BIND))[0]
        self.jid = answer.findtext(".//{urn:ietf:params:xml:ns:xmpp-bind}jid")
        return self


@pytest.fixture
def limits():
    return Limits()


@pytest.fixture
async def site(tmp_path, limits):
    config = Config(
        domain=DOMAIN,
        limits=limits,
        database=Database(url=f"sqlite:///{tmp_path}/nestbox.db"),
        web=Web(https_url="https://chat.test", origins=["https://intranet.test"]),
    )
    store = await open_store(config.database.url)
    await store.migrate()
    await store.accounts.create("anna", "correct horse")
    await store.close()
    world = World(config)
    await world.start(2)
    site = Site(world)
    for number in (1, 2):
        site.serve(number)
    yield site
    await site.stop()
    await world.stop()


def over(answer, condition=None):
    """Whether an answer ends the session, with this condition."""
    return (answer.get("type"), answer.get("condition")) == ("terminate", condition)


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


# rids


async def test_requests_are_dealt_with_in_their_order(site):
    client = await Client(site).login()
    ben = await site.world.client("ben", worker=2)
    first, second = (
        client.body(f"<message xmlns='jabber:client' to='{ben.bare}'><body>{n}</body></message>") for n in (1, 2)
    )
    late = asyncio.create_task(client.post(second))
    await site.until(lambda: site.session(client)._bodies)
    assert len(await client.post(first)) == 0  # only one is held
    assert [(await ben.expect("message")).element[0].text for _ in (1, 2)] == ["1", "2"]
    await ben.send(f"<message to='{client.jid}'><body>3</body></message>")
    assert b">3<" in ElementTree.tostring(await late)


async def test_a_repeated_request_gets_the_same_answer_and_is_done_once(site):
    client = await Client(site).login()
    ben = await site.world.client("ben")
    request = client.body(f"<message xmlns='jabber:client' to='{ben.bare}'><body>once</body></message>" + PING)
    first = await client.raw(request)
    again = await client.raw(request, worker=2)
    assert b"result" in first.body and first.body == again.body
    await ben.expect("message")
    await ben.nothing("message")


async def test_a_repeated_request_that_is_still_held_takes_its_place(site):
    client = await Client(site).login()
    request = client.body()
    first = asyncio.create_task(client.post(request))
    await site.until(lambda: site.session(client)._live() == 1)
    second = asyncio.create_task(client.post(request))
    assert len(await first) == 0
    ben = await site.world.client("ben")
    await ben.send(f"<message to='{client.jid}'><body>for the second</body></message>")
    assert b"for the second" in ElementTree.tostring(await second)


@pytest.mark.parametrize("distance", [-9, 3, 1000])
async def test_a_rid_outside_of_the_window_ends_the_session(site, distance):
    client = await Client(site).login()
    last = next(client.rids) - 1
    assert over(await client.send(rid=str(last + distance)), "item-not-found")
    assert over(await client.send(rid=str(last + 1)), "item-not-found")
    await site.until(lambda: not site.world.servers[1].registry.sessions)


async def test_acknowledgements_tell_what_came(site):
    client = await Client(site).login(ack="1")
    waiting = await site.hold(client)
    second = asyncio.create_task(client.send(PING))
    first = await waiting
    assert int(first.get("ack")) == RID + 5  # the one that is held now
    assert (await second).get("ack") is None  # it would be its own


# holding


async def test_nothing_is_answered_after_the_time_the_client_said(site):
    client = await Client(site).login(wait="1")
    begin = asyncio.get_running_loop().time()
    answer = await client.send()
    assert len(answer) == 0 and answer.get("type") is None
    assert 0.9 < asyncio.get_running_loop().time() - begin < 5
    assert (await client.send(PING))[0].get("type") == "result"


async def test_several_payloads_share_an_answer(site):
    client = await Client(site).login()
    waiting = await site.hold(client)
    [session] = site.world.servers[1].registry.sessions.values()
    for number in range(3):
        session.send(f'<message id="{number}"/>'.encode())
    assert [message.get("id") for message in await waiting] == ["0", "1", "2"]


async def test_too_many_requests_at_a_time(site):
    client = await Client(site).login()
    site.session(client).pause_reading()  # as while the store is asked
    tasks = []
    for number in (1, 2):
        tasks.append(asyncio.create_task(client.send(PING)))
        await site.until(lambda number=number: site.session(client)._live() == number)
    before = site.world.servers[1].counts.limits_hit
    assert over(await client.send(PING), "policy-violation")
    for task in tasks:
        assert over(await task, "other-request")
    assert site.world.servers[1].counts.limits_hit == before + 1


async def test_what_came_while_the_server_was_busy_is_dealt_with(site):
    client = await Client(site).login()
    site.session(client).pause_reading()
    tasks = []
    for number in (1, 2):
        tasks.append(asyncio.create_task(client.send(PING)))
        await site.until(lambda number=number: site.session(client)._live() == number)
    site.session(client).resume_reading()
    told = [len(await task) for task in tasks]
    while sum(told) < 2:
        told.append(len(await client.send()))
    assert sum(told) == 2


async def test_asking_too_often(site):
    client = await Client(site).login()
    waiting = await site.hold(client)
    before = site.world.servers[1].counts.limits_hit
    assert over(await client.send(), "policy-violation")
    assert over(await waiting, "other-request")
    assert site.world.servers[1].counts.limits_hit == before + 1


async def test_a_polling_session(site, monkeypatch):
    client = Client(site)
    answer = await client.create(hold="0")
    assert (answer.get("hold"), answer.get("requests"), answer.get("polling")) == ("0", "1", "5")
    assert len(await client.send()) == 0  # at once
    assert over(await client.send(), "policy-violation")
    monkeypatch.setattr(module, "POLLING", 0)
    client = Client(site)
    assert (await client.create(wait="0")).get("polling") == "0"
    await client.send(AUTH)
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await client.send()
            if len(answer):
                break
    assert answer[0].tag == f"{{{SASL}}}success"


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


# limits


async def test_before_the_login_little_is_read(site):
    client = Client(site)
    await client.create()
    before = site.world.servers[1].counts.limits_hit
    assert over(await client.send(f"<auth xmlns='{SASL}'>{'A' * 20_000}</auth>"), "policy-violation")
    assert site.session(client) is None and site.world.servers[1].counts.limits_hit == before + 1
    assert over(await Client(site).create(xml__lang="x" * 20_000), "policy-violation")


@pytest.mark.parametrize("worker", [1, 2])
async def test_after_the_login_more_is_read_but_not_all(site, worker):
    client = await Client(site).login()
    client.worker = worker
    big = "<message xmlns='jabber:client' to='nobody@nestbox.test'><body>%s</body></message>"
    assert (await client.send(big % ("A" * 200_000)))[0].get("type") == "error"
    assert over(await client.send(big % ("A" * 300_000)), "policy-violation")


@pytest.fixture
def small_buffer(limits):
    limits.write_buffer_bytes = 50_000


async def test_what_waits_for_the_client_is_bounded(small_buffer, site):
    client = await Client(site).login()
    ben = await site.world.client("ben")
    for _ in range(6):
        await ben.send(f"<message to='{client.jid}'><body>{'A' * 10_000}</body></message>")
    assert site.boshes[1].options.slow_consumers == 1
    assert over(await client.send(), "remote-connection-failed")
    await site.until(lambda: not site.connections[1].open)


async def test_there_is_room_for_so_many_sessions_only(site):
    site.world.config.limits.connections = 1
    await Client(site).create()
    answer = await Client(site).create()
    assert over(answer, "remote-stream-error")
    assert answer[0][0].tag == "{urn:ietf:params:xml:ns:xmpp-streams}resource-constraint"
    assert len(site.boshes[1]._sessions) == 1


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

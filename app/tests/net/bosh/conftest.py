"""Two workers that speak BOSH over real HTTP, with a real core and store, and a client of theirs."""

import asyncio
import base64
import itertools
from xml.etree import ElementTree

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer

from nestbox.config import Config, Database, Limits, Web
from nestbox.http.app import make_app
from nestbox.net.bosh import Bosh
from nestbox.net.connections import Connections
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

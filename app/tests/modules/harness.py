"""A whole server in one process, for the tests of modules: real core and store, several workers, no sockets.

async def test_bob_hears_alice(world):
    alice = await world.client("alice")               # account, session on worker 1, initial presence
    bob = await world.client("bob", worker=2)         # on the other worker
    await alice.send("<message to='bob@nestbox.test'><body>hi</body></message>")
    await bob.expect("message", from_=alice.jid)
    await bob.nothing()                               # after all is quiet: nothing else came
    result = await alice.iq("get", "<query xmlns='jabber:iq:roster'/>")
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable

import pytest

from nestbox.config import Config
from nestbox.core.errors import StreamError
from nestbox.core.ids import IdSource
from nestbox.core.server import Server
from nestbox.core.session import Session
from nestbox.modules import setup_all
from nestbox.store import ScramKeys, open_store
from nestbox.wire.element import to_bytes
from nestbox.wire.stanza import Stanza, parse_stanza

DOMAIN = "nestbox.test"
PATIENCE = 3.0  # seconds that anything may take


class Hub:
    """What joins the workers: Valkey's part, in memory."""

    def __init__(self) -> None:
        self.buses: dict[int, FakeBus] = {}
        self.hashes: dict[str, dict[str, bytes]] = {}
        self.values: dict[str, bytes] = {}
        self.on_the_way = 0

    def carry(self, sender: int, worker: int, payload: bytes) -> None:
        self.on_the_way += 1
        asyncio.get_running_loop().call_soon(self._arrive, sender, worker, payload)

    def _arrive(self, sender: int, worker: int, payload: bytes) -> None:
        self.on_the_way -= 1
        bus = self.buses.get(worker)
        if bus is not None:
            bus.handler(payload)
        elif sender in self.buses:
            self.buses[sender].on_undelivered(worker, payload)


class FakeBus:
    """The `nestbox.bus.base.Bus` of one worker."""

    def __init__(self, hub: Hub, worker: int) -> None:
        self.hub = hub
        self.worker = worker
        self.handler: Callable[[bytes], None] = lambda payload: None
        self.on_undelivered: Callable[[int, bytes], None] = lambda worker, payload: None
        hub.buses[worker] = self

    async def start(self, handler: Callable[[bytes], None]) -> None:
        self.handler = handler

    async def close(self) -> None:
        self.hub.buses.pop(self.worker, None)

    def send(self, worker: int, payload: bytes) -> None:
        self.hub.carry(self.worker, worker, payload)

    def broadcast(self, payload: bytes) -> None:
        for worker in self.hub.buses:
            if worker != self.worker:
                self.hub.carry(self.worker, worker, payload)

    async def hset(self, key: str, field: str, value: bytes) -> None:
        self.hub.hashes.setdefault(key, {})[field] = value

    async def hdel(self, key: str, *fields: str) -> int:
        found = self.hub.hashes.get(key, {})
        return sum(found.pop(field, None) is not None for field in fields)

    def post(
        self, key: str, fields: dict[str, bytes], gone: Iterable[str] = (), done: Callable[[], None] | None = None
    ) -> None:
        if self.hub.buses.get(self.worker) is self:  # a killed worker writes no more
            values = self.hub.hashes.setdefault(key, {})
            values.update(fields)
            for field in gone:
                values.pop(field, None)
            if done is not None:
                done()

    def discard(self, key: str) -> None:
        self.hub.hashes.pop(key, None)

    async def hget(self, key: str, field: str) -> bytes | None:
        return self.hub.hashes.get(key, {}).get(field)

    async def hgetall(self, key: str) -> dict[str, bytes]:
        return dict(self.hub.hashes.get(key, {}))

    async def swap(self, key: str, field: str, old: bytes | None, new: bytes | None) -> bytes | None:
        found = self.hub.hashes.setdefault(key, {})
        if found.get(field) == old:
            found.pop(field, None)
            if new is not None:
                found[field] = new
        return found.get(field)

    async def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        self.hub.values[key] = value

    async def get(self, key: str) -> bytes | None:
        return self.hub.values.get(key)

    async def delete(self, key: str) -> None:
        self.hub.values.pop(key, None)

    async def take(self, key: str) -> bytes | None:
        return self.hub.values.pop(key, None)

    async def living(self) -> set[int]:
        return self.workers()

    def workers(self) -> set[int]:
        return set(self.hub.buses)


class Client:
    """A bound client: what it sends is routed at once, what it is sent is in ``received`` until it was expected."""

    def __init__(self, world: World, server: Server) -> None:
        self.world = world
        self.server = server
        self.session: Session = None  # type: ignore[assignment]
        self.received: deque[Stanza] = deque()
        self.acks: list[int] = []
        self.ack_requests = 0
        self.error: StreamError | None = None  # what the stream was ended with
        self.closed = False
        self._news = asyncio.Event()
        self._ids = 0

    @property
    def jid(self) -> str:
        """The full JID."""
        return self.session.full

    @property
    def bare(self) -> str:
        """The bare JID."""
        return self.session.entry.bare

    # the session's Link

    def send_stanza(self, data: bytes) -> None:
        self.received.append(parse_stanza(data))
        self._news.set()

    def request_ack(self) -> None:
        self.ack_requests += 1

    def send_ack(self, h: int) -> None:
        self.acks.append(h)

    def end(self, error: StreamError | None) -> None:
        self.error = error
        self.drop()

    def drop(self) -> None:
        self.closed = True
        self._news.set()

    # what a test does

    async def send(self, xml: str) -> int:
        """Send one stanza and wait until it is handled; the commit batch it waits for. Raises StreamError."""
        outcome = self.server.router.from_client(self.session, parse_stanza(xml.encode()))
        batch = outcome if isinstance(outcome, int) else await outcome
        self.session.count(batch, self.server.store.committer)
        return batch

    async def iq(self, type: str, payload: str, to: str | None = None) -> Stanza:
        """Send an iq and give back its answer, a result or an error."""
        self._ids += 1
        iq_id = f"iq{self._ids}"
        address = f' to="{to}"' if to else ""
        await self.send(f'<iq type="{type}" id="{iq_id}"{address}>{payload}</iq>')
        return await self.expect(lambda s: s.kind == "iq" and s.id == iq_id and s.type in ("result", "error"))

    async def expect(self, what: str | Callable[[Stanza], bool], **attributes: str | None) -> Stanza:
        """Wait for a stanza and take it out of ``received``.

        ``what`` is a kind ('message', 'presence', 'iq') narrowed by attributes (``type``, ``from_``, ``to``, ``id``;
        None means absent) or by ``tag`` of a child; or it is a predicate.
        """
        wanted = what if callable(what) else _matcher(what, attributes)
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    for stanza in self.received:
                        if wanted(stanza):
                            self.received.remove(stanza)
                            return stanza
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            got = "\n".join(show(stanza) for stanza in self.received) or "nothing"
            pytest.fail(f"{self.jid} waited for {what} {attributes or ''} and got\n{got}")

    async def nothing(self, what: str | Callable[[Stanza], bool] = lambda _: True, **attributes: str | None) -> None:
        """Once all is quiet, nothing such has come."""
        await self.world.settle()
        wanted = what if callable(what) else _matcher(what, attributes)
        assert [show(stanza) for stanza in self.received if wanted(stanza)] == []

    async def drain(self) -> list[Stanza]:
        """Everything that came, once all is quiet; ``received`` is empty then."""
        await self.world.settle()
        stanzas = list(self.received)
        self.received.clear()
        return stanzas

    async def end_of_stream(self) -> StreamError | None:
        """Wait until the server has ended the stream, and say with what."""
        async with asyncio.timeout(PATIENCE):
            while not self.closed:
                self._news.clear()
                await self._news.wait()
        return self.error

    async def leave(self) -> None:
        """Close the stream in order."""
        await self.server.connection_lost(self.session, True)

    async def vanish(self) -> None:
        """Lose the connection without a word."""
        await self.server.connection_lost(self.session, False)


class World:
    """Workers, numbered from 1, over one store and one hub."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.hub = Hub()
        self.servers: dict[int, Server] = {}
        self.killed: list[Server] = []

    async def start(self, workers: int) -> None:
        for number in range(1, workers + 1):
            await self.start_worker(number)

    async def start_worker(self, number: int) -> None:
        """Start one more worker, which learns of the sessions there are."""
        bus = FakeBus(self.hub, number)
        store = await open_store(self.config.database.url, commit_window=0.0)
        server = Server(self.config, store, bus, IdSource(number), b"what all workers share, and keep..")
        bus.on_undelivered = lambda lost, payload: server.spawn(server.router.undelivered(lost, payload))
        setup_all(server)
        await bus.start(server.registry.receive)
        await server.registry.reload()
        self.servers[number] = server

    async def stop(self) -> None:
        for server in self.servers.values():
            await server.stop()
        await self.settle()
        for server in (*self.servers.values(), *self.killed):
            await server.store.close()

    def kill(self, number: int) -> Server:
        """A worker is gone without a word; what it does from now on reaches nobody. The others have not noticed."""
        server = self.servers.pop(number)
        del self.hub.buses[number]
        self.killed.append(server)
        return server

    def wake(self, server: Server) -> None:
        """It was not killed, only stopped: it goes on."""
        self.killed.remove(server)
        self.servers[server.bus.worker] = server
        self.hub.buses[server.bus.worker] = server.bus

    async def notice(self, number: int) -> None:
        """The others notice that a worker is gone."""
        await asyncio.gather(*(server.registry.worker_lost(number) for server in self.servers.values()))

    def limits_hit(self) -> Counter[str]:
        """What the metric of all workers counts, by the limit's name."""
        return sum((server.counts.limits_hit for server in self.servers.values()), Counter())

    async def user(self, name: str) -> int:
        """Make the account if there is none; its id."""
        accounts = next(iter(self.servers.values())).store.accounts
        account = await accounts.get(name)
        if account is None:
            await accounts.create_many([(name, {"SHA-1": ScramKeys(b"salt", 4096, b"stored", b"server")})])
            for server in self.servers.values():  # as nestboxctl does over the bus
                await server.users.changed(name)
            account = await accounts.get(name)
        return account.id

    async def client(
        self, name: str, resource: str | None = None, *, worker: int = 1, presence: str | None = "<presence/>"
    ) -> Client:
        """A client of the account ``name`` (made if need be), bound on a worker; with initial presence unless None."""
        await self.user(name)
        server = self.servers[worker]
        client = Client(self, server)
        client.session = await server.bind(client, name, resource, "127.0.0.1", "tcp")
        await self.settle()
        if presence is not None:
            await client.send(presence)
            await self.settle()
            client.received.clear()
        return client

    async def friends(self, one: str, other: str) -> None:
        """Subscribe two accounts to each other, by the protocol's own means."""
        clients = [await self.client(name, "friends", presence=None) for name in (one, other)]
        for client, peer in zip(clients, (other, one), strict=True):
            await client.send(f'<presence to="{peer}@{DOMAIN}" type="subscribe"/>')
        for client, peer in zip(clients, (other, one), strict=True):
            await client.send(f'<presence to="{peer}@{DOMAIN}" type="subscribed"/>')
        for client in clients:
            await client.leave()
        await self.settle()

    async def settle(self) -> None:
        """Wait until nothing moves any more: no task of a server, nothing on the bus, nothing to commit."""
        async with asyncio.timeout(PATIENCE):
            calm = 0
            while calm < 3:
                await asyncio.sleep(0)
                calm += 1
                busy = [task for server in self.servers.values() for task in server._tasks]
                if busy or self.hub.on_the_way:
                    calm = 0
                    if busy:
                        await asyncio.wait(busy)
                for server in self.servers.values():
                    if server.store.committer.waiting_rows:
                        calm = 0
                        await server.store.committer.flush()


def _matcher(kind: str, attributes: dict[str, str | None]) -> Callable[[Stanza], bool]:
    tag = attributes.pop("tag", None)

    def matches(stanza: Stanza) -> bool:
        if stanza.kind != kind or (tag is not None and stanza.find(tag) is None):
            return False
        return all(stanza.element.get(name.rstrip("_")) == value for name, value in attributes.items())

    return matches


def show(stanza: Stanza) -> str:
    """A stanza as text, for messages of failed tests."""
    return to_bytes(stanza.element).decode()


def condition(stanza: Stanza) -> str | None:
    """The defined condition of an error stanza (RFC 6120, section 8.3.3), None when it is no error."""
    error = stanza.find("{jabber:client}error")
    return None if error is None else error[0].tag.rpartition("}")[2]

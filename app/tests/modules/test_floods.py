"""Floods: those who open connections, guess passwords, send too much or faster than the database writes are slowed.

Nothing of theirs gets lost, and others are served meanwhile.
"""

from __future__ import annotations

import asyncio
import base64
import time

import pytest
from harness import DOMAIN
from wire_client import HEADER, Pipe, WireClient

from nestbox.config import Limits
from nestbox.core import guard as guard_module
from nestbox.core.errors import StreamError
from nestbox.core.guard import Guard
from nestbox.core.sources import Sources
from nestbox.log import short_address
from nestbox.net import connection as connection_module
from nestbox.net.connections import Connections
from nestbox.protocol.features import StreamOptions

SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
HERE, THERE, OFFICE = "198.51.100.7", "203.0.113.9", "192.0.2.40"


@pytest.fixture
def limits():
    return Limits(
        trusted_addresses=["192.0.2.0/24"],
        visitors_per_address=2,
        failed_logins_per_address=4,
        failed_logins_per_account=2,
        session_stanzas=200,
        session_bytes=100_000,
    )


@pytest.fixture
def connections(world):
    server = world.servers[1]
    options = StreamOptions(domain=DOMAIN, plain_allowed=True, features_after_auth=list(server.stream_features))
    return Connections(server, options, None)


class Flood(WireClient):
    """A client at an address."""

    def come(self, connections: Connections, peer: str) -> None:
        self.pipe = Pipe(self)
        self.pipe.peer = peer
        self.pipe.connection = connections.accept(self.pipe)
        self.pipe.feed(HEADER)

    async def log_in(self, password: str) -> bool:
        secret = base64.b64encode(f"\0{self.name}\0{password}".encode()).decode()
        self.pipe.feed(f"<auth xmlns='{SASL}' mechanism='PLAIN'>{secret}</auth>".encode())
        await self.until(lambda: self.pipe.closed or {e.tag for e in self.others} & {f"{{{SASL}}}{x}" for x in WORDS})
        return any(e.tag == f"{{{SASL}}}success" for e in self.others)

    async def begin(self) -> None:
        """A session, after the login."""
        self.others.clear()
        self.pipe.feed(HEADER)
        await self.expect("features")
        await self.bind("wire")


WORDS = ("success", "failure")


async def visitor(world, connections, peer, name="alice"):
    await world.user(name)
    await world.servers[1].store.accounts.set_password(name, "password")
    client = Flood(world, name)
    client.come(connections, peer)
    await client.until(lambda: client.others)
    return client


async def member(world, connections, name, peer=HERE):
    client = await visitor(world, connections, peer, name)
    assert await client.log_in("password")
    await client.begin()
    return client


# whose address it is


@pytest.mark.parametrize(
    "address, key",
    [
        ("198.51.100.7", "198.51.100.7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("192.0.2.9", ""),
        ("2001:db8:ffff::1", ""),
        ("", ""),
        ("not an address", ""),
    ],
)
def test_what_an_address_counts_as(address, key):
    assert Sources(["192.0.2.0/24", "2001:db8:ffff::/48"]).key(address) == key


def test_the_log_shows_the_network_of_an_address():
    assert short_address("198.51.100.7", "short") == "198.51.100.0/24"
    assert short_address("2001:db8:1:2::5", "short") == "2001:db8:1::/48"


# connections on which nobody logs in: visitors_per_address


async def test_visitors_of_one_address(world, connections):
    counts = world.servers[1].counts
    first = await visitor(world, connections, HERE)
    await visitor(world, connections, HERE)
    third = await visitor(world, connections, HERE)
    assert third.error() == "policy-violation" and counts.limits_hit == {"visitors_per_address": 1}
    assert (await visitor(world, connections, THERE)).error() is None
    assert await first.log_in("password")
    fourth = await visitor(world, connections, HERE)
    assert fourth.error() is None, "who has logged in counts no more"
    fourth.vanish()
    await world.settle()
    assert (await visitor(world, connections, HERE)).error() is None, "nor does who has gone"
    for _ in range(5):
        assert (await visitor(world, connections, OFFICE)).error() is None
    for connection in list(connections.open):
        connection.transport.lose()
    await world.settle()
    assert not connections.visitors and not connections.open


# guesses: failed_logins_per_address, failed_logins_per_account


def test_waits_grow_and_end(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(guard_module.time, "monotonic", lambda: now[0])
    guard = Guard(Sources(["192.0.2.0/24"]), 4, 2)
    waits = []
    for _ in range(10):
        waits.append(guard.delay(HERE, "alice"))
        guard.failed(HERE, "alice")
    assert waits == [0, 0, 0.25, 0.5, 1, 2, 4, 8, 8, 8]
    assert guard.delay(THERE, "alice") == 8, "an account is guarded whoever asks"
    assert guard.delay(HERE, "bob") == 8 and guard.delay(THERE, "bob") == 0, "and an address whomever it asks for"
    assert [guard.limit(*place) for place in ((THERE, "alice"), (THERE, "bob"))] == ["failed_logins_per_account", ""]
    guard.succeeded(THERE, "alice")
    assert guard.delay(THERE, "alice") == 0, "where the account has logged in from, its owner need not wait"
    assert guard.delay(OFFICE, "alice") == 0, "nor does whom we trust"
    guard.failed(OFFICE, "carol")
    assert guard.delay(THERE, "carol") == 0
    now[0] += 7 * 60
    assert guard.delay(HERE, "bob") == 0 and guard.delay(THERE, "x") == 0
    assert guard.delay("203.0.113.10", "alice") == 0.5, "one is forgiven a minute"
    now[0] += 3600
    assert guard.delay("203.0.113.10", "alice") == 0


def test_the_memory_for_failures_is_bounded(monkeypatch):
    monkeypatch.setattr(guard_module, "KEYS", 10)
    guard = Guard(Sources([]), 1, 1)
    for number in range(50):
        guard.failed(f"198.51.{number}.1", f"user{number}")
        guard.succeeded(f"198.51.{number}.1", f"user{number}")
    sizes = [len(guard._addresses._counts), len(guard._accounts._counts), len(guard._known)]
    assert sizes == [10, 10, 10]


async def test_only_so_many_wait(monkeypatch):
    monkeypatch.setattr(guard_module, "WAITING", 3)
    monkeypatch.setattr(guard_module, "FIRST_SECONDS", 0.2)
    guard = Guard(Sources([]), 1, 1)
    for _ in range(3):
        guard.failed(HERE, "alice")
    results = await asyncio.gather(*(guard.wait(HERE, "alice") for _ in range(5)), return_exceptions=True)
    assert [type(result) for result in results] == [type(None)] * 3 + [StreamError] * 2
    assert not guard._addresses.waiting and not guard._accounts.waiting


async def test_who_guesses_at_many_places_at_once_is_cut(world, connections, monkeypatch):
    monkeypatch.setattr(guard_module, "WAITING", 0)
    for _ in range(2):
        guesser = await visitor(world, connections, HERE)
        assert not await guesser.log_in("guess")
        guesser.vanish()
    guesser = await visitor(world, connections, HERE)
    assert not await guesser.log_in("guess") and guesser.error() == "policy-violation"
    assert world.limits_hit()["logins_waiting"] == 1


async def test_who_guesses_the_passwords_of_many_waits(world, connections, monkeypatch):
    monkeypatch.setattr(guard_module, "FIRST_SECONDS", 0.05)
    for number in range(5):
        guesser = await visitor(world, connections, HERE, f"user{number}")
        assert not await guesser.log_in("guess")
        guesser.vanish()
    assert world.limits_hit() == {"failed_logins_per_address": 1}


async def test_guesses_wait_and_the_owner_gets_in(world, connections, monkeypatch):
    monkeypatch.setattr(guard_module, "FIRST_SECONDS", 0.05)
    counts = world.servers[1].counts
    for _ in range(2):
        guesser = await visitor(world, connections, HERE)
        assert not await guesser.log_in("guess")
        guesser.vanish()
    assert (counts.logins_failed, counts.logins_delayed) == (2, 0)
    guesser = await visitor(world, connections, HERE)
    begin = time.monotonic()
    assert not await guesser.log_in("guess")
    assert time.monotonic() - begin >= 0.05
    assert (counts.logins_failed, counts.logins_delayed) == (3, 1)
    assert counts.limits_hit == {"failed_logins_per_account": 1}
    owner = await visitor(world, connections, THERE)
    assert await owner.log_in("password"), "later, but they are let in"
    assert counts.logins_delayed == 2
    bob = await visitor(world, connections, THERE, "bob")
    assert await bob.log_in("password") and counts.logins_delayed == 2


# a session that sends too much: session_stanzas, session_bytes


@pytest.mark.parametrize(
    "count, padding, seconds", [(240, 0, 1.0), (60, 2_500, 1.0)], ids=["session_stanzas", "session_bytes"]
)
async def test_a_session_that_sends_too_much_is_read_more_slowly(
    world, connections, monkeypatch, count, padding, seconds
):
    monkeypatch.setattr(connection_module, "BURST_SECONDS", 0.1)
    alice = await member(world, connections, "alice")
    bob = await member(world, connections, "bob", THERE)
    begin = time.monotonic()
    for number in range(count):
        alice.say(alice.jid, f"{number} {'x' * padding}")
    await alice.until(lambda: not alice.pipe.reading)
    bob.say(bob.jid, "hello")
    await bob.until(lambda: bob.bodies)
    assert len(alice.bodies) < count, "others are served meanwhile"
    await alice.answered()
    await alice.until(lambda: len(alice.bodies) == count)
    assert [int(body.split()[0]) for body in alice.bodies] == list(range(count)), "all arrives, in order"
    assert time.monotonic() - begin >= seconds * 0.9
    assert world.servers[1].counts.slowed and alice.pipe.connection in connections.open


async def test_whom_we_trust_may_send_as_much_as_they_like(world, connections, monkeypatch):
    monkeypatch.setattr(connection_module, "BURST_SECONDS", 0.0)
    office = await member(world, connections, "alice", OFFICE)
    for number in range(200):
        office.say(office.jid, str(number))
    await office.answered()
    assert not world.servers[1].counts.slowed


# faster than the database


async def test_a_slow_database_slows_the_fastest_sender_alone(world, connections, monkeypatch):
    committer = world.servers[1].store.committer
    monkeypatch.setattr(committer, "_max_rows", 200)
    write, most = committer._writer.write, 0

    async def slow(batch):
        nonlocal most
        most = max(most, committer.waiting_rows)
        await asyncio.sleep(0.02)
        return await write(batch)

    monkeypatch.setattr(committer._writer, "write", slow)
    flooder = await member(world, connections, "alice", OFFICE)
    bob = await member(world, connections, "bob", OFFICE)
    stanza = f"<message to='bob@{DOMAIN}' type='chat'><body>%d</body></message>"
    fed, waits = 0, []
    while fed < 1000:  # as fast as we are read
        if flooder.pipe.reading:
            flooder.pipe.feed("".join(stanza % number for number in range(fed, fed + 40)).encode())
            fed += 40
        if fed % 200 == 0 and len(waits) < 3:
            begin = time.monotonic()
            bob.say("alice@" + DOMAIN, f"calm {len(waits)}")
            await flooder.until(lambda: f"calm {len(waits)}" in flooder.bodies)
            waits.append(time.monotonic() - begin)
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        while sum(body.isdigit() for body in bob.bodies) < 1000:
            bob.news.clear()
            await bob.news.wait()
    assert [int(body) for body in bob.bodies if body.isdigit()] == list(range(1000)), "all of it, in order"
    assert not [stanza for stanza in flooder.stanzas if stanza.get("type") == "error"], "nothing was refused"
    assert 40 < most < 100, "rows wait, but no more than the bound and what one turn brings"
    assert world.servers[1].counts.slowed > 5
    assert len(waits) == 3 and max(waits) < 1.0, "who sends little is served as ever"
    await committer.flush()
    archived = await world.servers[1].store.archive.query((await world.user("bob")), limit=5)
    assert archived.rows


async def test_large_messages_wait_for_room(world, connections, monkeypatch):
    """Many send as much as they may while the database stands still: nobody is refused, and memory is bounded."""
    committer = world.servers[1].store.committer
    monkeypatch.setattr(committer, "_max_bytes", 400_000)
    write, go_on = committer._writer.write, asyncio.Event()

    async def slow(batch):
        await go_on.wait()
        return await write(batch)

    monkeypatch.setattr(committer._writer, "write", slow)
    people = [await member(world, connections, f"user{number}", OFFICE) for number in range(12)]
    for person in people:
        person.say(f"user0@{DOMAIN}", "x" * 50_000)
    for _ in range(20):
        await asyncio.sleep(0)
    assert 200_000 < committer.waiting_bytes < 400_000
    assert len([s for s in people[0].stanzas if s.find("{jabber:client}body") is not None]) < 12
    go_on.set()
    await people[0].until(lambda: len(people[0].bodies) == 12)
    for person in people:
        await person.answered()
        assert not [stanza for stanza in person.stanzas if stanza.get("type") == "error"]

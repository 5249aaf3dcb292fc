"""What a login by XEP-0388 does beside letting the client in: on a whole server, over the real connection."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import re
from xml.etree.ElementTree import Element

import pytest
from harness import DOMAIN, World
from sqlalchemy import select, update
from wire_client import HEADER, Pipe, WireClient

from nestbox.config import Limits
from nestbox.net.connections import Connections
from nestbox.protocol.features import StreamOptions
from nestbox.store.schema import tokens
from nestbox.wire.element import namespace

SASL2 = "{urn:xmpp:sasl:2}"
FAST = "{urn:xmpp:fast:0}"
BOUND = "{urn:xmpp:bind:0}bound"
SM = "{urn:xmpp:sm:3}"
REQUEST = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>"


@pytest.fixture
def limits() -> Limits:
    return Limits(token_clients=2, sessions_per_user=3)


class Modern(WireClient):
    """A client of the extensible SASL profile; ``agent`` is its id, ``token`` what it was given last."""

    agent = "4f6dbc4c-0001-4b9a-a7ec-3d1a6d6d9a00"
    token = ""
    full = ""

    async def open(self, worker: int = 1) -> None:
        server = self.world.servers[worker]
        options = StreamOptions(
            domain=DOMAIN,
            plain_allowed=True,
            secret=server.secret,
            features_after_auth=list(server.stream_features),
            inline=list(dict.fromkeys(map(namespace, server.inline))),
        )
        self.pipe = Pipe(self)
        self.others.clear()
        self.counting = False
        self.pipe.connection = Connections(server, options, None).accept(self.pipe)
        self.pipe.feed(HEADER)
        self.features = await self.expect("features")

    async def authenticate(self, mechanism: str, initial: bytes, inline: str) -> Element:
        """The answer: success or failure."""
        data = base64.b64encode(initial).decode()
        agent = f"<user-agent id='{self.agent}'/>"
        self.counting = True  # what comes right after the success counts
        self.handled = self.handled if "<resume" in inline else 0
        self.pipe.feed(
            f"<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'>"
            f"<initial-response>{data}</initial-response>{agent}{inline}</authenticate>".encode()
        )
        await self.until(lambda: self.others or self.pipe.closed)
        answer = self.others.popleft()
        if answer.tag == f"{SASL2}success":
            self.full = answer.findtext(f"{SASL2}authorization-identifier")
            token = answer.find(f"{FAST}token")
            if token is not None:
                self.token = token.get("token")
        return answer

    async def log_in(self, inline: str = "", worker: int = 1, password: str = "password") -> Element:
        await self.open(worker)
        return await self.authenticate("PLAIN", f"\0{self.name}\0{password}".encode(), inline)

    async def come_back(self, inline: str = "", fast: str = "", worker: int = 1, token: str | None = None) -> Element:
        """Log in with a token."""
        await self.open(worker)
        proof = hmac.digest((token or self.token).encode(), b"Initiator", "sha256")
        request = f"<fast xmlns='urn:xmpp:fast:0'{fast}/>{inline}"
        return await self.authenticate("HT-SHA-256-NONE", f"{self.name}\0".encode() + proof, request)


async def modern(world: World, name: str = "alice") -> Modern:
    await world.user(name)
    await world.servers[1].store.accounts.set_password(name, "password")
    return Modern(world, name)


def bind(features: str = "", tag: str = "Test") -> str:
    return f"<bind xmlns='urn:xmpp:bind:0'><tag>{tag}</tag>{features}</bind>"


def failure(answer: Element) -> str:
    assert answer.tag == f"{SASL2}failure", answer.tag
    return answer[0].tag.removeprefix("{urn:ietf:params:xml:ns:xmpp-sasl}")


# Bind 2


async def test_what_is_offered_inline(world: World) -> None:
    client = await modern(world)
    await client.open()
    offered = client.features.find(f"{SASL2}authentication/{SASL2}inline")
    names = {feature.get("var") for feature in offered.iter("{urn:xmpp:bind:0}feature")}
    assert names == {"urn:xmpp:carbons:2", "urn:xmpp:csi:0", "urn:xmpp:sm:3"}
    assert offered.find(f"{SM}sm") is not None
    assert [m.text for m in offered.iter(f"{FAST}mechanism")] == ["HT-SHA-256-NONE"]


async def test_bind_carbons_and_stream_management_in_one_round_trip(world: World) -> None:
    client = await modern(world)
    answer = await client.log_in(
        bind("<enable xmlns='urn:xmpp:carbons:2'/><enable xmlns='urn:xmpp:sm:3' resume='true'/>"), worker=2
    )
    assert re.fullmatch(rf"alice@{DOMAIN}/Test/[\w-]+", client.full)
    enabled = answer.find(f"{BOUND}/{SM}enabled")
    client.sm_id = enabled.get("id")
    assert answer.find(f"{BOUND}/{{urn:xmpp:mam:2}}metadata") is not None
    # carbons are really on, and known to the other worker
    other = await world.client("alice", "other")
    bob = await world.client("bob", worker=2)
    await bob.send(f"<message to='{other.jid}' type='chat'><body>hi</body></message>")
    await client.until(lambda: client.stanzas)
    assert client.stanzas[0].find("{urn:xmpp:carbons:2}received") is not None
    # and the session can be resumed, inline and on another worker
    client.vanish()
    await bob.send(f"<message to='{client.full}' type='chat'><body>later</body></message>")
    inline = f"<resume xmlns='urn:xmpp:sm:3' previd='{client.sm_id}' h='{client.handled}'/>{bind()}"
    full = client.full
    answer = await client.log_in(inline, worker=1)
    assert answer.find(f"{SM}resumed").get("h") == "0"
    assert answer.find(BOUND) is None
    assert client.full == full
    await client.until(lambda: client.bodies)
    assert client.bodies == ["later"]
    assert not any(element.tag.endswith("}features") for element in client.others)


async def test_resumption_that_fails_goes_on_to_bind(world: World) -> None:
    client = await modern(world)
    answer = await client.log_in(f"<resume xmlns='urn:xmpp:sm:3' previd='lost' h='0'/>{bind()}")
    assert answer.find(f"{SM}failed") is not None
    assert answer.find(BOUND) is not None
    client.pipe.feed(b"<iq type='get' id='1'><query xmlns='jabber:iq:roster'/></iq>")
    await client.until(lambda: client.stanzas)
    assert client.stanzas[0].get("type") == "result"


async def test_who_has_counted_too_much_is_bound_anew(world: World) -> None:
    """XEP-0386, section 3.2; and the session, which the client cannot take up, does not stay."""
    client = await modern(world)
    answer = await client.log_in(bind("<enable xmlns='urn:xmpp:sm:3' resume='true'/>"))
    sm_id = answer.find(f"{BOUND}/{SM}enabled").get("id")
    client.vanish()
    answer = await client.log_in(f"<resume xmlns='urn:xmpp:sm:3' previd='{sm_id}' h='99'/>{bind(tag='Other')}")
    assert answer.find(f"{SM}failed") is not None and answer.find(BOUND) is not None
    await world.settle()
    assert list(world.servers[1].registry.sessions) == [client.full]


async def test_an_inactive_client_begins_so(world: World) -> None:
    await world.friends("alice", "bob")
    client = await modern(world)
    await client.log_in(bind("<inactive xmlns='urn:xmpp:csi:0'/>"))
    session = world.servers[1].registry.sessions[client.full]
    assert session.held is not None
    client.pipe.feed(b"<presence/>")
    await world.settle()
    await world.client("bob")
    await world.settle()
    assert not [stanza for stanza in client.stanzas if f"bob@{DOMAIN}" in stanza.get("from", "")]
    client.pipe.feed(b"<active xmlns='urn:xmpp:csi:0'/>")
    await client.until(lambda: [stanza for stanza in client.stanzas if f"bob@{DOMAIN}" in stanza.get("from", "")])


async def test_metadata_tells_what_the_archive_has_and_offline_messages_are_left_to_it(world: World) -> None:
    client = await modern(world)
    bob = await world.client("bob", worker=2)
    await bob.send(f"<message to='alice@{DOMAIN}' type='chat'><body>in the archive</body></message>")
    await world.settle()
    answer = await client.log_in(bind())
    metadata = answer.find(f"{BOUND}/{{urn:xmpp:mam:2}}metadata")
    assert metadata.find("{urn:xmpp:mam:2}end").get("id").isdigit()
    client.pipe.feed(b"<presence/>")
    await world.settle()
    assert client.bodies == []
    user = await world.servers[1].users.load("alice")
    assert await world.servers[1].store.offline.count(user.id) == 0


async def test_offline_messages_that_no_archive_has_are_sent(world: World) -> None:
    client = await modern(world)
    setup = await world.client("alice")
    await setup.iq("set", "<prefs xmlns='urn:xmpp:mam:2' default='never'><always/><never/></prefs>")
    await setup.leave()
    bob = await world.client("bob", worker=2)
    await world.settle()
    await bob.send(f"<message to='alice@{DOMAIN}' type='chat'><body>only here</body></message>")
    await world.settle()
    await client.log_in(bind())
    client.pipe.feed(b"<presence/>")
    await client.until(lambda: client.bodies)
    assert client.bodies == ["only here"]


async def test_a_client_that_binds_again_ends_what_it_left_behind(world: World) -> None:
    client = await modern(world)
    await client.log_in(bind())
    first, pipe = client.full, client.pipe
    await client.log_in(bind(), worker=2)
    await world.settle()
    assert client.full == first  # stable
    assert pipe.closed
    assert world.servers[1].registry.of(f"alice@{DOMAIN}")[first.partition("/")[2]].worker == 2
    pipe = client.pipe
    await client.log_in(bind(tag="Renamed"), worker=1)
    await world.settle()
    assert pipe.closed
    assert list(world.servers[2].registry.of(f"alice@{DOMAIN}")) == [client.full.partition("/")[2]]


async def test_nothing_comes_before_the_success(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others see the session while it is still being made: what they send waits, and is not lost."""
    client = await modern(world)
    bob = await world.client("bob")
    server = world.servers[1]

    async def slow(session) -> bytes:
        await bob.send(f"<message to='{session.full}' type='chat'><body>early</body></message>")
        assert not client.others
        return b""

    monkeypatch.setattr(server, "bound", [*server.bound, slow])
    await client.open()
    data = base64.b64encode(b"\0alice\0password").decode()
    client.counting = True
    inline = bind("<enable xmlns='urn:xmpp:sm:3'/>")
    client.pipe.feed(
        f"<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>{data}</initial-response>"
        f"{inline}</authenticate>".encode()
    )
    await client.until(lambda: client.bodies)
    assert client.bodies == ["early"]
    assert [element.tag.rpartition("}")[2] for element in client.others] == ["success", "features"]
    session = next(s for s in server.registry.sessions.values() if s.entry.bare == f"alice@{DOMAIN}")
    await client.until(lambda: len(session.sm) == 0)  # it was asked for, and acknowledged


async def test_too_many_sessions(world: World) -> None:
    client = await modern(world)
    for number in range(3):
        await world.client("alice", f"r{number}")
    assert failure(await client.log_in(bind())) == "temporary-auth-failure"
    assert world.limits_hit() == {"sessions_per_user": 1}


# tokens


async def test_a_token_lets_the_client_in_on_every_worker(world: World) -> None:
    client = await modern(world)
    answer = await client.log_in(REQUEST)
    expiry = answer.find(f"{FAST}token").get("expiry")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", expiry)
    for worker in (2, 1, 2):
        answer = await client.come_back(bind(), worker=worker)
        reply = base64.b64decode(answer.findtext(f"{SASL2}additional-data"))
        assert reply == hmac.digest(client.token.encode(), b"Responder", "sha256")
        assert answer.find(f"{FAST}token") is None  # not due yet
    assert client.full.startswith(f"alice@{DOMAIN}/Test/")


async def test_tokens_are_not_in_the_database(world: World) -> None:
    client = await modern(world)
    await client.log_in(REQUEST)
    async with world.servers[1].store.database.read() as connection:
        row = (await connection.execute(select(tokens))).one()
    stored = repr(tuple(row)).encode()
    for secret in (client.token.encode(), base64.urlsafe_b64decode(client.token), client.agent.encode()):
        assert secret not in stored
        assert hashlib.sha256(secret).digest() not in stored


async def test_a_replayed_count_is_refused_on_every_worker(world: World) -> None:
    client = await modern(world)
    await client.log_in(REQUEST)
    assert (await client.come_back(fast=" count='1'")).tag == f"{SASL2}success"
    for fast in (" count='1'", "", " count='0'"):
        assert failure(await client.come_back(fast=fast, worker=2)) in ("not-authorized", "malformed-request")
    assert (await client.come_back(fast=" count='9'", worker=2)).tag == f"{SASL2}success"
    assert failure(await client.come_back(fast=" count='5'")) == "not-authorized"


async def test_only_one_of_two_with_the_same_count_gets_in(world: World) -> None:
    """Both workers have read the token before either has noted the count."""
    client = await modern(world)
    await client.log_in(REQUEST)
    store = world.servers[1].store.tokens
    user = await world.servers[1].users.load("alice")
    row = (await store.of("alice", hashlib.sha256(client.agent.encode()).hexdigest()))[0]
    assert await store.use(user.id, row.agent, row.nonce, 4)
    assert not await world.servers[2].store.tokens.use(user.id, row.agent, row.nonce, 4)


@pytest.mark.parametrize("what", ["password", "disabled", "deleted", "another client"])
async def test_a_stolen_token_is_worth_nothing(world: World, what: str) -> None:
    client = await modern(world)
    await client.log_in(REQUEST)
    assert (await client.come_back()).tag == f"{SASL2}success"
    accounts = world.servers[1].store.accounts
    if what == "password":
        await accounts.set_password("alice", "a new one")
    elif what == "disabled":
        await accounts.set_enabled("alice", False)
        await accounts.set_enabled("alice", True)
    elif what == "deleted":
        await accounts.delete("alice")
        await accounts.create("alice", "password")
    else:
        client.agent = "4f6dbc4c-0002-4b9a-a7ec-3d1a6d6d9a00"
    await client.world.servers[2].users.changed("alice")
    assert failure(await client.come_back(bind(), worker=2)) in ("credentials-expired", "not-authorized")


async def test_a_disabled_account_is_not_let_in_by_a_token(world: World) -> None:
    client = await modern(world)
    await client.log_in(REQUEST)
    await world.servers[1].store.accounts.set_enabled("alice", False)
    assert failure(await client.come_back()) in ("credentials-expired", "not-authorized")


async def _age(world: World, seconds: int) -> None:
    """Make all tokens older."""
    async with world.servers[1].store.database.write() as connection:
        await connection.execute(update(tokens).values(expires=tokens.c.expires - seconds))


async def test_rotation(world: World) -> None:
    client = await modern(world)
    await client.log_in(REQUEST)
    await client.come_back()
    await _age(world, 2 * 86_400)
    old = client.token
    answer = await client.come_back()
    assert answer.find(f"{FAST}token") is not None
    new = client.token
    assert new != old
    assert (await client.come_back(token=old)).tag == f"{SASL2}success"  # the new one may have got lost
    new = client.token
    assert (await client.come_back(token=new, worker=2)).tag == f"{SASL2}success"
    assert failure(await client.come_back(token=old)) == "not-authorized"  # the new one was used


async def test_expiry(world: World) -> None:
    client = await modern(world)
    await client.log_in(REQUEST)
    await _age(world, 21 * 86_400)
    assert failure(await client.come_back()) == "credentials-expired"
    assert (await client.log_in(REQUEST)).tag == f"{SASL2}success"
    assert (await client.come_back()).tag == f"{SASL2}success"


async def test_invalidate(world: World) -> None:
    client = await modern(world)
    await client.log_in(REQUEST)
    answer = await client.come_back(fast=" invalidate='true'")
    assert answer.tag == f"{SASL2}success"
    assert answer.find(f"{FAST}token") is None
    assert failure(await client.come_back(worker=2)) == "credentials-expired"


async def test_tokens_of_many_clients(world: World) -> None:
    """Beyond the limit of two, the client whose token expires first loses it."""
    client = await modern(world)
    kept = {}
    for number in range(3):
        client.agent = f"4f6dbc4c-000{number}-4b9a-a7ec-3d1a6d6d9a00"
        await client.log_in(REQUEST)
        kept[client.agent] = client.token
        await _age(world, 60)
    assert world.limits_hit() == {"token_clients": 1}
    answers = []
    for agent, token in kept.items():
        client.agent = agent
        answers.append((await client.come_back(token=token)).tag.removeprefix(SASL2))
    assert answers == ["failure", "success", "success"]


# keys and counts


async def test_keys_are_added(world: World) -> None:
    client = await modern(world, "anna")
    store = world.servers[1].store.accounts
    keys = (await store.get("anna")).keys
    await store.create_many([("old", {"SHA-1": keys["SHA-1"]})])
    client.name = "old"
    answer = await client.log_in("<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-256</upgrade>")
    assert answer.tag == f"{SASL2}continue"
    client.pipe.feed(b"<next xmlns='urn:xmpp:sasl:2' task='UPGR-SCRAM-SHA-256'/>")
    salt = (await client.expect("task-data")).find("{urn:xmpp:scram-upgrade:0}salt")
    salted = hashlib.pbkdf2_hmac("sha256", b"password", base64.b64decode(salt.text), int(salt.get("iterations")))
    data = base64.b64encode(salted).decode()
    client.pipe.feed(
        f"<task-data xmlns='urn:xmpp:sasl:2'><hash xmlns='urn:xmpp:scram-upgrade:0'>{data}</hash></task-data>".encode()
    )
    await client.expect("success")
    account = await store.get("old")
    assert set(account.keys) == {"SHA-1", "SHA-256"}
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    assert account.keys["SHA-256"].stored_key == hashlib.sha256(client_key).digest()


async def test_failures_are_counted_and_logged_without_the_address(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    client = await modern(world)
    caplog.set_level(logging.INFO, "nestbox")
    await client.open()
    client.pipe.peer = "192.0.2.77"
    answer = await client.authenticate("PLAIN", b"\0alice\0wrong", "")
    assert failure(answer) == "not-authorized"
    assert world.servers[1].counts.logins_failed == 1
    fields = next(record.fields for record in caplog.records if record.message == "a login failed")
    assert fields == {"address": "192.0.2.0/24", "reason": "not-authorized", "transport": "tcp"}
    client.pipe.feed(b"<abort xmlns='urn:xmpp:sasl:2'/>")
    await client.expect("failure")
    assert world.servers[1].counts.logins_failed == 1
    await client.log_in(bind())
    assert world.servers[1].counts.logins == 1

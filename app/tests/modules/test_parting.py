"""How a client goes (RFC 6120, section 4.4; RFC 7395, section 3.6): all it said counts, and no more is sent to it."""

from __future__ import annotations

import pytest
from harness import DOMAIN
from wire_client import Pipe, WireClient

BODY = "{jabber:client}body"


class Lingering(Pipe):
    """A transport whose peer does not close its side for a long time."""

    def close(self) -> None:
        self.closed = True

    abort = close


async def log_in(world, monkeypatch, transport=Pipe) -> WireClient:
    """alice without stream management, before her first presence."""
    monkeypatch.setattr("wire_client.Pipe", transport)
    client = WireClient(world, "alice")
    await world.user("alice")
    await world.servers[1].store.accounts.set_password("alice", "password")
    await client.connect(1)
    bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>wire</resource></bind>"
    client.pipe.feed(f"<iq type='set' id='bind'>{bind}</iq>".encode())
    await client.expect("iq")
    return client


def messages(count: int) -> bytes:
    return b"".join(
        b"<message to='bob@%s' type='chat'><body>%d</body></message>" % (DOMAIN.encode(), n) for n in range(count)
    )


@pytest.mark.parametrize("goodbye", [b"</stream:stream>", b""], ids=["with a goodbye", "without a word"])
async def test_what_was_said_before_the_end_of_the_connection_is_handled(world, monkeypatch, goodbye):
    bob = await world.client("bob", worker=2)
    alice = await log_in(world, monkeypatch)
    alice.pipe.feed(b"<presence/>" + messages(120) + goodbye)
    assert alice.pipe.connection.waits_for_us
    alice.pipe.connection.connection_lost(None)
    await world.settle()
    assert [s.element.findtext(BODY) for s in await bob.drain() if s.kind == "message"] == [str(n) for n in range(120)]
    assert not world.servers[1].registry.of(f"alice@{DOMAIN}")


@pytest.mark.parametrize("goodbye", [b"</stream:stream>", b"<message><a></message>"], ids=["its own", "an error's"])
async def test_a_session_ends_with_its_stream_not_with_the_socket(world, monkeypatch, goodbye):
    await world.friends("alice", "bob")
    bob = await world.client("bob", worker=2)
    alice = await log_in(world, monkeypatch, Lingering)
    alice.pipe.feed(b"<presence/>")
    await bob.expect("presence", from_=f"alice@{DOMAIN}/wire", type=None)
    alice.pipe.feed(goodbye)
    await bob.expect("presence", from_=f"alice@{DOMAIN}/wire", type="unavailable")
    await bob.send(f"<message to='alice@{DOMAIN}' type='chat'><body>are you there?</body></message>")
    late = await world.client("alice", "later", presence=None)
    await late.send("<presence/>")
    assert (await late.expect("message")).element.findtext(BODY) == "are you there?"


async def test_what_comes_for_one_who_has_just_gone_finds_another_way(world, monkeypatch):
    phone = await world.client("alice", "phone")
    bob = await world.client("bob")
    alice = await log_in(world, monkeypatch)
    alice.pipe.feed(b"<presence><priority>5</priority></presence>")
    await world.settle()
    await phone.drain()
    alice.pipe.feed(b"<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>" + messages(1))
    assert alice.pipe.connection.waits_for_us
    alice.pipe.connection.connection_lost(None)
    await bob.send(f"<message to='alice@{DOMAIN}/wire' type='chat'><body>to your computer</body></message>")
    assert (await phone.expect("message")).element.findtext(BODY) == "to your computer"
    assert (await bob.expect("message")).element.findtext(BODY) == "0"

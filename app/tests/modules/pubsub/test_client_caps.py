"""XEP-0115 of clients: asked once, believed only when it proves right, and never remembered for others otherwise."""

from __future__ import annotations

import base64
import hashlib
from xml.etree.ElementTree import XML

import pytest
from harness import DOMAIN
from pep import INFO, answer_disco, disco, event, listener, no_event, presence, publish

from nestbox.config import Limits
from nestbox.modules.caps import verification
from nestbox.modules.pubsub import notify
from nestbox.wire.element import el

MOOD = "http://jabber.org/protocol/mood"
TUNE = "http://jabber.org/protocol/tune"
PAYLOAD = "<x xmlns='x:1'/>"

# XEP-0115, section 5.3.
COMPLEX = """<query xmlns='http://jabber.org/protocol/disco#info'>
<identity xml:lang='en' category='client' name='Psi 0.11' type='pc'/>
<identity xml:lang='el' category='client' name='Ψ 0.11' type='pc'/>
<feature var='http://jabber.org/protocol/caps'/><feature var='http://jabber.org/protocol/disco#info'/>
<feature var='http://jabber.org/protocol/disco#items'/><feature var='http://jabber.org/protocol/muc'/>
<x xmlns='jabber:x:data' type='result'>
<field var='FORM_TYPE' type='hidden'><value>urn:xmpp:dataforms:softwareinfo</value></field>
<field var='ip_version'><value>ipv4</value><value>ipv6</value></field>
<field var='os'><value>Mac</value></field><field var='os_version'><value>10.5.1</value></field>
<field var='software'><value>Psi</value></field><field var='software_version'><value>0.11</value></field>
</x></query>"""


async def asked(client) -> bool:
    """Whether the server has asked what the client can do."""
    return any(stanza.kind == "iq" and stanza.type == "get" for stanza in client.received)


def test_the_example_with_a_form_and_two_languages():
    assert verification(XML(COMPLEX)) == "q07IKJEyjvHSyhy//CH0CxmKi8w="


@pytest.mark.parametrize("twice", [
    "<identity category='client' type='pc' name='a'/>",
    "<feature var='a'/>",
    "<x xmlns='jabber:x:data' type='result'><field var='FORM_TYPE' type='hidden'><value>t</value></field></x>",
])  # fmt: skip
def test_an_ill_formed_answer_has_no_hash(twice):
    space = "http://jabber.org/protocol/disco#info"
    assert verification(XML(f"<query xmlns='{space}'>{twice}</query>")) is not None
    assert verification(XML(f"<query xmlns='{space}'>{twice}{twice}</query>")) is None


def test_a_form_of_two_types_has_no_hash_and_one_without_does_not_count():
    space = "http://jabber.org/protocol/disco#info"
    field = "<field var='FORM_TYPE' type='hidden'><value>a</value><value>b</value></field>"
    assert verification(XML(f"<query xmlns='{space}'><x xmlns='jabber:x:data'>{field}</x></query>")) is None
    other = "<field var='a'><value>b</value></field>"
    plain = verification(XML(f"<query xmlns='{space}'/>"))
    assert verification(XML(f"<query xmlns='{space}'><x xmlns='jabber:x:data'>{other}</x></query>")) == plain


@pytest.mark.parametrize("algorithm", ["sha-1", "sha-256", "sha-512", "md5"])
def test_other_hashes(algorithm):
    expected = hashlib.new(algorithm.replace("sha-", "sha"), b"client/pc//Test<http://jabber.org/protocol/disco#info<")
    assert verification(disco([]), algorithm) == base64.b64encode(expected.digest()).decode()
    assert verification(disco([]), "crc32") is None


async def test_the_second_with_the_same_hash_is_not_asked(world):
    await listener(world, "alice", MOOD)
    bob = await world.client("bob", presence=None)
    await bob.send(presence(verification(disco([MOOD]))))
    await world.settle()
    assert not await asked(bob)
    assert bob.session.notify == {MOOD}


async def test_of_many_at_once_one_is_asked(world):
    info = disco([MOOD])
    clients = [await world.client(f"user{number}", presence=None) for number in range(5)]
    for client in clients:
        await client.send(presence(verification(info)))
    question = await answer_disco(clients[0], info)
    assert question.payload.get("node") == f"x:client#{verification(info)}"
    await world.settle()
    assert [client.session.notify for client in clients] == [{MOOD}] * 5
    assert not any([await asked(client) for client in clients])


async def test_a_lie_counts_for_the_liar_only(world):
    """Cache poisoning: what has another hash than it says must not be believed of those who really have that hash."""
    await world.friends("alice", "bob")
    true, false = disco([MOOD]), disco([TUNE])
    ver = verification(true)
    eve = await world.client("eve", presence=None)
    await eve.send(presence(ver))
    await answer_disco(eve, false)
    await world.settle()
    assert eve.session.notify == {TUNE}
    bob = await world.client("bob", presence=None)
    await bob.send(presence(ver))
    await answer_disco(bob, true)
    await world.settle()
    assert bob.session.notify == {MOOD}
    carol = await world.client("carol", presence=None)
    await carol.send(presence(ver))
    await world.settle()
    assert not await asked(carol) and carol.session.notify == {MOOD}


async def test_a_smuggled_separator_is_no_proof(world):
    """A feature with the separator in its name makes the hash of two features: such an answer proves nothing."""
    two = disco([MOOD, TUNE])
    names = sorted(each.get("var") for each in two.iter(INFO + "feature"))
    one = el(INFO + "query", None, two[0], el(INFO + "feature", {"var": "<".join(names)}))
    eve = await world.client("eve", presence=None)
    await eve.send(presence(verification(two)))
    await answer_disco(eve, one)
    await world.settle()
    bob = await world.client("bob", presence=None)
    await bob.send(presence(verification(two)))
    await answer_disco(bob, two)
    await world.settle()
    assert bob.session.notify == {MOOD, TUNE}


async def test_a_hash_that_we_cannot_check_is_asked_of_each(world):
    for name in ("alice", "bob"):
        client = await world.client(name, presence=None)
        await client.send(presence("0.1", algorithm="crc32"))
        await answer_disco(client, disco([MOOD]))
        await world.settle()
        assert client.session.notify == {MOOD}


async def test_who_answers_with_an_error_is_asked_once_and_hears_nothing(world):
    alice = await world.client("alice", presence=None)
    await alice.send(presence("x"))
    question = await alice.expect("iq", type="get")
    await alice.send(f"<iq type='error' id='{question.id}' to='{DOMAIN}'><error type='cancel'/></iq>")
    await alice.send(presence("x", "<show>away</show>"))
    await world.settle()
    assert not await asked(alice) and alice.session.notify == frozenset()


async def test_a_worker_that_stops_waits_for_no_answer(world):
    alice = await world.client("alice", presence=None)
    await alice.send(presence("x"))
    await alice.expect("iq", type="get")
    server = world.servers[1]
    assert server._tasks
    await server.stop()
    assert not server._tasks


@pytest.mark.parametrize(("missed_ms", "expected"), [(10_000, True), (-60_000, False)])
async def test_a_session_that_is_resumed_elsewhere_goes_on_hearing(world, monkeypatch, missed_ms, expected):
    """It gets what it may have missed on the way, not all that it had long ago."""
    monkeypatch.setattr(notify, "MOVE_MS", missed_ms)
    alice = await listener(world, "alice", MOOD)
    await publish(alice, MOOD, "before", PAYLOAD)
    await event(alice, MOOD)
    session = alice.session
    sm_id = alice.server.enable_sm(session, True)
    await alice.vanish()
    other = world.servers[2]
    alice.server = other
    alice.session = await other.resume(alice, "alice", sm_id, 0)
    assert alice.session is not session
    await answer_disco(alice, disco([MOOD]))
    if expected:
        assert (await event(alice, MOOD))[0].get("id") == "before"
    await no_event(alice)
    await publish(await world.client("alice", "pc"), MOOD, payload=PAYLOAD)
    await event(alice, MOOD)
    await no_event(alice)


async def test_a_client_hears_of_so_many_nodes(world, monkeypatch):
    """It was we who asked, so nothing is refused: what is too much is only counted."""
    monkeypatch.setattr("nestbox.modules.caps.NODES_MAX", 2)
    alice = await listener(world, "alice", "x:1", "x:2", "x:3")
    assert len(alice.session.notify) == 2
    assert world.limits_hit() == {"caps_nodes": 1}


class TestLimit:
    @pytest.fixture
    def limits(self):
        return Limits(caps_cached=2)

    async def test_only_so_many_are_remembered(self, world):
        for number in range(3):
            await listener(world, "alice", f"x:{number}", resource=f"r{number}")
        for number, expected in ((2, False), (0, True)):
            bob = await world.client("bob", f"r{number}", presence=None)
            info = disco([f"x:{number}"])
            await bob.send(presence(verification(info)))
            if expected:
                await answer_disco(bob, info)
            await world.settle()
            assert bob.session.notify == {f"x:{number}"}

"""Where stanzas go and how they come back: RFC 6121, section 8, table by table, and RFC 6120, sections 8 and 10."""

from __future__ import annotations

import pytest
from harness import DOMAIN, condition

from nestbox.core.errors import StreamError

BODY = "<body>hi</body>"


async def say(alice, to, kind):
    attribute = f" type='{kind}'" if kind else ""
    await alice.send(f"<message to='{to}' id='m'{attribute}>{BODY}</message>")
    await alice.world.settle()


async def fate(world, alice, client):
    """What became of the message: who got it ('delivered', 'offline'), the error's condition, or 'silence'."""
    await world.settle()
    errors = [s for s in alice.received if s.kind == "message" and s.type == "error"]
    if errors:
        assert errors[0].id == "m"
        return condition(errors[0])
    if client is not None and any(s.kind == "message" for s in client.received):
        return "delivered"
    late = await world.client("bob", "late", worker=2, presence=None)
    await late.send("<presence/>")
    await world.settle()
    return "offline" if any(s.kind == "message" for s in late.received) else "silence"


# Sections 8.5.1, 8.5.2.1, 8.5.2.2, 8.5.3.1, 8.5.3.2. An unknown type is a normal message (section 5.2.2).
MESSAGES = [
    # to, presence of bob's session (None: no session), type, fate
    ("nobody", None, "chat", "service-unavailable"),
    ("nobody", None, None, "service-unavailable"),
    ("nobody", None, "headline", "service-unavailable"),
    ("nobody", None, "error", "silence"),
    ("bare", "<presence/>", None, "delivered"),
    ("bare", "<presence/>", "normal", "delivered"),
    ("bare", "<presence/>", "chat", "delivered"),
    ("bare", "<presence/>", "headline", "delivered"),
    ("bare", "<presence/>", "odd", "delivered"),
    ("bare", "<presence/>", "groupchat", "service-unavailable"),
    ("bare", "<presence/>", "error", "silence"),
    ("bare", "<presence><priority>-1</priority></presence>", "chat", "offline"),
    ("bare", "<presence><priority>-1</priority></presence>", "headline", "silence"),
    ("bare", "", "chat", "offline"),
    ("bare", None, None, "offline"),
    ("bare", None, "normal", "offline"),
    ("bare", None, "chat", "offline"),
    ("bare", None, "odd", "offline"),
    ("bare", None, "headline", "silence"),
    ("bare", None, "groupchat", "service-unavailable"),
    ("bare", None, "error", "silence"),
    ("full", "<presence/>", "chat", "delivered"),
    ("full", "<presence/>", "groupchat", "delivered"),
    ("full", "<presence/>", "headline", "delivered"),
    ("full", "<presence/>", "error", "delivered"),
    ("full", "<presence/>", "odd", "delivered"),
    ("full", "<presence><priority>-1</priority></presence>", "chat", "delivered"),
    ("full", "", "chat", "delivered"),
    ("gone", "<presence/>", "chat", "delivered"),
    ("gone", "<presence/>", None, "service-unavailable"),
    ("gone", "<presence/>", "odd", "service-unavailable"),
    ("gone", "<presence/>", "headline", "silence"),
    ("gone", "<presence/>", "groupchat", "service-unavailable"),
    ("gone", "<presence/>", "error", "silence"),
    ("gone", None, "chat", "offline"),
    ("gone", None, None, "offline"),
    ("gone", None, "groupchat", "service-unavailable"),
    ("gone", None, "headline", "silence"),
    ("host", None, "chat", "service-unavailable"),
    ("elsewhere", None, "chat", "remote-server-not-found"),
    ("elsewhere", None, "error", "silence"),
]


@pytest.mark.parametrize("where, presence, kind, expected", MESSAGES)
async def test_messages(world, where, presence, kind, expected):
    alice = await world.client("alice")
    await world.user("bob")
    bob = None
    if presence is not None:
        bob = await world.client("bob", "here", worker=2, presence=presence or None)
    to = {
        "nobody": f"nobody@{DOMAIN}",
        "bare": f"bob@{DOMAIN}",
        "full": f"bob@{DOMAIN}/here",
        "gone": f"bob@{DOMAIN}/gone",
        "host": DOMAIN,
        "elsewhere": "bob@elsewhere.test",
    }[where]
    await say(alice, to, kind)
    assert await fate(world, alice, bob) == expected


@pytest.mark.parametrize("kind", [None, "unavailable", "subscribe", "probe", "error"])
@pytest.mark.parametrize("to", ["nobody@nestbox.test", "bob@nestbox.test/gone", "nobody@nestbox.test/x"])
async def test_presence_for_nobody_is_silent(world, to, kind):
    alice = await world.client("alice")
    bob = await world.client("bob", "here")
    attribute = f" type='{kind}'" if kind else ""
    await alice.send(f"<presence to='{to}'{attribute}/>")
    await alice.nothing("presence", type="error")
    if kind != "subscribe":
        await bob.nothing("presence", from_=alice.jid)


@pytest.mark.parametrize(
    "to, expected",
    [
        (None, "service-unavailable"),
        (DOMAIN, "service-unavailable"),
        (f"bob@{DOMAIN}", "service-unavailable"),
        (f"nobody@{DOMAIN}", "service-unavailable"),
        (f"bob@{DOMAIN}/gone", "service-unavailable"),
        (f"nobody@{DOMAIN}/x", "service-unavailable"),
        ("elsewhere.test", "remote-server-not-found"),
        ("@nestbox.test", "jid-malformed"),
        ("a b@nestbox.test", "jid-malformed"),
        ("nestbox.test/", "jid-malformed"),
    ],
)
@pytest.mark.parametrize("kind", ["get", "set"])
async def test_a_question_that_nobody_answers_comes_back(world, to, kind, expected):
    alice = await world.client("alice")
    await world.user("bob")
    address = f" to='{to}'" if to else ""
    await alice.send(f"<iq type='{kind}' id='q'{address}><query xmlns='urn:example:unknown'/></iq>")
    answer = await alice.expect("iq", type="error", id="q")
    assert condition(answer) == expected
    assert answer.from_ == to  # from whom it was asked


@pytest.mark.parametrize("to", ["@nestbox.test", "bob@", "bob@nestbox.test/", "bo b@nestbox.test", "bob@-nestbox.test"])
@pytest.mark.parametrize("stanza", ["<message to='{}'><body>x</body></message>", "<presence to='{}'/>"])
async def test_no_address_is_malformed(world, stanza, to):
    alice = await world.client("alice")
    await alice.send(stanza.format(to))
    assert condition(await alice.expect(lambda s: s.type == "error", from_=to)) == "jid-malformed"


@pytest.mark.parametrize(
    "xml",
    [
        "<iq type='get'><ping xmlns='urn:xmpp:ping'/></iq>",
        "<iq id='q'><ping xmlns='urn:xmpp:ping'/></iq>",
        "<iq type='ask' id='q'><ping xmlns='urn:xmpp:ping'/></iq>",
        "<iq type='get' id='q'/>",
        "<iq type='get' id='q'><ping xmlns='urn:xmpp:ping'/><ping xmlns='urn:xmpp:ping'/></iq>",
        "<iq type='get' id='q' to='bob@nestbox.test/here'/>",
    ],
)
async def test_an_iq_that_is_none_is_a_bad_request(world, xml):
    alice = await world.client("alice")
    bob = await world.client("bob", "here")
    await alice.send(xml)
    assert condition(await alice.expect("iq", type="error")) == "bad-request"
    await bob.nothing("iq")


@pytest.mark.parametrize("to", ["", " to='nestbox.test'", " to='bob@nestbox.test'", " to='bob@nestbox.test/gone'"])
@pytest.mark.parametrize("kind", ["result", "error"])
async def test_an_answer_that_nobody_awaits_is_dropped(world, to, kind):
    """RFC 6120, section 8.2.3: an answer is never answered."""
    alice = await world.client("alice")
    await world.user("bob")
    await alice.send(f"<iq type='{kind}' id='q'{to}/>")
    await alice.nothing()


async def test_a_question_goes_from_client_to_client_and_back(world):
    alice, bob = await world.client("alice"), await world.client("bob", worker=2)
    await alice.send(f"<iq type='get' id='q' to='{bob.jid}'><ping xmlns='urn:xmpp:ping'/></iq>")
    question = await bob.expect("iq", type="get", id="q", from_=alice.jid)
    await bob.send(f"<iq type='result' id='q' to='{question.from_}'/>")
    await alice.expect("iq", type="result", id="q", from_=bob.jid)


# who it is from (RFC 6120, section 8.1.2.1)


@pytest.mark.parametrize("claimed", ["{bare}", "{jid}", "ALICE@Nestbox.Test", None])
async def test_the_server_stamps_who_it_is_from(world, claimed):
    alice, bob = await world.client("alice"), await world.client("bob", worker=2)
    from_ = f" from='{claimed.format(bare=alice.bare, jid=alice.jid)}'" if claimed else ""
    for stanza in (f"<message to='{bob.bare}'{from_}>{BODY}</message>", f"<presence to='{bob.bare}'{from_}/>"):
        await alice.send(stanza)
    for kind in ("message", "presence"):
        await bob.expect(kind, from_=alice.jid)


@pytest.mark.parametrize("claimed", [f"bob@{DOMAIN}", f"alice@{DOMAIN}/other", DOMAIN, "alice@elsewhere.test", "@", ""])
@pytest.mark.parametrize("kind", ["message", "presence", "iq"])
async def test_another_address_ends_the_stream(world, claimed, kind):
    alice, bob = await world.client("alice"), await world.client("bob")
    with pytest.raises(StreamError, match="invalid-from"):
        await alice.send(f"<{kind} type='set' id='1' to='{bob.bare}' from='{claimed}'>{BODY}</{kind}>")
    await bob.nothing()


# what must not pass for something else


@pytest.mark.parametrize(
    "payload",
    [
        "<result xmlns='urn:xmpp:mam:2' id='1'><forwarded xmlns='urn:xmpp:forward:0'/></result>",
        "<sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'/></sent>",
        "<received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'/></received>",
        "<event xmlns='http://jabber.org/protocol/pubsub#event'><items node='x'/></event>",
    ],
)
async def test_what_only_a_server_may_say_comes_from_its_sender(world, payload):
    """Clients check that the sender is their own account: no stanza of another may claim that."""
    mallory, bob = await world.client("mallory"), await world.client("bob", worker=2)
    for to in (bob.bare, bob.jid):
        await mallory.send(f"<message to='{to}' type='chat'>{payload}{BODY}</message>")
    for message in [s for s in await bob.drain() if s.kind == "message"]:
        assert message.from_ == mallory.jid


@pytest.mark.parametrize("to", [f"bob@{DOMAIN}", f"bob@{DOMAIN}/here"])
async def test_a_roster_push_of_somebody_else_changes_nothing(world, to):
    mallory, bob = await world.client("mallory"), await world.client("bob", "here", worker=2)
    await bob.iq("get", "<query xmlns='jabber:iq:roster'/>")
    push = f"<query xmlns='jabber:iq:roster'><item jid='{mallory.bare}' subscription='both'/></query>"
    await mallory.send(f"<iq type='set' id='p' to='{to}'>{push}</iq>")
    for iq in [s for s in await bob.drain() if s.kind == "iq"]:
        assert iq.from_ == mallory.jid  # a client ignores it (RFC 6121, section 2.1.6)
    assert len((await bob.iq("get", "<query xmlns='jabber:iq:roster'/>")).payload) == 0

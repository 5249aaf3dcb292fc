"""XEP-0313 with XEP-0059: what is archived, who may read it, and paging."""

from __future__ import annotations

import asyncio
import time

import pytest
from archive_client import FORWARDED, MAM, form, query, rsm, say
from harness import condition

from nestbox.core.delay import timestamp
from nestbox.wire import ns
from nestbox.wire.stanza import STANZA_ID


@pytest.fixture
async def alice(world):
    return await world.client("alice")


@pytest.fixture
async def bob(world):
    return await world.client("bob", worker=2)


async def test_both_sides_find_a_message_under_the_id_its_recipient_saw(alice, bob):
    await say(alice, bob.bare, "hi")
    seen = (await bob.expect("message")).find(STANZA_ID)
    assert seen.get("by") == bob.bare
    for client in (alice, bob):
        answer = await query(client)
        assert (answer.ids, answer.bodies, answer.complete) == ([seen.get("id")], ["hi"], True)
        result = answer.results[0]
        assert (result.from_, result.to) == (client.bare, client.jid)
        assert answer.elements[0].get("queryid") == "q1"
        forwarded = answer.elements[0].find(FORWARDED)
        message = forwarded.find("{jabber:client}message")
        assert (message.get("from"), message.get("to"), message.get("type")) == (alice.jid, bob.bare, "chat")
        stamp = forwarded.find(f"{{{ns.DELAY}}}delay").get("stamp")
        assert stamp[:13] == timestamp(time.time_ns() // 1_000_000)[:13]
        assert message.find(STANZA_ID) is None  # each side's id is the result's


async def test_it_is_there_although_nobody_was_online(world, alice):
    await world.user("carol")
    await say(alice, "carol@nestbox.test", "later")
    carol = await world.client("carol", presence=None)
    assert (await query(carol)).bodies == ["later"]


async def test_a_note_to_oneself_is_there_once(alice):
    await say(alice, alice.bare, "note")
    seen = (await alice.expect("message")).find(STANZA_ID)
    answer = await query(alice)
    assert (answer.bodies, answer.ids) == (["note"], [seen.get("id")])


@pytest.mark.parametrize(
    "type, payload",
    [
        ("chat", "<body>x</body>"),
        ("normal", "<body>x</body>"),
        (None, "<body>x</body>"),
        ("chat", "<received xmlns='urn:xmpp:receipts' id='1'/>"),
        ("chat", "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>"),
        ("chat", "<reactions xmlns='urn:xmpp:reactions:0' id='1'><reaction>x</reaction></reactions>"),
        ("chat", "<retract xmlns='urn:xmpp:message-retract:1' id='1'/>"),
        ("chat", "<body>y</body><replace xmlns='urn:xmpp:message-correct:0' id='1'/>"),
        ("chat", "<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'/></encrypted>"),
        ("chat", "<encrypted xmlns='urn:xmpp:omemo:2'/>"),
        ("chat", "<propose xmlns='urn:xmpp:jingle-message:0' id='1'/>"),
        ("chat", "<x xmlns='urn:example:custom'/><store xmlns='urn:xmpp:hints'/>"),
        ("normal", "<x xmlns='jabber:x:conference' jid='room@rooms.nestbox.test'/>"),
    ],
)
async def test_what_belongs_into_the_archive(alice, bob, type, payload):
    kind = f" type='{type}'" if type else ""
    await alice.send(f"<message to='{bob.bare}'{kind}>{payload}</message>")
    await alice.world.settle()
    assert len((await query(alice)).ids) == 1
    assert len((await query(bob)).ids) == 1


@pytest.mark.parametrize(
    "type, payload",
    [
        ("chat", "<composing xmlns='http://jabber.org/protocol/chatstates'/>"),
        ("chat", "<body>x</body><no-store xmlns='urn:xmpp:hints'/>"),
        ("chat", "<body>x</body><no-permanent-store xmlns='urn:xmpp:hints'/>"),
        ("chat", "<body>x</body><no-store xmlns='urn:xmpp:hints'/><store xmlns='urn:xmpp:hints'/>"),
        ("headline", "<body>x</body>"),
        ("error", "<body>x</body>"),
        ("groupchat", "<body>x</body>"),
        ("normal", "<event xmlns='http://jabber.org/protocol/pubsub#event'/><body>x</body>"),
        ("chat", "<x xmlns='urn:example:custom'/>"),
    ],
)
async def test_what_does_not(alice, bob, type, payload):
    await alice.send(f"<message to='{bob.jid}' type='{type}'>{payload}</message>")
    assert (await query(alice)).ids == []
    assert (await query(bob)).ids == []


async def test_a_message_that_was_refused_is_in_no_archive(alice):
    await say(alice, "nobody@nestbox.test", "x")
    assert condition(await alice.expect("message", type="error")) == "service-unavailable"
    assert (await query(alice)).ids == []


async def test_paging_forward(alice, bob):
    await say(alice, bob.bare, *"abcde")
    first = await query(bob, rsm(max=2))
    assert (first.bodies, first.complete) == (["a", "b"], False)
    assert (first.rsm("first"), first.rsm("last")) == (first.ids[0], first.ids[1])
    second = await query(bob, rsm(max=2, after=first.rsm("last")))
    assert (second.bodies, second.complete) == (["c", "d"], False)
    third = await query(bob, rsm(max=2, after=second.rsm("last")))
    assert (third.bodies, third.complete) == (["e"], True)
    end = await query(bob, rsm(max=2, after=third.rsm("last")))
    assert (end.bodies, end.complete, end.rsm("first")) == ([], True, None)


async def test_paging_backward(alice, bob):
    await say(alice, bob.bare, *"abcde")
    last = await query(bob, rsm(max=2, before=None))
    assert (last.bodies, last.complete) == (["d", "e"], False)
    middle = await query(bob, rsm(max=2, before=last.rsm("first")))
    assert (middle.bodies, middle.complete) == (["b", "c"], False)
    first = await query(bob, rsm(max=2, before=middle.rsm("first")))
    assert (first.bodies, first.complete) == (["a"], True)


async def test_a_flipped_page_is_the_same_page(alice, bob):
    await say(alice, bob.bare, *"abc")
    page = await query(bob, rsm(max=2, before=None), "<flip-page/>")
    assert page.bodies == ["c", "b"]
    assert (page.rsm("first"), page.rsm("last")) == (page.ids[1], page.ids[0])


async def test_counting(alice, bob):
    await say(alice, bob.bare, *"abc")
    answer = await query(bob, rsm(max=0))
    assert (answer.results, answer.rsm("count"), answer.complete) == ([], "3", False)
    assert (await query(bob)).rsm("count") == "3"


async def test_pages_have_a_limit(alice, bob):
    await say(alice, bob.bare, *map(str, range(105)))
    assert len((await query(bob)).ids) == 50
    assert len((await query(bob, rsm(max=1000))).ids) == 100


async def test_a_page_of_giants_is_cut_at_the_end_where_paging_goes_on(alice, bob):
    big = "x" * 200_000
    await say(alice, bob.bare, *[f"{n}{big}" for n in range(8)])
    forward = await query(bob)
    assert [body[0] for body in forward.bodies] == list("01234") and not forward.complete
    backward = await query(bob, rsm(before=None))
    assert [body[0] for body in backward.bodies] == list("34567") and not backward.complete


async def test_filters(world, alice, bob):
    carol = await world.client("carol")
    await say(alice, bob.bare, "to bob")
    await say(carol, alice.jid, "from carol")
    assert (await query(alice, form(with_=bob.bare))).bodies == ["to bob"]
    assert (await query(alice, form(with_=carol.jid))).bodies == ["from carol"]
    assert (await query(alice, form(with_="dave@nestbox.test"))).bodies == []
    everything = await query(alice)
    first, last = everything.ids
    assert (await query(alice, form(ids=[last]))).bodies == ["from carol"]
    assert (await query(alice, form(ids=[first, last]))).ids == [first, last]
    assert (await query(alice, form(after_id=first))).ids == [last]
    assert (await query(alice, form(before_id=last))).ids == [first]
    assert (await query(alice, form(after_id=first, before_id=last))).ids == []
    assert (await query(alice, form(after_id=first), rsm(max=1, before=None))).ids == [last]
    assert (await query(alice, form(include_groupchat="true"))).ids == [first, last]


async def test_with_a_full_address(alice, bob):
    await say(alice, bob.bare, "to all of bob's devices")
    await say(alice, bob.jid.replace("bob@nestbox", "BOB@Nestbox"), "to this one")
    assert (await query(alice, form(with_=bob.jid))).bodies == ["to this one"]
    assert (await query(alice, form(with_=f"{bob.bare}/elsewhere"))).bodies == []
    assert (await query(bob, form(with_=alice.jid))).bodies == ["to all of bob's devices", "to this one"]


async def test_only_what_matches_is_counted(alice, bob):
    await say(alice, bob.bare, "one")
    await say(alice, bob.jid, "two", "three")
    first, second, _ = (await query(alice)).ids
    for filters, expected in (
        (form(with_=bob.jid), "2"),
        (form(after_id=second), "1"),
        (form(before_id=second), "1"),
        (form(ids=[first, second]), "2"),
    ):
        assert (await query(alice, filters, rsm(max=0))).rsm("count") == expected


async def test_times(alice, bob):
    await say(alice, bob.bare, "first")
    await asyncio.sleep(0.02)
    between = timestamp(time.time_ns() // 1_000_000)
    await asyncio.sleep(0.02)
    await say(alice, bob.bare, "second")
    assert (await query(bob, form(start=between))).bodies == ["second"]
    assert (await query(bob, form(end=between))).bodies == ["first"]
    assert (await query(bob, form(start="2000-01-01T00:00:00Z", end="2000-01-02T00:00:00+01:00"))).bodies == []


@pytest.mark.parametrize(
    "children",
    [
        (rsm(after="12345"),),
        (rsm(before="12345"),),
        (rsm(after="no number"),),
        (rsm(after="9" * 40),),
        (rsm(after="1 OR 1=1"),),
        (form(ids=["12345"]),),
        (form(after_id="12345"),),
        (form(before_id="-1"),),
    ],
)
async def test_an_unknown_id_is_not_found(alice, bob, children):
    await say(alice, bob.bare, "x")
    assert await query(bob, *children) == "item-not-found"


async def test_an_id_of_another_archive_is_not_found(world, alice, bob):
    carol = await world.client("carol")
    await say(alice, bob.bare, "x")
    other = (await query(alice)).ids[0]
    assert await query(carol, rsm(after=other)) == "item-not-found"


@pytest.mark.parametrize(
    "children, expected",
    [
        ((rsm(max="many"),), "bad-request"),
        ((rsm(max="-1"),), "bad-request"),
        ((rsm(index="2"),), "feature-not-implemented"),
        ((rsm(after="1", before="2"),), "bad-request"),
        ((form(start="yesterday"),), "bad-request"),
        ((form(start="2026-01-01T00:00:00"),), "bad-request"),
        ((form(start="2026-01-01T00:00Z"),), "bad-request"),
        ((form(start="20260101T000000Z"),), "bad-request"),
        ((form(with_="@"),), "bad-request"),
        ((form(with_=["a@nestbox.test", "b@nestbox.test"]),), "bad-request"),
        ((form(fulltext="secret"),), "feature-not-implemented"),
        (("<x xmlns='jabber:x:data' type='submit'/>",), "bad-request"),
        (("<x xmlns='jabber:x:data' type='form'/>",), "bad-request"),
        ((form(ids=["1"] * 101),), "bad-request"),
    ],
)
async def test_a_wrong_query_says_so(alice, children, expected):
    assert await query(alice, *children) == expected


@pytest.mark.parametrize(
    "type, payload",
    [
        ("set", "<query xmlns='urn:xmpp:mam:2'/>"),
        ("get", "<query xmlns='urn:xmpp:mam:2'/>"),
        ("get", "<metadata xmlns='urn:xmpp:mam:2'/>"),
        ("get", "<prefs xmlns='urn:xmpp:mam:2'/>"),
        ("set", "<prefs xmlns='urn:xmpp:mam:2' default='never'/>"),
    ],
)
async def test_an_archive_is_its_owners_alone(alice, bob, type, payload):
    assert condition(await alice.iq(type, payload, to=bob.bare)) == "forbidden"


async def test_the_form_names_the_fields(alice):
    answer = await alice.iq("get", "<query xmlns='urn:xmpp:mam:2'/>")
    fields = answer.payload.find("{jabber:x:data}x").findall("{jabber:x:data}field")
    assert {f.get("var") for f in fields} == {
        "FORM_TYPE",
        "with",
        "start",
        "end",
        "before-id",
        "after-id",
        "ids",
        "include-groupchat",
    }
    (ids,) = [field for field in fields if field.get("var") == "ids"]  # any id will do (section 4.1.5)
    assert ids.find("{http://jabber.org/protocol/xdata-validate}validate")[0].tag.endswith("}open")
    info = await alice.iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", to=alice.bare)
    assert "urn:xmpp:mam:2#groupchat-field" in {each.get("var") for each in info.payload}


async def test_the_count_is_of_all_that_is_found(alice, bob):
    """XEP-0059, section 2.2: the edge of a page leaves nothing out, the filters of the form do."""
    await say(alice, bob.bare, *"abcde")
    ids = (await query(alice)).ids
    assert (await query(alice, rsm(max=0, after=ids[2]))).rsm("count") == "5"
    assert (await query(alice, rsm(max=0, before=ids[0]))).rsm("count") == "5"
    assert (await query(alice, form(after_id=ids[2]), rsm(max=0))).rsm("count") == "2"


async def test_metadata(alice, bob):
    empty = (await alice.iq("get", "<metadata xmlns='urn:xmpp:mam:2'/>")).payload
    assert len(empty) == 0
    await say(alice, bob.bare, *"abc")
    ids = (await query(alice)).ids
    start, end = (await alice.iq("get", "<metadata xmlns='urn:xmpp:mam:2'/>")).payload
    assert (start.tag, start.get("id"), end.tag, end.get("id")) == (MAM + "start", ids[0], MAM + "end", ids[2])
    assert start.get("timestamp") <= end.get("timestamp") and end.get("timestamp").endswith("Z")


async def test_an_id_that_another_worker_is_about_to_commit_is_waited_for(world, alice, bob):
    """Bob asks for what follows a message before alice's worker has committed it."""
    commit = Held(world.servers[1])
    await alice.send(f"<message to='{bob.bare}' type='chat'><body>fresh</body></message>")
    asking = asyncio.ensure_future(query(bob, rsm(after=await commit.first_id())))
    await asyncio.sleep(0.05)
    assert not asking.done()
    commit.gate.set()
    assert (await asking).ids == []


class Held:
    """The commits of a worker wait until ``gate`` is set."""

    def __init__(self, server):
        self.gate = asyncio.Event()
        self._ids = asyncio.Queue()
        self._committer = server.store.committer
        self._write = self._committer._writer.write
        self._committer._writer.write = self._held

    async def _held(self, batch):
        for row in batch.archive:
            self._ids.put_nowait(row[1])
        await self.gate.wait()
        return await self._write(batch)

    async def first_id(self):
        """The id of the first message that waits."""
        return await self._ids.get()


async def test_nobody_is_given_what_is_not_stored(world, alice, bob):
    """What follows waits, too: two of one sender come in the order in which they were sent."""
    commit = Held(world.servers[1])
    await alice.send(f"<message to='{bob.bare}' type='chat'><body>first</body></message>")
    await alice.send(
        f"<message to='{bob.jid}' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>"
    )
    await alice.send(f"<iq to='{bob.jid}' type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>")
    await commit.first_id()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not bob.received
    commit.gate.set()
    await world.settle()
    assert [(s.kind, s.element[0].tag.partition("}")[2]) for s in bob.received] == [
        ("message", "body"),
        ("message", "composing"),
        ("iq", "ping"),
    ]


async def test_nobody_is_given_what_will_never_be_stored(world, alice, bob):
    """Whoever counts no stanzas is told; others send it again."""
    committer = world.servers[1].store.committer

    async def broken(batch):
        raise RuntimeError("a defect of ours")

    write, committer._writer.write = committer._writer.write, broken
    await alice.send(f"<message to='{bob.bare}' type='chat' id='1'><body>lost</body></message>")
    assert condition(await alice.expect("message", type="error", id="1")) == "internal-server-error"
    await bob.nothing("message")
    committer._writer.write = write
    await say(alice, bob.bare, "kept")
    assert (await bob.expect("message")).find("{jabber:client}body").text == "kept"


async def test_the_sender_is_told_when_nothing_can_be_stored(world, alice, bob):
    world.servers[1].store.committer._max_rows = 0
    await say(alice, bob.bare, "x")
    assert condition(await alice.expect("message", type="error")) == "resource-constraint"
    await bob.nothing("message")


class TestSwitchedOff:
    @pytest.fixture
    def config(self, config):
        config.archive.enabled = False
        return config

    async def test_there_is_no_archive(self, world, alice, bob):
        await say(alice, bob.bare, "hi")
        assert (await bob.expect("message")).find(STANZA_ID) is None
        assert await query(alice) == "service-unavailable"
        assert not {ns.MAM, ns.MAM_EXTENDED} & world.servers[1].account_features
        assert await world.servers[1].store.archive.ends(alice.session.user.id) is None

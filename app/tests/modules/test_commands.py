"""XEP-0050: ad-hoc commands."""

from __future__ import annotations

import asyncio

import pytest
from harness import DOMAIN, condition

from nestbox.config import Limits
from nestbox.core.errors import StanzaError
from nestbox.modules import dataforms
from nestbox.modules.commands import Answer, Command
from nestbox.modules.dataforms import Field

NS = "{http://jabber.org/protocol/commands}"
INFO = "{http://jabber.org/protocol/disco#info}"
ITEMS = "{http://jabber.org/protocol/disco#items}"
FORM = dataforms.form("urn:test", [Field("text-single", "word", "A word", required=True)], title="Say a word")


@pytest.fixture
def limits():
    return Limits(command_sessions=3)


@pytest.fixture
async def world(world):
    """With a command of three steps, one of one step, and one for alice alone."""

    async def last(call):
        await asyncio.sleep(0)
        if call.value("word") == "wrong":
            raise StanzaError("not-acceptable", "Not this word.")
        said = " ".join(form["word"][0] for form in call.forms)
        return Answer(notes=(("info", f"{call.sender} said {said}"),))

    for server in world.servers.values():
        for command in (
            Command("talk", "Talk", (lambda call: Answer((FORM,)), lambda call: Answer((FORM,)), last)),
            Command("once", "Once", (lambda call: Answer(notes=(("warn", "done"),)),)),
            Command("hers", "Hers", (lambda call: Answer(),), lambda sender: sender.local == "alice"),
        ):
            server.commands[command.node] = command
    return world


@pytest.fixture
async def alice(world):
    return await world.client("alice")


def command(node, payload="", **attributes):
    given = "".join(f" {name}='{value}'" for name, value in attributes.items() if value)
    return f"<command xmlns='http://jabber.org/protocol/commands' node='{node}'{given}>{payload}</command>"


def word(text):
    return f"<x xmlns='jabber:x:data' type='submit'><field var='word'><value>{text}</value></field></x>"


async def run(client, node, payload="", to=DOMAIN, **attributes):
    """The command element of the answer, or (condition, specific condition)."""
    answer = await client.iq("set", command(node, payload, **attributes), to=to)
    if answer.type == "error":
        error = answer.find("{jabber:client}error")
        specific = [child.tag.removeprefix(NS) for child in error if child.tag.startswith(NS)]
        return condition(answer), *specific
    return answer.find(NS + "command")


def actions(element):
    found = element.find(NS + "actions")
    return found.get("execute"), [child.tag.removeprefix(NS) for child in found]


async def test_the_list_shows_each_what_they_may_use(world, alice):
    bob = await world.client("bob", worker=2)
    query = "<query xmlns='http://jabber.org/protocol/disco#items' node='http://jabber.org/protocol/commands'/>"
    for client, more in ((alice, {"hers"}), (bob, set())):
        answer = (await client.iq("get", query, to=DOMAIN)).find(ITEMS + "query")
        found = {item.get("node"): (item.get("name"), item.get("jid")) for item in answer}
        assert found["talk"] == ("Talk", DOMAIN)
        assert found.keys() & {"talk", "once", "hers"} == {"talk", "once"} | more


async def test_discovery_of_the_list_and_of_a_command(alice):
    async def info(node):
        query = f"<query xmlns='http://jabber.org/protocol/disco#info' node='{node}'/>"
        answer = (await alice.iq("get", query, to=DOMAIN)).find(INFO + "query")
        assert answer.get("node") == node
        return answer[0].attrib, {feature.get("var") for feature in answer.iter(INFO + "feature")}

    identity, _ = await info("http://jabber.org/protocol/commands")
    assert (identity["category"], identity["type"]) == ("automation", "command-list")
    identity, features = await info("talk")
    assert identity == {"category": "automation", "type": "command-node", "name": "Talk"}
    assert features == {"http://jabber.org/protocol/commands", "jabber:x:data"}
    answer = await alice.iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", to=DOMAIN)
    assert features < {feature.get("var") for feature in answer.find(INFO + "query").iter(INFO + "feature")}


async def test_a_command_for_others_is_forbidden(world):
    bob = await world.client("bob")
    assert await run(bob, "hers") == ("forbidden",)
    query = "<query xmlns='http://jabber.org/protocol/disco#info' node='hers'/>"
    assert condition(await bob.iq("get", query, to=DOMAIN)) == "forbidden"


async def test_one_may_ask_ones_own_account(world, alice):
    query = "<query xmlns='http://jabber.org/protocol/disco#items' node='http://jabber.org/protocol/commands'/>"
    found = (await alice.iq("get", query, to=alice.bare)).find(ITEMS + "query")
    assert {"talk", "once", "hers"} <= {item.get("node") for item in found}
    info = await alice.iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", to=alice.bare)
    assert "http://jabber.org/protocol/commands" in {each.get("var") for each in info.payload}
    assert (await run(alice, "once", to=alice.bare)).get("status") == "completed"
    bob = await world.client("bob", worker=2)
    assert await run(bob, "once", to=alice.bare) == ("service-unavailable",)


async def test_a_command_of_one_step(alice):
    answer = await run(alice, "once", action="execute")
    assert (answer.get("status"), answer.get("node")) == ("completed", "once")
    assert answer.get("sessionid")
    note = answer.find(NS + "note")
    assert (note.get("type"), note.text) == ("warn", "done")


async def test_forward_back_and_to_the_end(alice):
    first = await run(alice, "talk")
    session = first.get("sessionid")
    assert (first.get("status"), actions(first)) == ("executing", ("next", ["next"]))
    assert first.find(dataforms.FORM).get("type") == "form"
    second = await run(alice, "talk", word("one"), sessionid=session, action="next")
    assert actions(second) == ("complete", ["prev", "complete"])
    assert actions(await run(alice, "talk", sessionid=session, action="prev")) == ("next", ["next"])
    await run(alice, "talk", word("uno"), sessionid=session)  # without an action: the usual one
    last = await run(alice, "talk", word("two"), sessionid=session, action="complete")
    assert (last.get("status"), last.get("sessionid")) == ("completed", session)
    assert last.find(NS + "note").text == f"{alice.jid} said uno two"
    assert await run(alice, "talk", word("x"), sessionid=session) == ("bad-request", "bad-sessionid")


async def test_a_refused_form_can_be_sent_again(alice):
    session = (await run(alice, "talk")).get("sessionid")
    await run(alice, "talk", word("one"), sessionid=session)
    assert await run(alice, "talk", word("wrong"), sessionid=session) == ("not-acceptable",)
    assert (await run(alice, "talk", word("right"), sessionid=session)).get("status") == "completed"


async def test_cancelling(alice):
    session = (await run(alice, "talk")).get("sessionid")
    answer = await run(alice, "talk", sessionid=session, action="cancel")
    assert (answer.get("status"), len(answer)) == ("canceled", 0)
    assert await run(alice, "talk", sessionid=session, action="cancel") == ("bad-request", "bad-sessionid")


@pytest.mark.parametrize(
    "payload, attributes, expected",
    [
        (word("x"), {"action": "jump"}, "malformed-action"),
        (word("x"), {"action": "complete"}, "bad-action"),
        ("", {"action": "prev"}, "bad-action"),
        (word("x"), {"xml:lang": "no language"}, "bad-locale"),
        ("", {}, "bad-payload"),
        ("<x xmlns='jabber:x:data' type='form'/>", {}, "bad-payload"),
        ("<x xmlns='jabber:x:data' type='submit'><field/></x>", {}, "bad-payload"),
    ],
)
async def test_what_cannot_be_done_names_the_reason(alice, payload, attributes, expected):
    session = (await run(alice, "talk", **{"xml:lang": "de-AT"})).get("sessionid")
    assert await run(alice, "talk", payload, sessionid=session, **attributes) == ("bad-request", expected)
    assert (await run(alice, "talk", word("x"), sessionid=session)).get("status") == "executing"


async def test_what_cannot_begin(alice):
    assert await run(alice, "nowhere") == ("item-not-found",)
    assert await run(alice, "talk", action="next") == ("bad-request", "bad-action")
    assert await run(alice, "talk", sessionid="made-up") == ("bad-request", "bad-sessionid")


async def test_a_session_is_its_owners_and_its_commands_alone(world, alice):
    session = (await run(alice, "talk")).get("sessionid")
    other = await world.client("alice", "other")
    assert await run(other, "talk", word("x"), sessionid=session) == ("bad-request", "bad-sessionid")
    assert await run(alice, "once", sessionid=session) == ("bad-request", "bad-sessionid")
    assert (await run(alice, "talk", word("x"), sessionid=session)).get("status") == "executing"


async def test_a_session_ends_with_its_client(world, alice):
    session = (await run(alice, "talk")).get("sessionid")
    await alice.leave()
    again = await world.client("alice", alice.jid.partition("/")[2])
    assert await run(again, "talk", word("x"), sessionid=session) == ("bad-request", "bad-sessionid")


async def test_begun_commands_have_a_limit(world, alice):
    begun = [(await run(alice, "talk")).get("sessionid") for _ in range(3)]
    assert await run(alice, "talk") == ("resource-constraint",)
    assert world.limits_hit() == {"command_sessions": 1}
    await run(alice, "talk", sessionid=begun[0], action="cancel")
    assert (await run(alice, "talk")).get("status") == "executing"


class TestExpiry:
    @pytest.fixture
    def config(self, config):
        config.limits.command_seconds = 0.05
        return config

    async def test_an_old_session_says_that_it_expired_and_makes_room(self, alice):
        begun = [(await run(alice, "talk")).get("sessionid") for _ in range(3)]
        await asyncio.sleep(0.06)
        assert await run(alice, "talk", word("x"), sessionid=begun[0]) == ("not-allowed", "session-expired")
        assert await run(alice, "talk", word("x"), sessionid=begun[0]) == ("bad-request", "bad-sessionid")
        for _ in range(3):
            await run(alice, "talk")

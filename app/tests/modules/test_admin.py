"""XEP-0133: what administrators can do by ad-hoc commands."""

from __future__ import annotations

import pytest
from harness import DOMAIN, condition

from nestbox.modules import dataforms
from nestbox.wire import ns

NS = "{http://jabber.org/protocol/commands}"
ADMIN = "http://jabber.org/protocol/admin"
FIELD = "{jabber:x:data}field"
VALUE = "{jabber:x:data}value"


@pytest.fixture
def config(config):
    config.admins = ["root"]
    return config


@pytest.fixture
async def root(world):
    return await world.client("root")


def form(fields):
    parts = []
    for name, values in fields.items():
        values = [values] if isinstance(values, str) else values
        parts.append(f"<field var='{name}'>{''.join(f'<value>{value}</value>' for value in values)}</field>")
    return f"<x xmlns='jabber:x:data' type='submit'>{''.join(parts)}</x>"


async def step(client, name, payload="", session=""):
    attribute = f" sessionid='{session}'" if session else ""
    xml = f"<command xmlns='http://jabber.org/protocol/commands' node='{ADMIN}#{name}'{attribute}>{payload}</command>"
    answer = await client.iq("set", xml, to=DOMAIN)
    return condition(answer) or answer.find(NS + "command")


async def admin(client, name, **fields):
    """The completed command, or the error's condition; the form is filled in with ``fields``."""
    answer = await step(client, name)
    if not fields or isinstance(answer, str):
        return answer
    asked = {field.get("var") for field in answer.find(dataforms.FORM).iter(FIELD)}
    names = {name.replace("_verify", "-verify"): values for name, values in fields.items()}
    assert names.keys() <= asked
    return await step(client, name, form(names), answer.get("sessionid"))


def values(answer, field):
    found = [each for each in answer.find(dataforms.FORM).iter(FIELD) if each.get("var") == field]
    return [value.text for value in found[0].iter(VALUE)]


def note(answer):
    assert answer.get("status") == "completed"
    return answer.find(NS + "note").text


async def number(client, kind):
    return int(values(await admin(client, f"get-{kind}-users-num"), f"{kind}usersnum")[0])


async def test_others_neither_see_nor_use_them(world, root):
    bob = await world.client("bob", worker=2)
    query = "<query xmlns='http://jabber.org/protocol/disco#items' node='http://jabber.org/protocol/commands'/>"
    mine = (await root.iq("get", query, to=DOMAIN)).payload
    nodes = {item.get("node") for item in mine}
    assert f"{ADMIN}#add-user" in nodes and f"{ADMIN}#set-motd" in nodes
    theirs = (await bob.iq("get", query, to=DOMAIN)).payload
    assert not [item.get("node") for item in theirs if item.get("node").startswith(ADMIN)]
    for node in nodes:
        if node.startswith(ADMIN):
            assert await step(bob, node.partition("#")[2]) == "forbidden"


async def test_a_user_is_added_and_can_log_in_at_once(world, root):
    await world.servers[2].users.load("newbie")  # known not to be there
    answer = await admin(
        root,
        "add-user",
        accountjid="newbie@nestbox.test",
        password="correct-horse-7",
        password_verify="correct-horse-7",
    )
    assert "newbie" in note(answer)
    await world.settle()
    assert set((await world.servers[1].store.accounts.get("newbie")).keys) == {"SHA-1", "SHA-256", "SHA-512"}
    await world.client("newbie", worker=2)


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"accountjid": "bob@nestbox.test", "password": "long enough", "password_verify": "long enough"}, "conflict"),
        ({"accountjid": "new@nestbox.test", "password": "a", "password_verify": "b"}, "not-acceptable"),
        ({"accountjid": "new@nestbox.test", "password": ""}, "not-acceptable"),
        ({"accountjid": "new@nestbox.test", "password": "short", "password_verify": "short"}, "not-acceptable"),
        ({"accountjid": "new@nestbox.test", "password": "&#7;", "password_verify": "&#7;"}, None),
        ({"accountjid": "new@elsewhere.test", "password": "a", "password_verify": "a"}, "not-acceptable"),
        ({"accountjid": "@", "password": "a", "password_verify": "a"}, "jid-malformed"),
    ],
)
async def test_a_user_that_cannot_be_added(world, root, fields, expected):
    await world.user("bob")
    if expected is None:
        fields["password"] = fields["password_verify"] = "x" * 1024
        expected = "not-acceptable"
    assert await admin(root, "add-user", **fields) == expected
    assert await world.servers[1].store.accounts.get("new") is None


async def test_a_user_is_erased_with_the_sessions(world, root):
    bob = await world.client("bob", worker=2)
    await bob.iq("set", "<vCard xmlns='vcard-temp'><FN>Bob</FN></vCard>")
    assert "bob" in note(await admin(root, "delete-user", accountjids=["bob@nestbox.test"]))
    assert (await bob.end_of_stream()).condition == "not-authorized"
    assert await world.servers[1].store.accounts.get("bob") is None


async def test_a_user_is_disabled_and_let_in_again(world, root):
    bob = await world.client("bob", worker=2)
    await admin(root, "disable-user", accountjids=["bob@nestbox.test"])
    assert (await bob.end_of_stream()).condition == "not-authorized"
    await world.settle()
    assert await number(root, "disabled") == 1
    listed = await admin(root, "get-disabled-users-list", max_items="25")
    assert values(listed, "disableduserjids") == ["bob@nestbox.test"]
    await admin(root, "reenable-user", accountjids=["bob@nestbox.test"])
    await world.settle()
    assert await number(root, "disabled") == 0
    await world.client("bob", worker=2)


@pytest.mark.parametrize("name", ["delete-user", "disable-user"])
async def test_nobody_does_it_to_themselves(root, name):
    assert await admin(root, name, accountjids=["root@nestbox.test"]) == "not-allowed"
    assert not root.closed


async def test_sessions_are_ended_one_or_all(world, root):
    clients = [await world.client("bob", f"bob{n}", worker=n) for n in (1, 2)]
    assert note(await admin(root, "end-user-session", accountjids=[clients[1].jid])) == "Ended 1 sessions."
    assert (await clients[1].end_of_stream()).condition == "policy-violation"
    assert not clients[0].closed
    await world.settle()
    assert note(await admin(root, "end-user-session", accountjids=["bob@nestbox.test"])) == "Ended 1 sessions."
    await clients[0].end_of_stream()


async def test_a_password_is_changed(world, root):
    await world.user("bob")
    before = (await world.servers[1].store.accounts.get("bob")).keys
    await admin(root, "change-user-password", accountjid="bob@nestbox.test", password="much better")
    after = (await world.servers[1].store.accounts.get("bob")).keys
    assert before["SHA-1"] != after["SHA-1"]
    weak = await admin(root, "change-user-password", accountjid="bob@nestbox.test", password="password")
    assert weak == "not-acceptable" and (await world.servers[1].store.accounts.get("bob")).keys == after
    assert await admin(root, "change-user-password", accountjid="nobody@nestbox.test", password="x") == "item-not-found"


async def test_what_is_known_of_a_user(world, root):
    await world.friends("bob", "carol")
    bob = await world.client("bob", "phone", worker=2)
    answer = await admin(root, "get-user-roster", accountjids=["bob@nestbox.test"])
    query = answer.find(dataforms.FORM).find(f"{{{ns.ROSTER}}}query")
    assert [item.attrib for item in query] == [{"jid": "carol@nestbox.test", "subscription": "both"}]
    stats = await admin(root, "user-stats", accountjid="bob@nestbox.test")
    assert values(stats, "ipaddresses") == ["127.0.0.1"]
    assert values(stats, "rostersize") == ["1"]
    assert values(stats, "onlineresources") == ["phone"]
    (online,) = values(await admin(root, "get-user-lastlogin", accountjids=["bob@nestbox.test"]), "lastlogin")
    assert online.endswith("Z")
    await bob.leave()
    await world.settle()
    (away,) = values(await admin(root, "get-user-lastlogin", accountjids=["bob@nestbox.test"]), "lastlogin")
    assert away >= online
    await world.user("ghost")
    ghost = await admin(root, "get-user-lastlogin", accountjids=["ghost@nestbox.test"])
    assert values(ghost, "lastlogin") == ["never"]


async def test_figures_and_lists(world, root):
    await world.client("bob", worker=2)
    await world.client("carol", worker=2, presence=None)
    await world.user("dave")
    for kind, expected in (("registered", 4), ("disabled", 0), ("online", 3), ("active", 2), ("idle", 1)):
        assert await number(root, kind) == expected
    for node, field, expected in (
        ("get-registered-users-list", "registereduserjids", ["bob", "carol", "dave", "root"]),
        ("get-online-users-list", "onlineuserjids", ["bob", "carol", "root"]),
        ("get-active-users", "activeuserjids", ["bob", "root"]),
        ("get-idle-users", "activeuserjids", ["carol"]),
    ):
        answer = await admin(root, node, max_items="none")
        assert values(answer, field) == [f"{name}@nestbox.test" for name in expected]
        assert answer.find(NS + "note") is None
    assert await admin(root, "get-idle-users", max_items="26") == "not-acceptable"


async def test_a_long_list_is_cut_and_says_so(world, root):
    for n in range(26):
        await world.user(f"user{n:02}")
    answer = await admin(root, "get-registered-users-list", max_items="25")
    assert len(values(answer, "registereduserjids")) == 25
    assert note(answer) == "These are the first 25 of 27."


async def test_a_form_needs_what_it_says(root):
    assert await admin(root, "delete-user", accountjids=[]) == "not-acceptable"
    assert await admin(root, "delete-user", accountjids=["nobody@nestbox.test"]) == "item-not-found"


# announcements


def bodies(stanzas):
    return [s.find("{jabber:client}body").text for s in stanzas if s.find("{jabber:client}body") is not None]


async def test_an_announcement_reaches_those_online(world, root):
    bob = await world.client("bob", worker=2)
    await world.user("carol")
    assert note(await admin(root, "announce", announcement=["Down", "at noon"])) == "Sent to 2 users."
    message = await bob.expect("message", from_=DOMAIN, type="headline")
    assert bodies([message]) == ["Down\nat noon"]
    assert bodies(await (await world.client("carol", presence=None)).drain()) == []


async def test_an_announcement_to_all_waits_for_those_offline(world, root):
    bob = await world.client("bob", worker=2)
    await world.user("carol")
    await admin(root, "announce-all", announcement="Holiday")
    assert bodies([await bob.expect("message", from_=DOMAIN)]) == ["Holiday"]
    carol = await world.client("carol", presence=None)
    await carol.send("<presence/>")
    assert bodies([await carol.expect("message", from_=DOMAIN)]) == ["Holiday"]


async def test_the_message_of_the_day_comes_once_until_it_is_deleted(world, root):
    bob = await world.client("bob", worker=2)
    await admin(root, "set-motd", motd=["Good", "morning"])
    assert bodies([await bob.expect("message", from_=DOMAIN)]) == ["Good\nmorning"]
    again = await world.client("bob", worker=1, presence=None)
    await again.send("<presence/>")
    await again.nothing("message")

    form = (await step(root, "edit-motd")).find(dataforms.FORM)
    held = [value.text for field in form.iter(FIELD) if field.get("var") == "motd" for value in field.iter(VALUE)]
    assert held == ["Good", "morning"]
    await admin(root, "edit-motd", motd="Good day")
    await bob.nothing("message")
    carol = await world.client("carol", worker=2, presence=None)
    await carol.send("<presence/>")
    assert bodies([await carol.expect("message", from_=DOMAIN)]) == ["Good day"]

    assert note(await admin(root, "delete-motd")) == "Deleted."
    dave = await world.client("dave", worker=2, presence=None)
    await dave.send("<presence/>")
    await dave.nothing("message")


async def test_another_message_of_the_day_comes_to_all_again(world, root):
    bob = await world.client("bob", worker=2)
    for text in ("one", "two"):
        await admin(root, "set-motd", motd=text)
        assert bodies([await bob.expect("message", from_=DOMAIN)]) == [text]


async def test_newcomers_are_welcomed_once(world, root):
    bob = await world.client("bob")
    await bob.leave()
    await world.settle()
    await admin(root, "set-welcome", welcome="Hello")
    for name, expected in (("bob", []), ("carol", ["Hello"]), ("carol", [])):
        client = await world.client(name, worker=2, presence=None)
        await client.send("<presence/>")
        assert bodies(await client.drain()) == expected
    await admin(root, "delete-welcome")
    dave = await world.client("dave", worker=2, presence=None)
    await dave.send("<presence/>")
    assert bodies(await dave.drain()) == []

"""XEP-0441: whose messages are archived is for the owner of the archive to say."""

from __future__ import annotations

import pytest
from archive_client import MAM, query, say
from harness import DOMAIN, condition

from nestbox.modules import archive_preferences
from nestbox.wire.stanza import STANZA_ID, Stanza


@pytest.fixture
async def alice(world):
    return await world.client("alice")


@pytest.fixture
async def bob(world):
    return await world.client("bob", worker=2)


def prefs(default: str, always: str = "", never: str = "") -> str:
    lists = [
        f"<{name}>{''.join(f'<jid>{jid}</jid>' for jid in value.split())}</{name}>"
        for name, value in (("always", always), ("never", never))
    ]
    return f"<prefs xmlns='urn:xmpp:mam:2' default='{default}'>{''.join(lists)}</prefs>"


async def set_prefs(world, client, *args: str) -> Stanza:
    answer = await client.iq("set", prefs(*args))
    await world.settle()
    return answer


async def test_preferences_are_kept_and_given_back(world, alice):
    default = (await alice.iq("get", "<prefs xmlns='urn:xmpp:mam:2'/>")).payload
    assert default.get("default") == "always" and [child.tag for child in default] == [MAM + "always", MAM + "never"]
    await set_prefs(world, alice, "never", "bob@nestbox.test Carol@Nestbox.Test", "dave@nestbox.test/x")
    answer = (await alice.iq("get", "<prefs xmlns='urn:xmpp:mam:2'/>")).payload
    assert answer.get("default") == "never"
    assert [jid.text for jid in answer[0]] == ["bob@nestbox.test", "carol@nestbox.test"]
    assert [jid.text for jid in answer[1]] == ["dave@nestbox.test/x"]


@pytest.mark.parametrize("bad", [("sometimes",), ("always", "@"), ("always", "", "a@")])
async def test_wrong_preferences_change_nothing(alice, bad):
    assert condition(await alice.iq("set", prefs(*bad))) in ("bad-request", "jid-malformed")
    assert (await alice.iq("get", "<prefs xmlns='urn:xmpp:mam:2'/>")).payload.get("default") == "always"


async def test_the_lists_are_so_long(world, alice, monkeypatch):
    monkeypatch.setattr(archive_preferences, "MAX_PREFS", 2)
    assert condition(await alice.iq("set", prefs("always", "", "a@x.test b@x.test c@x.test"))) == "resource-constraint"
    assert world.limits_hit() == {"archive_prefs": 1}
    assert (await alice.iq("set", prefs("always", "c@x.test", "a@x.test b@x.test"))).type == "result"


@pytest.mark.parametrize(
    "chosen, archived",
    [
        (("never",), False),
        (("never", "bob@nestbox.test"), True),
        (("never", "alice@nestbox.test"), False),
        (("always", "", "bob@nestbox.test"), False),
        (("always", "", "bob@nestbox.test/elsewhere"), True),
        (("roster",), False),
        (("roster", "bob@nestbox.test"), True),
    ],
)
async def test_preferences_rule_their_own_side_only(world, alice, bob, chosen, archived):
    """On every worker: bob is on the other one."""
    await set_prefs(world, alice, *chosen)
    await say(alice, bob.bare, "out")
    await say(bob, alice.bare, "in")
    message = await alice.expect("message")
    assert (await query(bob)).bodies == ["out", "in"]
    assert (await query(alice)).bodies == (["out", "in"] if archived else [])
    assert (message.find(STANZA_ID) is not None) == archived


async def test_roster_means_the_roster(world):
    await world.friends("alice", "bob")
    alice, bob, carol = [await world.client(name) for name in ("alice", "bob", "carol")]
    await set_prefs(world, alice, "roster")
    await say(bob, alice.bare, "friend")
    await say(carol, alice.bare, "stranger")
    assert (await query(alice)).bodies == ["friend"]


async def test_no_stranger_is_archived_while_the_roster_is_not_known(world):
    await world.friends("alice", "bob")
    alice, carol = await world.client("alice"), await world.client("carol", worker=2)
    await world.user("dave")
    await set_prefs(world, alice, "roster")
    await say(alice, carol.bare, "to a stranger")
    for number in range(3):
        await carol.send(f"<message to='{alice.bare}' type='chat'><body>{number}</body></message>")
    await alice.iq("set", f"<query xmlns='jabber:iq:roster'><item jid='dave@{DOMAIN}'/></query>")
    await say(alice, carol.bare, "again")
    await say(alice, f"dave@{DOMAIN}", "to a contact")
    assert (await query(alice)).bodies == ["to a contact"]

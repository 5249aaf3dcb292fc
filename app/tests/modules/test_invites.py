"""XEP-0401 and XEP-0379: invitations made by users, and subscriptions approved by a token."""

from __future__ import annotations

import time
from datetime import datetime

import pytest
from harness import DOMAIN, condition

from nestbox.config import Limits
from nestbox.core.invite_links import xmpp_uri
from nestbox.store.invites import Invite

COMMAND = "{http://jabber.org/protocol/commands}command"
X = "{jabber:x:data}"
ROSTER = "{jabber:iq:roster}"
INVITE = "urn:xmpp:invite#invite"
CREATE = "urn:xmpp:invite#create-account"


@pytest.fixture
def limits():
    return Limits(open_invites=3)


@pytest.fixture
def config(config):
    config.admins = ["root"]
    return config


@pytest.fixture
async def alice(world):
    return await world.client("alice")


async def execute(client, node, session="", form=None):
    fields = "".join(f"<field var='{name}'><value>{value}</value></field>" for name, value in (form or {}).items())
    x = f"<x xmlns='jabber:x:data' type='submit'>{fields}</x>" if form is not None else ""
    attribute = f" sessionid='{session}'" if session else ""
    xml = f"<command xmlns='http://jabber.org/protocol/commands' node='{node}'{attribute}>{x}</command>"
    return await client.iq("set", xml, to=DOMAIN)


def result(answer):
    """The fields of the form that a completed command shows."""
    command = answer.find(COMMAND)
    assert command.get("status") == "completed"
    form = command.find(X + "x")
    assert form.get("type") == "result"
    return {field.get("var"): field.findtext(X + "value") for field in form.iter(X + "field")}


async def create_account(client, **form):
    answer = await execute(client, CREATE)
    command = answer.find(COMMAND)
    assert command.get("status") == "executing"
    return await execute(client, CREATE, command.get("sessionid"), form)


def token_of(fields):
    return fields["landing-url"].rpartition("/")[2]


async def rosters(world, *clients):
    """Each client's contacts as (address, subscription)."""
    found = []
    for client in clients:
        query = (await client.iq("get", "<query xmlns='jabber:iq:roster'/>")).find(ROSTER + "query")
        found.append([(item.get("jid"), item.get("subscription")) for item in query])
    return found


async def interested(world, name, **where):
    """A client that has asked for its roster, and so hears of subscriptions."""
    client = await world.client(name, **where)
    await rosters(world, client)
    return client


def subscribe(to, token):
    return f"<presence to='{to}' type='subscribe'><preauth xmlns='urn:xmpp:pars:0' token='{token}'/></presence>"


async def test_the_commands_are_listed(world, alice):
    items = "<query xmlns='http://jabber.org/protocol/disco#items' node='http://jabber.org/protocol/commands'/>"
    root = await world.client("root", worker=2)
    seen = {}
    for client in (alice, root):
        answer = await client.iq("get", items, to=DOMAIN)
        seen[client] = {item.get("node") for item in answer.payload}
    assert INVITE in seen[alice] and CREATE not in seen[alice]
    assert {INVITE, CREATE} <= seen[root]


async def test_a_user_invites(world, alice):
    fields = result(await execute(alice, INVITE))
    token = token_of(fields)
    assert fields["FORM_TYPE"] == "urn:xmpp:invite#invitation"
    assert fields["uri"] == f"xmpp:alice@{DOMAIN}?roster;preauth={token};ibr=y"
    assert fields["landing-url"] == f"https://{DOMAIN}/invite/{token}"
    assert token.isalnum() and len(token) == 24
    expire = datetime.fromisoformat(fields["expire"])
    assert abs(expire.timestamp() - time.time() - 7 * 86400) < 5 and fields["expire"].endswith("Z")
    invite = await world.servers[2].store.invites.get(token)
    assert (invite.inviter, invite.registers, invite.contact, invite.uses_left) == ("alice", True, True, 1)


async def test_users_may_be_kept_from_inviting_to_accounts(world):
    world.config.registration.users_invite = False
    fields = result(await execute(await world.client("alice"), INVITE))
    assert fields["uri"] == f"xmpp:alice@{DOMAIN}?roster;preauth={token_of(fields)}"
    assert not (await world.servers[1].store.invites.get(token_of(fields))).registers


async def test_how_many_invitations_may_be_open(world, alice):
    tablet = await world.client("alice", worker=2)
    for client in (alice, tablet, alice):
        fields = result(await execute(client, INVITE))
    assert condition(await execute(tablet, INVITE)) == "resource-constraint"
    assert world.limits_hit() == {"open_invites": 1}
    assert (await execute(await world.client("bob"), INVITE)).type == "result"
    await world.servers[1].store.invites.use(token_of(fields))
    assert (await execute(alice, INVITE)).type == "result"


async def test_administrators_invite_to_accounts(world):
    root = await world.client("root")
    fields = result(await create_account(root))
    assert fields["uri"] == f"xmpp:{DOMAIN}?register;preauth={token_of(fields)}"
    fields = result(await create_account(root, username="Juliet", **{"roster-subscription": "1"}))
    assert fields["uri"] == f"xmpp:juliet@{DOMAIN}?register;preauth={token_of(fields)}"
    invite = await world.servers[1].store.invites.get(token_of(fields))
    assert (invite.username, invite.contact, invite.registers) == ("juliet", True, True)


async def test_names_that_cannot_be_promised(world):
    root = await world.client("root")
    await world.user("bob")
    assert condition(await create_account(root, username="bob")) == "conflict"
    assert (await create_account(root, username="juliet")).type == "result"
    assert condition(await create_account(root, username="juliet")) == "conflict"
    assert condition(await create_account(root, username="a b")) == "not-acceptable"


async def test_others_may_not_invite_to_accounts(alice):
    assert condition(await execute(alice, CREATE)) == "forbidden"


@pytest.mark.parametrize("online", [True, False])
async def test_a_token_approves_a_subscription(world, online):
    alice = await interested(world, "alice")
    token = token_of(result(await execute(alice, INVITE)))
    if not online:
        await alice.leave()
    bob = await interested(world, "bob", worker=2)
    await bob.send(f"<presence to='{alice.bare}' type='subscribed'/>")  # approves in advance, as section 3.4 has it
    await bob.send(subscribe(alice.bare, token))
    await bob.expect("presence", type="subscribed", from_=alice.bare)
    if online:
        await bob.expect("presence", from_=alice.jid, type=None)
        await alice.expect("presence", from_=bob.jid, type=None)
        await alice.nothing("presence", type="subscribe")  # she need not be asked
    else:
        alice = await world.client("alice")
    assert await rosters(world, alice, bob) == [[(bob.bare, "both")], [(alice.bare, "both")]]
    assert not (await world.servers[1].store.invites.get(token)).is_open(time.time())


async def test_the_invited_is_asked_unless_it_approved_before(world, alice):
    token = token_of(result(await execute(alice, INVITE)))
    bob = await interested(world, "bob", worker=2)
    await bob.send(subscribe(alice.bare, token))
    await bob.expect("presence", type="subscribed", from_=alice.bare)
    await bob.expect("presence", type="subscribe", from_=alice.bare)
    assert await rosters(world, alice, bob) == [[(bob.bare, "from")], [(alice.bare, "to")]]


async def test_a_request_that_waits_already_is_approved_by_a_token(world, alice):
    token = token_of(result(await execute(alice, INVITE)))
    bob = await interested(world, "bob", worker=2)
    await bob.send(f"<presence to='{alice.bare}' type='subscribe'/>")
    await alice.expect("presence", type="subscribe", from_=bob.bare)
    await bob.send(subscribe(alice.bare, token))
    await bob.expect("presence", type="subscribed", from_=alice.bare)
    assert await world.servers[1].store.roster.requests(alice.session.user.id) == []


async def test_a_token_is_used_once(world, alice):
    token = token_of(result(await execute(alice, INVITE)))
    for name, approved in (("bob", True), ("carol", False)):
        client = await interested(world, name)
        await client.send(subscribe(alice.bare, token))
        await world.settle()
        if approved:
            await client.expect("presence", type="subscribed")
        else:
            await client.nothing("presence", type="subscribed")
            await alice.expect("presence", type="subscribe", from_=client.bare)  # she is asked as ever


async def test_who_may_see_already_uses_up_no_token(world):
    await world.friends("alice", "bob")
    alice, bob = await world.client("alice"), await world.client("bob", worker=2)
    token = token_of(result(await execute(alice, INVITE)))
    await bob.send(subscribe(alice.bare, token))
    await world.settle()
    assert (await world.servers[1].store.invites.get(token)).uses_left == 1


async def test_tokens_that_approve_nothing(world, alice):
    mallory = await interested(world, "mallory")
    bobs = token_of(result(await execute(await world.client("bob"), INVITE)))
    now = int(time.time())
    user_id = alice.session.user.id
    store = world.servers[1].store.invites
    for number, invite in enumerate(
        (
            Invite("e" * 24, user_id, "", True, True, 1, now - 9, now - 1),  # has ended
            Invite("u" * 24, user_id, "", True, True, 0, now, now + 9),  # is used up
            Invite("c" * 24, user_id, "", True, False, 1, now, now + 9),  # makes no contact
            Invite("n" * 24, user_id, "juliet", True, True, 1, now, now + 9),  # is for somebody else
            Invite("o" * 24, None, "", True, True, 1, now, now + 9),  # is the operator's
        )
    ):
        await store.create(invite)
        await mallory.send(subscribe(alice.bare, invite.token))
        await world.settle()
        asked = [s for s in alice.received if s.type == "subscribe"]
        assert len(asked) == 1, number  # the first one is shown, the others change nothing
    for token in (bobs, "", "x" * 5000, "é", "nonsense"):
        await mallory.send(subscribe(alice.bare, token))
    await mallory.nothing("presence", type="subscribed")
    assert await rosters(world, alice) == [[]]


async def test_a_blocked_contact_cannot_use_a_token(world, alice):
    token = token_of(result(await execute(alice, INVITE)))
    block = f"<block xmlns='urn:xmpp:blocking'><item jid='mallory@{DOMAIN}'/></block>"
    assert (await alice.iq("set", block)).type == "result"
    mallory = await interested(world, "mallory", worker=2)
    await mallory.send(subscribe(alice.bare, token))
    await mallory.nothing("presence", type="subscribed")
    assert (await world.servers[1].store.invites.get(token)).uses_left == 1


async def test_invitations_go_with_the_inviter(world, alice):
    token = token_of(result(await execute(alice, INVITE)))
    await world.servers[1].store.accounts.delete("alice")
    assert await world.servers[1].store.invites.get(token) is None


def test_addresses_in_links_are_escaped():
    invite = Invite("T" * 24, 1, "", True, True, 1, 0, 1, "josé?x#&;")
    assert xmpp_uri(DOMAIN, invite) == f"xmpp:jos%C3%A9%3Fx%23%26%3B@{DOMAIN}?roster;preauth={'T' * 24};ibr=y"

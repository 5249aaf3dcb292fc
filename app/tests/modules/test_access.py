"""Who may see and do what: every service, asked by everybody."""

from __future__ import annotations

import pytest
from harness import DOMAIN, condition

ADMIN_COMMAND = "<command xmlns='http://jabber.org/protocol/commands' node='http://jabber.org/protocol/admin#{}'/>"
PEP = "<pubsub xmlns='http://jabber.org/protocol/pubsub'>{}</pubsub>"
OK, NO, DENIED, NOBODY = None, "forbidden", "not-allowed", "service-unavailable"

# What is asked of alice's account, or of the host, and what becomes of it by who asks:
# alice herself, a contact who may see her presence, a stranger, somebody whom she blocks, an administrator.
ROLES = ("owner", "contact", "stranger", "blocked", "admin")
MATRIX = {
    "archive": ("set", "<query xmlns='urn:xmpp:mam:2'/>", (OK, NO, NO, NOBODY, NO)),
    "archive form": ("get", "<query xmlns='urn:xmpp:mam:2'/>", (OK, NO, NO, NOBODY, NO)),
    "archive metadata": ("get", "<metadata xmlns='urn:xmpp:mam:2'/>", (OK, NO, NO, NOBODY, NO)),
    "archive preferences": ("get", "<prefs xmlns='urn:xmpp:mam:2'/>", (OK, NO, NO, NOBODY, NO)),
    "roster": ("get", "<query xmlns='jabber:iq:roster'/>", (OK, NO, NO, NOBODY, NO)),
    "roster change": (
        "set",
        "<query xmlns='jabber:iq:roster'><item jid='x@x.test'/></query>",
        (OK, NO, NO, NOBODY, NO),
    ),
    "block list": ("get", "<blocklist xmlns='urn:xmpp:blocking'/>", (OK, NO, NO, NOBODY, NO)),
    "unblocking": ("set", "<unblock xmlns='urn:xmpp:blocking'/>", (OK, NO, NO, NOBODY, NO)),
    "private storage": (
        "get",
        "<query xmlns='jabber:iq:private'><a xmlns='x:1'/></query>",
        (OK, NO, NO, NOBODY, NO),
    ),
    "private storage change": (
        "set",
        "<query xmlns='jabber:iq:private'><a xmlns='x:1'/></query>",
        (OK, NO, NO, NOBODY, NO),
    ),
    "carbons": ("set", "<enable xmlns='urn:xmpp:carbons:2'/>", (OK, DENIED, DENIED, NOBODY, DENIED)),
    "vCard": ("get", "<vCard xmlns='vcard-temp'/>", (OK, OK, OK, NOBODY, OK)),
    "vCard change": ("set", "<vCard xmlns='vcard-temp'><FN>x</FN></vCard>", (OK, NO, NO, NOBODY, NO)),
    "disco": ("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", (OK, OK, NOBODY, NOBODY, NOBODY)),
    # Empty but for her and her contacts: test_disco.py.
    "disco items": ("get", "<query xmlns='http://jabber.org/protocol/disco#items'/>", (OK, OK, OK, OK, OK)),
    "last activity": ("get", "<query xmlns='jabber:iq:last'/>", (OK, OK, NO, NOBODY, NO)),
    "open node": ("get", PEP.format("<items node='x:open'/>"), (OK, OK, OK, NOBODY, OK)),
    "contacts' node": (
        "get",
        PEP.format("<items node='x:presence'/>"),
        (OK, OK, "not-authorized", NOBODY, "not-authorized"),
    ),
    "private node": (
        "get",
        PEP.format("<items node='x:whitelist'/>"),
        (OK, DENIED, DENIED, NOBODY, DENIED),
    ),
    "publishing": (
        "set",
        PEP.format("<publish node='x:open'><item><a xmlns='x:1'/></item></publish>"),
        (OK, NO, NO, NOBODY, NO),
    ),
}
HOST = {
    "administration": ("set", ADMIN_COMMAND.format("get-online-users-num"), (NO, NO, NO, NO, OK)),
    "erasing users": ("set", ADMIN_COMMAND.format("delete-user"), (NO, NO, NO, NO, OK)),
    "disco": ("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", (OK, OK, OK, OK, OK)),
    "uptime": ("get", "<query xmlns='jabber:iq:last'/>", (OK, OK, OK, OK, OK)),
}
# A slot is the asker's own, whoever that is; what was uploaded is known by a secret address.
UPLOAD = {
    "slot": ("get", "<request xmlns='urn:xmpp:http:upload:0' filename='a.txt' size='10'/>", (OK, OK, OK, OK, OK)),
}


@pytest.fixture
def config(config):
    config.admins = ["root"]
    return config


def options(model):
    field = f"<field var='pubsub#access_model'><value>{model}</value></field>"
    kind = "<field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>"
    return f"<publish-options><x xmlns='jabber:x:data' type='submit'>{kind}{field}</x></publish-options>"


@pytest.mark.parametrize("role", ROLES)
async def test_everybody_gets_what_is_theirs(world, role):
    await world.friends("alice", "carl")
    alice = await world.client("alice")
    await alice.iq("set", "<vCard xmlns='vcard-temp'><FN>Alice</FN></vCard>")
    await alice.iq("set", f"<block xmlns='urn:xmpp:blocking'><item jid='mallory@{DOMAIN}'/></block>")
    for model in ("open", "presence", "whitelist"):
        publish = f"<publish node='x:{model}'><item id='1'><a xmlns='x:1'/></item></publish>{options(model)}"
        assert (await alice.iq("set", PEP.format(publish))).type == "result"
    await world.settle()
    name = {"contact": "carl", "stranger": "sam", "blocked": "mallory", "admin": "root"}.get(role)
    client = alice if name is None else await world.client(name, worker=2)
    found, expected = {}, {}
    for to, matrix in ((f"alice@{DOMAIN}", MATRIX), (DOMAIN, HOST), (f"upload.{DOMAIN}", UPLOAD)):
        for cell, (kind, payload, row) in matrix.items():
            answer = await client.iq(kind, payload, to=to)
            assert answer.type in ("result", "error")
            found[to, cell] = condition(answer)
            expected[to, cell] = row[ROLES.index(role)]
    assert found == expected


async def test_a_blocked_one_cannot_tell_alice_from_nobody(world):
    alice, mallory = await world.client("alice"), await world.client("mallory", worker=2)
    await alice.iq("set", f"<block xmlns='urn:xmpp:blocking'><item jid='{mallory.bare}'/></block>")
    await world.settle()
    for kind in ("get", "set"):
        for cell, (_, payload, _) in MATRIX.items():
            answers = [await mallory.iq(kind, payload, to=f"{name}@{DOMAIN}") for name in ("alice", "nobody")]
            expected = OK if (kind, cell) == ("get", "disco items") else NOBODY
            assert [condition(answer) for answer in answers] == [expected, expected]
            assert expected == NOBODY or [len(answer.payload) for answer in answers] == [0, 0]

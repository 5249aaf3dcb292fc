"""XEP-0363: slots."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from urllib.parse import unquote

import pytest
from harness import DOMAIN, condition

from nestbox.config import Limits, Uploads
from nestbox.core.jid import parse_jid
from nestbox.store.upload_files import SLOT_SECONDS
from nestbox.store.uploads import DAY
from nestbox.wire.stanza import parse_stanza

HOST = f"upload.{DOMAIN}"
NS = "{urn:xmpp:http:upload:0}"
INFO = "{http://jabber.org/protocol/disco#info}"
ERROR = "{jabber:client}error"


@pytest.fixture
def limits():
    return Limits(uploaded_files=5)


@pytest.fixture
def config(config):
    config.uploads = Uploads(max_bytes=1000, user_quota_bytes=2500, user_daily_bytes=1500, min_free_bytes=0, days=30)
    return config


@pytest.fixture
async def alice(world):
    return await world.client("alice")


def request(filename="a.jpg", size=100, extra=""):
    return f"<request xmlns='urn:xmpp:http:upload:0' filename='{filename}' size='{size}' {extra}/>"


async def ask(client, **attributes):
    return await client.iq("get", request(**attributes), to=HOST)


def urls(answer):
    slot = answer.find(NS + "slot")
    return slot.find(NS + "put").get("url"), slot.find(NS + "get").get("url")


def retry(answer):
    element = answer.find(f"{ERROR}/{NS}retry")
    return None if element is None else datetime.fromisoformat(element.get("stamp")).timestamp()


async def age(world, seconds):
    """Make all slots older, and say that their files are there."""
    async with world.servers[1].store.database.write() as connection:
        await connection.exec_driver_sql(f"UPDATE uploads SET created = created - {seconds}, stored = created")


async def test_the_host_is_found_and_says_what_it_takes(world, alice):
    items = (await alice.iq("get", "<query xmlns='http://jabber.org/protocol/disco#items'/>", to=DOMAIN)).payload
    assert HOST in [item.get("jid") for item in items]
    info = (await alice.iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", to=HOST)).payload
    assert [(i.get("category"), i.get("type")) for i in info.iter(INFO + "identity")] == [("store", "file")]
    assert "urn:xmpp:http:upload:0" in [feature.get("var") for feature in info.iter(INFO + "feature")]
    x = "{jabber:x:data}"
    [form] = info.iter(x + "x")
    assert form.get("type") == "result"
    fields = {field.get("var"): field.findtext(x + "value") for field in form}
    assert fields == {"FORM_TYPE": "urn:xmpp:http:upload:0", "max-file-size": "1000"}
    items = await alice.iq("get", "<query xmlns='http://jabber.org/protocol/disco#items'/>", to=HOST)
    assert items.type == "result" and len(items.payload) == 0


async def test_a_slot_on_either_worker(world, alice):
    for client in (alice, await world.client("bob", worker=2)):
        answer = await ask(client, filename="très cool 😀?.jpg", size=1000, extra="content-type='image/jpeg'")
        assert answer.type == "result" and answer.from_ == HOST
        put, get = urls(answer)
        assert put == get and put.startswith(f"https://{DOMAIN}/upload/") and put.isascii()
        token, name = put.removeprefix(f"https://{DOMAIN}/upload/").split("/")
        assert unquote(name) == "très cool 😀?.jpg" and len(token) == 24
        upload = await world.servers[1].store.uploads.get(token)
        assert (upload.size, upload.content_type, upload.stored) == (1000, "image/jpeg", None)
        assert upload.user_id == client.session.user.id


async def test_a_file_that_is_too_large(world, alice):
    answer = await ask(alice, size=1001)
    assert condition(answer) == "not-acceptable" and answer.find(ERROR).get("type") == "modify"
    assert answer.find(f"{ERROR}/{NS}file-too-large").findtext(NS + "max-file-size") == "1000"
    assert world.limits_hit() == {"upload_bytes": 1}
    assert (await ask(alice, size=1000)).type == "result"


@pytest.mark.parametrize(
    "attributes",
    [
        {"filename": ""},
        {"filename": "."},
        {"filename": ".."},
        {"filename": "../../etc/passwd"},
        {"filename": "a/b"},
        {"filename": "a&#10;b"},
        {"size": ""},
        {"size": "-1"},
        {"size": "1.5"},
        {"size": "٣"},
        {"size": "1" * 30},
        {"extra": "content-type='a&#13;&#10;X: y'"},
    ],
)
async def test_a_request_that_makes_no_sense(alice, attributes):
    assert condition(await ask(alice, **attributes)) == "bad-request"


async def test_what_a_file_is_called_is_short(world, alice):
    assert condition(await ask(alice, filename="é" * 128)) == "bad-request"
    assert condition(await ask(alice, extra=f"content-type='{'x' * 200}'")) == "bad-request"
    assert world.limits_hit() == {"upload_name_bytes": 1, "upload_type_bytes": 1}


async def test_missing_attributes(alice):
    for xml in (
        "<request xmlns='urn:xmpp:http:upload:0' size='1'/>",
        "<request xmlns='urn:xmpp:http:upload:0' filename='a'/>",
    ):
        assert condition(await alice.iq("get", xml, to=HOST)) == "bad-request"


async def test_purposes_and_other_children_are_taken(alice):
    purpose = "<profile xmlns='urn:xmpp:http:upload:purpose:0'/>"
    xml = f"<request xmlns='urn:xmpp:http:upload:0' filename='a' size='1'>{purpose}</request>"
    assert (await alice.iq("get", xml, to=HOST)).type == "result"


async def test_what_a_day_allows(world, alice):
    before = int(time.time())
    assert (await ask(alice, size=1000)).type == "result"
    answer = await ask(alice, size=501)
    assert condition(answer) == "resource-constraint" and answer.find(ERROR).get("type") == "wait"
    assert before + DAY <= retry(answer) <= time.time() + DAY
    assert world.limits_hit() == {"upload_daily_bytes": 1}
    assert (await ask(alice, size=500)).type == "result"
    assert (await ask(await world.client("bob"), size=500)).type == "result"  # each has its own
    await age(world, DAY)
    assert (await ask(alice, size=1000)).type == "result"


async def test_what_an_account_may_keep(world, alice):
    for size in (1000, 500):
        assert (await ask(alice, size=size)).type == "result"
    await age(world, 3 * DAY)
    assert (await ask(alice, size=1000)).type == "result"
    await age(world, DAY)
    answer = await ask(alice, size=1)
    assert condition(answer) == "resource-constraint"
    assert abs(retry(answer) - (time.time() + 26 * DAY)) < 5  # when the first file goes
    assert world.limits_hit() == {"upload_quota_bytes": 1}
    world.config.uploads.days = 0


async def test_files_that_never_go_promise_no_room(world, config, alice):
    for server in world.servers.values():
        server.config.uploads.days = 0
    await world.start_worker(3)  # with the new setting
    carol = await world.client("carol", worker=3)
    for size in (1000, 500, 1000):
        assert (await ask(carol, size=size)).type == "result"
        await age(world, DAY)
    answer = await ask(carol, size=1)
    assert condition(answer) == "resource-constraint" and retry(answer) is None


async def test_how_many_files_an_account_may_keep(world, alice):
    for _ in range(5):
        assert (await ask(alice, size=0)).type == "result"
    assert condition(await ask(alice, size=0)) == "resource-constraint"
    assert world.limits_hit() == {"uploaded_files": 1}


async def test_slots_that_nobody_used_give_back_their_room(world, alice):
    assert (await ask(alice, size=1000)).type == "result"
    assert condition(await ask(alice, size=1000)) == "resource-constraint"
    async with world.servers[1].store.database.write() as connection:
        await connection.exec_driver_sql(f"UPDATE uploads SET created = created - {SLOT_SECONDS}")
    assert (await ask(alice, size=1000)).type == "result"


async def test_two_workers_do_not_give_the_same_room_twice(world, alice):
    tablet = await world.client("alice", worker=2)
    answers = await asyncio.gather(*(ask(client, size=1000) for client in (alice, tablet)))
    assert sorted(answer.type for answer in answers) == ["error", "result"]


async def test_a_full_disk(world, alice):
    world.config.uploads.min_free_bytes = 10**18
    answer = await ask(alice)
    assert condition(answer) == "resource-constraint" and retry(answer) > time.time()
    assert world.limits_hit() == {"upload_free_bytes": 1}


async def test_only_accounts_of_this_server_get_slots(world, alice):
    """Owner, contact and stranger are all accounts and get slots of their own; nobody else gets one."""
    await world.friends("alice", "bob")
    for name in ("bob", "mallory"):
        client = await world.client(name)
        assert (await ask(client)).type == "result"
    router = world.servers[1].router
    sent = []
    router.send = lambda stanza: sent.append(stanza)
    for sender in ("someone@elsewhere.example/x", f"room@rooms.{DOMAIN}/nick", f"nobody@{DOMAIN}/x", DOMAIN):
        xml = f"<iq type='get' id='1' from='{sender}' to='{HOST}'>{request()}</iq>"
        outcome = router.route(parse_jid(sender), parse_jid(HOST), parse_stanza(xml.encode()))
        assert isinstance(outcome, int) or await outcome == 0
        assert condition(sent.pop()) == "not-allowed"
    assert sent == []


async def test_everything_else_is_refused(alice):
    assert condition(await alice.iq("set", request(), to=HOST)) == "not-allowed"
    assert condition(await alice.iq("get", "<query xmlns='jabber:iq:roster'/>", to=HOST)) == "service-unavailable"
    assert condition(await alice.iq("get", request(), to=f"x@{HOST}")) == "service-unavailable"
    node = "<query xmlns='http://jabber.org/protocol/disco#{}' node='x'/>"
    for kind in ("info", "items"):
        assert condition(await alice.iq("get", node.format(kind), to=HOST)) == "item-not-found"
    await alice.send(f"<message to='{HOST}' id='m'><body>hi</body></message>")
    assert condition(await alice.expect("message", id="m")) == "service-unavailable"
    await alice.send(f"<presence to='{HOST}'/>")
    await alice.send(f"<message to='{HOST}' type='error'><body>hi</body></message>")
    await alice.nothing()

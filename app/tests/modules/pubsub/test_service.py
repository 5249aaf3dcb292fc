"""XEP-0060 at the host's service and at home: nodes, their forms, subscriptions, and every error with its condition."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from harness import DOMAIN, condition
from pep import (
    ERRORS,
    EVENT,
    INFO,
    SERVICE,
    affiliate,
    ask,
    configure,
    create,
    event,
    form,
    ids,
    items,
    listener,
    no_event,
    publish,
    specific,
    subscribe,
)

from nestbox.config import Limits

NODE = "news"
DATA = "{jabber:x:data}"
INFO_QUERY = "http://jabber.org/protocol/disco#info"
ITEMS_QUERY = "http://jabber.org/protocol/disco#items"


def fields(parent) -> dict[str, list[str]]:
    """The fields of the form in an element."""
    x = next(parent.iter(DATA + "x"))
    return {each.get("var"): [value.text for value in each.iterfind(DATA + "value")] for each in x.iter(DATA + "field")}


async def test_the_service_is_found(world):
    alice = await world.client("alice")
    info = (await alice.iq("get", f"<query xmlns='{INFO_QUERY}'/>", SERVICE)).payload
    assert (info[0].get("category"), info[0].get("type")) == ("pubsub", "service")
    found = {each.get("var") for each in info.iter(INFO + "feature")}
    assert {"http://jabber.org/protocol/pubsub", "http://jabber.org/protocol/pubsub#publish-options"} <= found
    assert "http://jabber.org/protocol/pubsub#filtered-notifications" not in found


async def test_a_node_from_its_making_to_its_end(world):
    alice, bob = await world.client("alice"), await world.client("bob", worker=2)
    assert (await create(alice, NODE, SERVICE, title="News", type="x:1")).type == "result"
    subscription = (await subscribe(bob, NODE, SERVICE)).payload[0]
    assert subscription.get("subscription") == "subscribed" and subscription.get("subid")
    said = (await publish(alice, NODE, None, to=SERVICE)).payload[0]
    name = said[0].get("id")
    assert said.get("node") == NODE and name
    item = (await event(bob, NODE, sender=SERVICE))[0]
    assert item.get("id") == name and item.get("publisher") == alice.bare
    listed = (await bob.iq("get", f"<query xmlns='{ITEMS_QUERY}'/>", SERVICE)).payload
    assert [each.attrib for each in listed] == [{"jid": SERVICE, "node": NODE, "name": "News"}]
    listed = (await bob.iq("get", f"<query xmlns='{ITEMS_QUERY}' node='{NODE}'/>", SERVICE)).payload
    assert [each.attrib for each in listed] == [{"jid": SERVICE, "name": name}]
    info = (await bob.iq("get", f"<query xmlns='{INFO_QUERY}' node='{NODE}'/>", SERVICE)).payload
    assert (info[0].get("category"), info[0].get("type"), info.get("node")) == ("pubsub", "leaf", NODE)
    known = fields(info)
    assert known["FORM_TYPE"] == ["http://jabber.org/protocol/pubsub#meta-data"]
    assert known["pubsub#owner"] == [alice.bare] and known["pubsub#num_subscribers"] == ["1"]
    assert known["pubsub#title"] == ["News"] and known["pubsub#type"] == ["x:1"]
    redirect = f"<delete node='{NODE}'><redirect uri='xmpp:x.org?;node=y'/></delete>"
    assert (await ask(alice, "set", redirect, SERVICE, owner=True)).type == "result"
    assert (await event(bob, NODE, "delete"))[0].get("uri") == "xmpp:x.org?;node=y"
    for gone in (await items(bob, NODE, SERVICE), await subscribe(bob, NODE, SERVICE)):
        assert condition(gone) == "item-not-found"


async def test_an_instant_node_and_a_name_that_is_taken(world):
    alice, bob = await world.client("alice"), await world.client("bob", worker=2)
    name = (await ask(alice, "set", "<create/>", SERVICE)).payload[0].get("node")
    assert name and condition(await create(bob, name, SERVICE)) == "conflict"
    assert (await create(bob, name)).type == "result"  # at home it is free


async def test_the_form_of_a_node(world):
    alice = await world.client("alice")
    default = fields((await ask(alice, "get", "<default/>", owner=True)).payload)
    assert default["pubsub#access_model"] == ["presence"] and default["pubsub#max_items"] == ["1"]
    assert default["pubsub#send_last_published_item"] == ["on_sub_and_presence"]
    at_host = fields((await ask(alice, "get", "<default/>", SERVICE, owner=True)).payload)
    assert at_host["pubsub#access_model"] == ["open"] and at_host["pubsub#max_items"] == ["max"]
    await create(alice, NODE)
    wanted = {
        "title": "T", "description": "D", "type": "x:1", "access_model": "roster", "publish_model": "open",
        "roster_groups_allowed": ["A", "B"], "max_items": "max", "persist_items": "0", "deliver_notifications": "0",
        "deliver_payloads": "0", "notify_config": "1", "notify_delete": "0", "notify_retract": "0",
        "send_last_published_item": "never", "notification_type": "normal", "itemreply": "publisher",
    }  # fmt: skip
    assert (await configure(alice, NODE, **wanted)).type == "result"
    answer = (await ask(alice, "get", f"<configure node='{NODE}'/>", owner=True)).payload
    assert answer[0].get("node") == NODE and answer[0][0].get("type") == "form"
    found = fields(answer)
    assert found.pop("FORM_TYPE") == ["http://jabber.org/protocol/pubsub#node_config"]
    assert found.pop("pubsub#node_type") == ["leaf"]
    assert found == {f"pubsub#{name}": value if isinstance(value, list) else [value] for name, value in wanted.items()}
    cancel = f"<configure node='{NODE}'><x xmlns='jabber:x:data' type='cancel'/></configure>"
    assert (await ask(alice, "set", cancel, owner=True)).type == "result"
    assert fields((await ask(alice, "get", f"<configure node='{NODE}'/>", owner=True)).payload)["pubsub#title"] == ["T"]


@pytest.mark.parametrize(("field", "value", "expected"), [
    ("access_model", "authorise", "unsupported-access-model"), ("publish_model", "x", None), ("max_items", "0", None),
    ("max_items", "many", None), ("persist_items", "yes", None), ("send_last_published_item", "always", None),
    ("title", "x" * 2000, None), ("roster_groups_allowed", ["g"] * 101, None),
])  # fmt: skip
async def test_values_that_there_are_not(world, field, value, expected):
    alice = await world.client("alice")
    await create(alice, NODE)
    for answer in (
        await configure(alice, NODE, **{field: value}),
        await create(alice, "other", **{field: value}),
        await publish(alice, "third", **{field: value}),
    ):
        assert (condition(answer), specific(answer)) == ("not-acceptable", expected)
    assert condition(await items(alice, "third")) == "item-not-found"
    limits_hit = {"title": {"pubsub_text_bytes": 3}, "roster_groups_allowed": {"pubsub_groups": 3}}
    assert world.limits_hit() == limits_hit.get(field, {})


async def test_fewer_items_and_none_at_all(world):
    alice = await world.client("alice")
    await create(alice, NODE, max_items=5)
    for number in range(4):
        await publish(alice, NODE, str(number))
    await configure(alice, NODE, max_items=2)
    assert ids(await items(alice, NODE)) == ["2", "3"]
    await configure(alice, NODE, persist_items=0)
    assert ids(await items(alice, NODE)) == []
    await publish(alice, NODE, "9")
    assert ids(await items(alice, NODE)) == []
    for answer in (
        await ask(alice, "set", f"<retract node='{NODE}'><item id='9'/></retract>"),
        await ask(alice, "set", f"<purge node='{NODE}'/>", owner=True),
    ):
        assert (condition(answer), specific(answer)) == ("feature-not-implemented", "unsupported")
        assert answer.find("{jabber:client}error").find(ERRORS + "unsupported").get("feature") == "persistent-items"


async def test_what_notifications_say(world):
    alice = await listener(world, "alice", NODE)
    await create(alice, NODE, deliver_payloads=0)
    await publish(alice, NODE, "1")
    assert len((await event(alice, NODE))[0]) == 0
    assert len((await items(alice, NODE)).payload[0][0]) == 1
    await configure(alice, NODE, notify_config=1, deliver_payloads=1)
    assert fields(await event(alice, NODE, "configuration"))["pubsub#notify_config"] == ["1"]
    await configure(alice, NODE, notify_retract=0, notify_delete=0, notify_config=0, notification_type="normal")
    await publish(alice, NODE, "2")
    assert (await alice.expect("message", tag=EVENT + "event")).type == "normal"
    await ask(alice, "set", f"<retract node='{NODE}'><item id='2'/></retract>")
    await ask(alice, "set", f"<purge node='{NODE}'/>", owner=True)
    await no_event(alice)
    await publish(alice, NODE, "3")
    await event(alice, NODE)
    await ask(alice, "set", f"<retract node='{NODE}' notify='1'><item id='3'/></retract>")
    assert (await event(alice, NODE))[0].tag == EVENT + "retract"
    await configure(alice, NODE, deliver_notifications=0)
    await publish(alice, NODE, "4")
    await ask(alice, "set", f"<delete node='{NODE}'/>", owner=True)
    await no_event(alice)


async def test_a_publication_without_item(world):
    alice = await listener(world, "alice", "ping", NODE)
    await create(alice, "ping", persist_items=0, deliver_payloads=0)
    assert (await ask(alice, "set", "<publish node='ping'/>")).type == "result"
    assert len(await event(alice, "ping")) == 0
    forbidden = await publish(alice, "ping")
    assert (condition(forbidden), specific(forbidden)) == ("bad-request", "item-forbidden")
    await create(alice, NODE)
    for inner, expected in (
        (f"<publish node='{NODE}'/>", "item-required"),
        (f"<publish node='{NODE}'><item/></publish>", "payload-required"),
        (f"<publish node='{NODE}'><item><a xmlns='x'/><b xmlns='x'/></item></publish>", "invalid-payload"),
        (f"<publish node='{NODE}'><item/><item/></publish>", "max-items-exceeded"),
        ("<publish><item/></publish>", "nodeid-required"),
        (f"<retract node='{NODE}'/>", "item-required"),
        ("<retract><item id='1'/></retract>", "nodeid-required"),
        ("<subscribe node='news'/>", "jid-required"),
        ("<subscribe node='news' jid='@'/>", "invalid-jid"),
        (f"<subscribe node='news' jid='eve@{DOMAIN}'/>", "invalid-jid"),
    ):
        answer = await ask(alice, "set", inner)
        assert (condition(answer), specific(answer)) == ("bad-request", expected), inner


async def test_names_that_are_too_long(world):
    alice = await world.client("alice")
    long = "x" * 1001
    await create(alice, NODE)
    for answer in (await create(alice, long), await publish(alice, long), await publish(alice, NODE, long)):
        assert condition(answer) == "not-acceptable"
    assert world.limits_hit() == {"pubsub_name_bytes": 3}


async def test_many_changes_at_once(world):
    alice = await world.client("alice")
    await create(alice, NODE)
    people = {f"u{number}": "member" for number in range(201)}
    assert condition(await affiliate(alice, NODE, **people)) == "not-acceptable"
    assert world.limits_hit() == {"pubsub_entries": 1}


async def test_what_there_is_not(world):
    alice = await world.client("alice")
    for kind, inner, owner, expected in (
        ("get", f"<options node='{NODE}' jid='{alice.bare}'/>", False, "feature-not-implemented"),
        ("get", "<default/>", False, "feature-not-implemented"),
        ("get", "<publish/>", False, "bad-request"),
        ("set", "<items/>", False, "bad-request"),
        ("get", "<nonsense/>", True, "bad-request"),
        ("get", "", False, "bad-request"),
        ("set", "", True, "bad-request"),
        ("set", f"<configure node='{NODE}'/>", True, "item-not-found"),
    ):
        for to in (None, SERVICE):
            assert condition(await ask(alice, kind, inner, to, owner)) == expected
    for address, expected in ((SERVICE, "service-unavailable"), (f"x@{SERVICE}", "item-not-found")):
        assert condition(await alice.iq("get", "<ping xmlns='urn:xmpp:ping'/>", address)) == expected
    await alice.send(f"<message to='{SERVICE}'><body>hi</body></message>")
    assert condition(await alice.expect("message", type="error")) == "service-unavailable"
    await create(alice, NODE)
    affiliation = f"<affiliations node='{NODE}'><affiliation jid='b@x.org' affiliation='publish-only'/></affiliations>"
    assert specific(await ask(alice, "set", affiliation, owner=True)) == "unsupported"


# subscriptions


async def test_subscriptions_and_affiliations_are_listed(world):
    alice, bob = await world.client("alice"), await world.client("bob", worker=2)
    for name in ("a", "b"):
        await create(alice, name, SERVICE)
    await affiliate(alice, "b", SERVICE, bob="publisher")
    await subscribe(bob, "a", SERVICE)
    await subscribe(bob, "b", SERVICE, bob.jid)
    mine = (await ask(bob, "get", "<subscriptions/>", SERVICE)).payload[0]
    assert [(s.get("node"), s.get("jid"), s.get("subscription")) for s in mine] == [
        ("a", bob.bare, "subscribed"), ("b", bob.jid, "subscribed"),
    ]  # fmt: skip
    assert len((await ask(bob, "get", "<subscriptions node='b'/>", SERVICE)).payload[0]) == 1
    mine = (await ask(bob, "get", "<affiliations/>", SERVICE)).payload[0]
    assert [each.attrib for each in mine] == [{"node": "b", "affiliation": "publisher"}]
    await create(alice, "home")
    mine = (await ask(alice, "get", "<affiliations/>")).payload[0]
    assert [each.attrib for each in mine] == [{"node": "home", "affiliation": "owner"}]
    listed = (await ask(alice, "get", "<affiliations node='b'/>", SERVICE, owner=True)).payload[0]
    assert [each.attrib for each in listed] == [
        {"jid": alice.bare, "affiliation": "owner"}, {"jid": bob.bare, "affiliation": "publisher"},
    ]  # fmt: skip
    listed = (await ask(alice, "get", "<subscriptions node='b'/>", SERVICE, owner=True)).payload[0]
    assert [(each.get("jid"), each.get("subscription")) for each in listed] == [(bob.jid, "subscribed")]


async def test_a_full_address_hears_alone_and_a_bare_one_everywhere(world):
    alice = await world.client("alice")
    phone, pc = await world.client("bob", "phone"), await world.client("bob", "pc", worker=2)
    await create(alice, NODE, SERVICE)
    await subscribe(phone, NODE, SERVICE, phone.jid)
    await publish(alice, NODE, "1", to=SERVICE)
    await event(phone, NODE)
    await no_event(pc)
    await subscribe(phone, NODE, SERVICE)
    await no_event(phone)
    await publish(alice, NODE, "2", to=SERVICE)
    for client in (phone, pc):
        await event(client, NODE)
        await no_event(client)  # once each, though the phone has two subscriptions


async def test_a_new_subscriber_gets_the_last_item(world):
    alice, bob = await world.client("alice"), await world.client("bob", worker=2)
    await create(alice, NODE, SERVICE)
    for number in range(2):
        await publish(alice, NODE, str(number), to=SERVICE)
    await subscribe(bob, NODE, SERVICE)
    last = await bob.expect("message", tag=EVENT + "event")
    assert [item.get("id") for item in last.element.iter(EVENT + "item")] == ["1"]
    published = datetime.fromisoformat(last.find("{urn:xmpp:delay}delay").get("stamp"))
    assert abs((datetime.now(UTC) - published).total_seconds()) < 60
    await subscribe(bob, NODE, SERVICE)  # again is no news
    await no_event(bob)


async def test_who_subscribes_with_a_session_hears_even_without_presence(world):
    alice = await world.client("alice")
    silent = await world.client("bob", "silent", worker=2, presence=None)
    shy = await world.client("carol", worker=2, presence="<presence><priority>-1</priority></presence>")
    await create(alice, NODE, SERVICE)
    await publish(alice, NODE, "0", to=SERVICE)
    assert (await ask(silent, "set", f"<subscribe node='{NODE}' jid='{silent.jid}'/>", SERVICE)).type == "result"
    assert (await event(silent, NODE))[0].get("id") == "0"
    assert (await ask(shy, "set", f"<subscribe node='{NODE}' jid='{shy.bare}'/>", SERVICE)).type == "result"
    await publish(alice, NODE, "1", to=SERVICE)
    assert (await event(silent, NODE))[0].get("id") == "1"
    await no_event(shy)  # what is for its bare JID, the last item, too, is not for a resource of negative priority
    ends = f"<subscriptions node='{NODE}'><subscription jid='{silent.jid}' subscription='none'/></subscriptions>"
    assert (await ask(alice, "set", ends, SERVICE, owner=True)).type == "result"
    told = await silent.expect(lambda s: s.find(f"{EVENT}event/{EVENT}subscription") is not None)
    told = told.find(f"{EVENT}event/{EVENT}subscription")
    assert told.get("subscription") == "none" and told.get("subid") is None


async def test_a_form_need_not_say_which_it_is(world):
    alice = await world.client("alice")
    field = "<field var='pubsub#title'><value>News</value></field><field var='max_items'><value>7</value></field>"
    configure = f"<configure><x xmlns='jabber:x:data' type='submit'>{field}</x></configure>"
    assert (await ask(alice, "set", f"<create node='{NODE}'/>{configure}", SERVICE)).type == "result"
    known = fields((await ask(alice, "get", f"<configure node='{NODE}'/>", SERVICE, owner=True)).payload)
    assert known["pubsub#title"] == ["News"] and known["pubsub#max_items"] == ["max"]  # that field has no such name


async def test_there_are_no_collections(world):
    alice = await world.client("alice")
    await create(alice, NODE, node_type="leaf")
    for to in (None, SERVICE):
        refused = await create(alice, "many", to, node_type="collection")
        assert (condition(refused), specific(refused)) == ("feature-not-implemented", "unsupported")
        assert condition(await items(alice, "many", to)) == "item-not-found"


async def test_a_node_names_those_who_own_it_now(world):
    alice, bob = await world.client("alice"), await world.client("bob", worker=2)
    await create(alice, NODE, SERVICE)
    assert (await affiliate(alice, NODE, SERVICE, bob="owner", cleo="owner")).type == "result"
    assert (await affiliate(bob, NODE, SERVICE, alice="none")).type == "result"
    known = fields((await bob.iq("get", f"<query xmlns='{INFO_QUERY}' node='{NODE}'/>", SERVICE)).payload)
    assert known["pubsub#owner"] == [f"bob@{DOMAIN}", f"cleo@{DOMAIN}"] and known["pubsub#creator"] == [alice.bare]


async def test_nobody_is_given_two_affiliations_at_once(world):
    alice = await world.client("alice")
    await create(alice, NODE)
    twice = "".join(f"<affiliation jid='bob@{DOMAIN}' affiliation='{what}'/>" for what in ("member", "outcast"))
    refused = await ask(alice, "set", f"<affiliations node='{NODE}'>{twice}</affiliations>", owner=True)
    assert condition(refused) == "bad-request"
    known = await ask(alice, "get", f"<affiliations node='{NODE}'/>", owner=True)
    assert [each.get("jid") for each in known.payload[0]] == [alice.bare]


async def test_a_stranger_subscribes_to_an_open_node_of_an_account(world):
    alice, eve = await world.client("alice"), await world.client("eve", worker=2)
    await create(alice, NODE, access_model="open")
    assert (await subscribe(eve, NODE, alice.bare)).type == "result"
    await publish(alice, NODE, "1")
    assert (await event(eve, NODE, sender=alice.bare))[0].get("id") == "1"
    await configure(alice, NODE, access_model="whitelist")
    await publish(alice, NODE, "2")
    await no_event(eve)  # what was subscribed when the node was open is not told any more


async def test_unsubscribing(world):
    alice, bob = await world.client("alice"), await world.client("bob", worker=2)
    await create(alice, NODE, SERVICE)
    subid = (await subscribe(bob, NODE, SERVICE)).payload[0].get("subid")

    async def end(client, more: str = "", jid: str = bob.bare):
        return await ask(client, "set", f"<unsubscribe node='{NODE}' jid='{jid}' {more}/>", SERVICE)

    wrong = await end(bob, "subid='x'")
    assert (condition(wrong), specific(wrong)) == ("not-acceptable", "invalid-subid")
    assert condition(await end(alice)) == "forbidden"
    assert (await end(bob, f"subid='{subid}'")).type == "result"
    gone = await end(bob)
    assert (condition(gone), specific(gone)) == ("unexpected-request", "not-subscribed")
    await publish(alice, NODE, to=SERVICE)
    await no_event(bob)


@pytest.mark.parametrize("at_home", [True, False], ids=["account", "host"])
@pytest.mark.parametrize("allow", ["1", "0"])
async def test_the_owner_is_asked_and_answers(world, at_home, allow):
    alice, bob = await world.client("alice"), await world.client("bob", worker=2)
    await create(alice, NODE, None if at_home else SERVICE, access_model="authorize")
    service = alice.bare if at_home else SERVICE
    assert (await subscribe(bob, NODE, service)).payload[0].get("subscription") == "pending"
    question = await alice.expect("message", from_=service, tag=DATA + "x")
    asked = fields(question.element)
    assert asked["pubsub#subscriber_jid"] == [bob.bare] and asked["pubsub#node"] == [NODE]
    await publish(alice, NODE, "1", to=None if at_home else SERVICE)
    await no_event(bob)
    answer = {name.removeprefix("pubsub#"): value[0] for name, value in asked.items() if name != "FORM_TYPE"}
    answered = form(answer | {"allow": allow}, asked["FORM_TYPE"][0])
    await bob.send(f"<message to='{service}'>{answered}</message>")  # nobody approves himself
    await no_event(bob)
    await alice.send(f"<message to='{service}'>{answered}</message>")
    message = await bob.expect("message", tag=EVENT + "event", from_=service)
    said = message.find(EVENT + "event")[0]
    assert said.get("subscription") == ("subscribed" if allow == "1" else "none")
    if allow == "1":
        await event(bob, NODE)
        assert ids(await items(bob, NODE, service)) == ["1"]
    else:
        await no_event(bob)
        assert specific(await items(bob, NODE, service)) == "not-subscribed"


async def test_the_owner_manages_subscriptions(world):
    alice, bob = await world.client("alice"), await world.client("bob", worker=2)
    await create(alice, NODE, SERVICE, access_model="whitelist")
    await affiliate(alice, NODE, SERVICE, bob="member")

    async def set_state(state: str):
        inner = f"<subscription jid='{bob.bare}' subscription='{state}'/>"
        return await ask(alice, "set", f"<subscriptions node='{NODE}'>{inner}</subscriptions>", SERVICE, owner=True)

    assert (await set_state("subscribed")).type == "result"
    assert (await event(bob, NODE, "subscription")).get("subscription") == "subscribed"
    await publish(alice, NODE, "1", to=SERVICE)
    await event(bob, NODE)
    assert (await set_state("none")).type == "result"
    assert (await event(bob, NODE, "subscription")).get("subscription") == "none"
    await publish(alice, NODE, "2", to=SERVICE)
    await no_event(bob)
    assert condition(await set_state("nonsense")) == "bad-request"


async def test_a_request_changes_only_so_many(world):
    alice = await world.client("alice")
    await create(alice, NODE, SERVICE)
    people = {f"user{number}": "member" for number in range(201)}
    assert condition(await affiliate(alice, NODE, SERVICE, **people)) == "not-acceptable"
    people.popitem()
    assert (await affiliate(alice, NODE, SERVICE, **people)).type == "result"


async def test_somebody_must_be_left_as_owner(world):
    alice, bob = await world.client("alice"), await world.client("bob")
    await create(alice, NODE, SERVICE)
    assert condition(await affiliate(alice, NODE, SERVICE, alice="none")) == "not-acceptable"
    assert (await affiliate(alice, NODE, SERVICE, bob="owner")).type == "result"
    assert (await affiliate(bob, NODE, SERVICE, alice="none")).type == "result"
    assert condition(await configure(alice, NODE, SERVICE, title="x")) == "forbidden"
    await create(alice, NODE)
    for what in ("none", "outcast"):
        assert condition(await affiliate(alice, NODE, alice=what)) == "not-acceptable"


class TestLimits:
    @pytest.fixture
    def limits(self):
        return Limits(pubsub_subscriptions=2)

    async def test_too_many_subscriptions_and_affiliations(self, world):
        alice, bob = await world.client("alice"), await world.client("bob")
        for name in ("a", "b", "c"):
            await create(alice, name, SERVICE)
        for name in ("a", "b"):
            assert (await subscribe(bob, name, SERVICE)).type == "result"
        full = await subscribe(bob, "c", SERVICE)
        assert (condition(full), specific(full)) == ("policy-violation", "too-many-subscriptions")
        assert (await subscribe(bob, "a", SERVICE)).type == "result"  # the one that there is
        assert (await affiliate(alice, "a", SERVICE, bob="member")).type == "result"
        assert condition(await affiliate(alice, "a", SERVICE, eve="member")) == "resource-constraint"
        assert world.limits_hit() == {"pubsub_subscriptions": 2}

"""XEP-0030 and XEP-0115."""

from __future__ import annotations

import base64
import hashlib
from xml.etree.ElementTree import XML

import pytest
from harness import DOMAIN, condition

from nestbox.config import ConfigError, Contact, load
from nestbox.modules.caps import verification
from nestbox.modules.dataforms import FORM
from nestbox.wire.element import Element

INFO = "{http://jabber.org/protocol/disco#info}"
ITEMS = "{http://jabber.org/protocol/disco#items}"
CAPS = "{http://jabber.org/protocol/caps}c"


def query(kind: str, node: str = "") -> str:
    attribute = f" node='{node}'" if node else ""
    return f"<query xmlns='http://jabber.org/protocol/disco#{kind}'{attribute}/>"


def features(info: Element) -> list[str]:
    return [feature.get("var") for feature in info.iter(INFO + "feature")]


async def test_the_server_says_what_it_is_and_can_do(world):
    alice = await world.client("alice")
    info = (await alice.iq("get", query("info"), to=DOMAIN)).find(INFO + "query")
    assert info[0].attrib == {"category": "server", "type": "im", "name": "Nestbox"}
    found = features(info)
    assert found == sorted(set(found))
    for feature in (
        "jabber:iq:roster",
        "urn:xmpp:ping",
        "urn:xmpp:blocking",
        "urn:xmpp:time",
        "jabber:iq:version",
        "vcard-temp",
    ):
        assert feature in found


async def test_hosts_are_listed(world):
    world.servers[1].router.hosts[f"hut.{DOMAIN}"] = lambda *_: 0
    alice = await world.client("alice")
    items = (await alice.iq("get", query("items"), to=DOMAIN)).find(ITEMS + "query")
    hosts = [item.get("jid") for item in items]
    assert {f"{name}.{DOMAIN}" for name in ("hut", "pubsub", "upload")} <= set(hosts)
    assert hosts == sorted(set(hosts))


@pytest.mark.parametrize("kind", ["info", "items"])
async def test_unknown_nodes_are_not_found(world, kind):
    alice = await world.client("alice")
    for address in (DOMAIN, alice.bare):
        assert condition(await alice.iq("get", query(kind, "what"), to=address)) == "item-not-found"


async def test_an_account_answers_its_owner_and_its_contacts(world):
    await world.friends("alice", "bob")
    alice = await world.client("alice")
    bob = await world.client("bob", worker=2)
    mallory = await world.client("mallory")
    for client in (alice, bob):
        info = (await client.iq("get", query("info"), to=alice.bare)).find(INFO + "query")
        assert info[0].attrib == {"category": "account", "type": "registered"}
        assert (await client.iq("get", query("items"), to=alice.bare)).type == "result"
    publish = "<publish node='hidden'><item id='1'><x xmlns='x:1'/></item></publish>"  # for contacts alone
    published = await alice.iq("set", f"<pubsub xmlns='http://jabber.org/protocol/pubsub'>{publish}</pubsub>")
    assert published.type == "result"
    for address in (alice.bare, f"nobody@{DOMAIN}"):
        for node in ("", "hidden", "what"):
            assert condition(await mallory.iq("get", query("info", node), to=address)) == "service-unavailable"
            nothing = (await mallory.iq("get", query("items", node), to=address)).find(ITEMS + "query")
            assert len(nothing) == 0 and nothing.get("node", "") == node
    assert len((await bob.iq("get", query("items", "hidden"), to=alice.bare)).find(ITEMS + "query")) == 1
    assert condition(await bob.iq("get", query("items", "what"), to=alice.bare)) == "item-not-found"


async def test_the_hash_is_that_of_the_answer(world):
    caps = next(XML(f) for f in world.servers[1].stream_features if b"protocol/caps" in f)
    assert caps.tag == CAPS and caps.get("hash") == "sha-1"
    alice = await world.client("alice")
    node = f"{caps.get('node')}#{caps.get('ver')}"
    info = (await alice.iq("get", query("info", node), to=DOMAIN)).find(INFO + "query")
    assert info.get("node") == node
    text = "pubsub/pep//Nestbox<server/im//Nestbox<" + "".join(feature + "<" for feature in sorted(features(info)))
    assert caps.get("ver") == base64.b64encode(hashlib.sha1(text.encode()).digest()).decode()


def test_the_example_of_the_xep():
    info = XML(
        "<query xmlns='http://jabber.org/protocol/disco#info'>"
        "<identity category='client' name='Exodus 0.9.1' type='pc'/>"
        "<feature var='http://jabber.org/protocol/caps'/><feature var='http://jabber.org/protocol/disco#info'/>"
        "<feature var='http://jabber.org/protocol/disco#items'/><feature var='http://jabber.org/protocol/muc'/></query>"
    )
    assert verification(info) == "QgayPKawpkPSDYmwT/WM94uAlu0="  # XEP-0115, section 5.2


class TestContact:
    """XEP-0157."""

    @pytest.fixture
    def config(self, config):
        config.admins = ["root"]
        config.contact = Contact(abuse=["mailto:abuse@nestbox.test", "xmpp:carol@nestbox.test"])
        return config

    async def test_people_find_whom_to_turn_to_and_the_hash_covers_it(self, world):
        alice = await world.client("alice")
        caps = next(XML(f) for f in world.servers[1].stream_features if b"protocol/caps" in f)
        node = f"{caps.get('node')}#{caps.get('ver')}"
        info = (await alice.iq("get", query("info", node), to=DOMAIN)).find(INFO + "query")
        (form,) = info.findall(FORM)
        assert form.get("type") == "result"
        found = {field.get("var"): [value.text for value in field] for field in form}
        assert found == {
            "FORM_TYPE": ["http://jabber.org/network/serverinfo"],
            "abuse-addresses": ["mailto:abuse@nestbox.test", "xmpp:carol@nestbox.test"],
            "admin-addresses": ["xmpp:root@nestbox.test"],
        }
        text = "pubsub/pep//Nestbox<server/im//Nestbox<" + "".join(feature + "<" for feature in sorted(features(info)))
        text += (
            "http://jabber.org/network/serverinfo<abuse-addresses<mailto:abuse@nestbox.test<xmpp:carol@nestbox.test<"
        )
        text += "admin-addresses<xmpp:root@nestbox.test<"
        assert caps.get("ver") == base64.b64encode(hashlib.sha1(text.encode()).digest()).decode()


class TestAdministrators:
    """The same, where the operator names nobody."""

    @pytest.fixture
    def config(self, config):
        config.admins = ["root"]
        return config

    async def test_they_are_there_for_abuse_too(self, world):
        alice = await world.client("alice")
        info = (await alice.iq("get", query("info"), to=DOMAIN)).find(INFO + "query")
        found = {field.get("var"): [value.text for value in field] for field in info.find(FORM)}
        assert found["abuse-addresses"] == found["admin-addresses"] == ["xmpp:root@nestbox.test"]


@pytest.mark.parametrize("address", ["help@nestbox.test", "javascript:alert(1)", "mailto:a b"])
def test_a_contact_address_is_a_uri(tmp_path, address):
    path = tmp_path / "nestbox.yml"
    path.write_text(f"domain: nestbox.test\ncontact: {{support: ['{address}']}}\n")
    with pytest.raises(ConfigError, match="contact"):
        load(path)

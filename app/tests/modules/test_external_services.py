"""XEP-0215: STUN and TURN for calls."""

import base64
import hashlib
import hmac
import time
from datetime import datetime

import pytest
from harness import DOMAIN, condition

from nestbox.config import ConfigError, ExternalService, load
from nestbox.core.jid import parse_jid
from nestbox.wire.element import el

NS = "urn:xmpp:extdisco:2"
SECRET = "shared with coturn"
HOST = f"turn.{DOMAIN}"


@pytest.fixture
def config(config):
    config.external_services = [
        ExternalService("stun", HOST),
        ExternalService("turn", HOST, secret=SECRET),
        ExternalService("turn", HOST, port=443, transport="tcp", secret=SECRET, seconds=600),
    ]
    return config


def good(service, now):
    """Whether a TURN server that knows the secret lets this user in, and for how many seconds."""
    until, _, who = service.get("username").partition(":")
    password = base64.b64encode(hmac.new(SECRET.encode(), service.get("username").encode(), hashlib.sha1).digest())
    assert service.get("password") == password.decode() and who
    expires = datetime.fromisoformat(service.get("expires"))
    assert expires.timestamp() == int(until) and expires.utcoffset().total_seconds() == 0
    return int(until) - now


async def test_all_services(world):
    anna = await world.client("anna")
    now = int(time.time())
    answer = await anna.iq("get", f"<services xmlns='{NS}'/>", DOMAIN)
    stun, turn, tcp = answer.payload
    assert answer.payload.tag == f"{{{NS}}}services" and answer.payload.attrib == {}
    assert stun.attrib == {"type": "stun", "host": HOST, "port": "3478", "transport": "udp"}
    assert (turn.get("type"), turn.get("port"), turn.get("transport"), turn.get("restricted")) == (
        "turn", "3478", "udp", "true",
    )  # fmt: skip
    assert 86_400 <= good(turn, now) <= 86_405
    assert (tcp.get("port"), tcp.get("transport")) == ("443", "tcp") and 600 <= good(tcp, now) <= 605


async def test_services_of_a_type(world):
    anna = await world.client("anna")
    answer = (await anna.iq("get", f"<services xmlns='{NS}' type='stun'/>", DOMAIN)).payload
    assert answer.get("type") == "stun" and [one.get("type") for one in answer] == ["stun"]
    answer = (await anna.iq("get", f"<services xmlns='{NS}' type='ftp'/>", DOMAIN)).payload
    assert answer.get("type") == "ftp" and len(answer) == 0


async def test_a_quota_is_possible_and_nobody_is_named(world):
    anna, phone = await world.client("anna"), await world.client("anna", worker=2)
    ben = await world.client("ben")
    names = []
    for client in (anna, phone, ben):
        answer = await client.iq("get", f"<services xmlns='{NS}' type='turn'/>", DOMAIN)
        names.append(answer.payload[0].get("username").partition(":")[2])
    assert names[0] == names[1] != names[2]
    assert "anna" not in names[0]


@pytest.mark.parametrize(("port", "count"), [("", 2), (" port='443'", 1)])
async def test_credentials(world, port, count):
    anna = await world.client("anna")
    query = f"<credentials xmlns='{NS}'><service host='{HOST}' type='turn'{port}/></credentials>"
    answer = (await anna.iq("get", query, DOMAIN)).payload
    assert answer.tag == f"{{{NS}}}credentials" and len(answer) == count
    for service in answer:
        assert good(service, int(time.time())) > 500


@pytest.mark.parametrize(
    ("inner", "error"),
    [
        ("", "bad-request"),
        (f"<service type='turn'/><service host='{HOST}'/>", "bad-request"),
        ("<service host='other.test' type='turn'/>", "item-not-found"),
        (f"<service host='{HOST}' type='stun'/>", "item-not-found"),
        (f"<service host='{HOST}' type='turn' port='1'/>", "item-not-found"),
    ],
)
async def test_credentials_that_there_are_not(world, inner, error):
    anna = await world.client("anna")
    answer = await anna.iq("get", f"<credentials xmlns='{NS}'>{inner}</credentials>", DOMAIN)
    assert condition(answer) == error


async def test_the_feature(world):
    anna = await world.client("anna")
    info = await anna.iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", DOMAIN)
    assert NS in [feature.get("var") for feature in info.payload]


@pytest.mark.parametrize(
    "services",
    [
        "[{type: turn, host: a.b}]",
        "[{type: stun, host: a.b, secret: x}]",
        "[{type: ftp, host: a.b}]",
        "[{type: stun}]",
        "[{type: stun, host: a.b, port: 0}]",
        "[{type: stun, host: a.b, colour: red}]",
    ],
)
def test_a_configuration_that_cannot_be(tmp_path, services):
    path = tmp_path / "nestbox.yml"
    path.write_text(f"domain: {DOMAIN}\nexternal_services: {services}\n")
    with pytest.raises(ConfigError):
        load(path)


async def test_credentials_are_for_the_servers_own_people(world):
    server = world.servers[1]
    for query in (f"{{{NS}}}services", f"{{{NS}}}credentials"):
        answer = await server.questions.ask(parse_jid(f"ben@{DOMAIN}"), parse_jid(DOMAIN), "get", el(query))
        assert condition(answer) == "forbidden"

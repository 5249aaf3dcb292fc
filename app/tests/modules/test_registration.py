"""XEP-0077 and XEP-0445: accounts made, changed and removed by their owners."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest
from harness import DOMAIN, World, condition
from wire_client import HEADER, Pipe, WireClient

from nestbox.config import Limits
from nestbox.core.errors import StreamError
from nestbox.net.connections import Connections
from nestbox.net.entrance import VISITOR_FAILURES
from nestbox.protocol.features import StreamOptions
from nestbox.store import Store
from nestbox.store.invites import Invite, new_token
from nestbox.wire.element import Element

REGISTER = "{jabber:iq:register}"
ROSTER = "{jabber:iq:roster}"
STREAM_ERROR = "{urn:ietf:params:xml:ns:xmpp-streams}"


@pytest.fixture
def limits():
    return Limits(registrations_per_hour=3)


@pytest.fixture
def config(config):
    config.admins = ["root"]
    return config


@pytest.fixture
def store(world) -> Store:
    return world.servers[1].store


class Visitor(WireClient):
    """A client on a stream before its login."""

    ids = 0

    @classmethod
    async def come(cls, world: World, worker: int = 1, **options) -> Visitor:
        visitor = cls(world, "nobody")
        server = world.servers[worker]
        stream = StreamOptions(
            domain=DOMAIN,
            plain_allowed=True,
            visitor_features=list(server.visitor_features),
            visitor_iqs=frozenset(server.visitor_iqs),
            features_after_auth=list(server.stream_features),
            **options,
        )
        visitor.pipe = Pipe(visitor)
        visitor.pipe.secure = not options.get("starttls", False)
        visitor.pipe.connection = Connections(server, stream, None).accept(visitor.pipe)
        visitor.pipe.feed(HEADER)
        visitor.features = await visitor.expect("features")
        return visitor

    async def iq(self, kind: str, payload: str, to: str = DOMAIN) -> Element:
        self.ids += 1
        self.pipe.feed(f"<iq type='{kind}' id='v{self.ids}' to='{to}'>{payload}</iq>".encode())
        answer = await self.expect("iq")
        assert answer.get("id") == f"v{self.ids}" and answer.get("from") == DOMAIN
        return answer

    async def bring(self, token: str) -> Element:
        return await self.iq("set", f"<preauth xmlns='urn:xmpp:pars:0' token='{token}'/>")

    async def register(self, name: str, password: str = "correct-horse-7") -> Element:
        fields = f"<username>{name}</username><password>{password}</password>"
        return await self.iq("set", f"<query xmlns='jabber:iq:register'>{fields}</query>")

    async def end(self) -> str:
        """The condition of the stream error that the server ends with."""
        error = await self.expect("error")
        return error[0].tag.removeprefix(STREAM_ERROR)


def problem(answer: Element) -> str | None:
    error = answer.find("{jabber:client}error")
    return None if error is None else error[0].tag.rpartition("}")[2]


async def invited(store: Store, **given) -> Invite:
    """An invitation of the operator, or of ``inviter``."""
    now = int(time.time())
    inviter = given.pop("inviter", None)
    account = await store.accounts.get(inviter) if inviter else None
    fields = {"username": "", "registers": True, "contact": account is not None, "uses_left": 1}
    fields |= {"created": now, "expires": now + 60, **given}
    invite = Invite(new_token(), account.id if account else None, **fields)
    await store.invites.create(invite)
    return invite


async def can_log_in(world: World, name: str, password: str) -> bool:
    visitor = await Visitor.come(world, 2)
    secret = base64.b64encode(f"\0{name}\0{password}".encode()).decode()
    visitor.pipe.feed(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>".encode())
    await visitor.until(lambda: visitor.others)
    return visitor.others[0].tag.endswith("}success")


async def test_what_the_stream_offers(world):
    visitor = await Visitor.come(world)
    offered = {feature.tag for feature in visitor.features}
    assert {"{urn:xmpp:ibr-token:0}register", "{http://jabber.org/features/iq-register}register"} <= offered
    plain = await Visitor.come(world, starttls=True)
    assert not any(feature.tag.endswith("}register") for feature in plain.features)


async def test_without_an_invitation_there_is_no_account(world, store):
    visitor = await Visitor.come(world)
    assert problem(await visitor.iq("get", "<query xmlns='jabber:iq:register'/>")) == "not-allowed"
    assert problem(await visitor.register("carol")) == "not-allowed"
    assert await store.accounts.get("carol") is None


async def test_an_invitation_makes_an_account(world, store):
    invite = await invited(store)
    visitor = await Visitor.come(world)
    assert (await visitor.bring(invite.token)).get("type") == "result"
    fields = (await visitor.iq("get", "<query xmlns='jabber:iq:register'/>")).find(REGISTER + "query")
    assert [field.tag for field in fields] == [REGISTER + name for name in ("instructions", "username", "password")]
    assert (await visitor.register("Carol", "pass word")).get("type") == "result"
    assert await can_log_in(world, "carol", "pass word")
    assert problem(await visitor.register("dave")) == "not-acceptable"  # one account a stream
    other = await Visitor.come(world, 2)
    assert problem(await other.bring(invite.token)) == "item-not-found"  # used up


async def test_the_token_is_used_by_success_alone(world, store):
    await world.user("bob")
    invite = await invited(store)
    one, other = await Visitor.come(world), await Visitor.come(world, 2)
    for visitor in (one, other):
        assert (await visitor.bring(invite.token)).get("type") == "result"
    assert problem(await one.register("bob")) == "conflict"
    assert problem(await one.register("", "x")) == "not-acceptable"
    assert problem(await one.register("carol", "")) == "not-acceptable"
    assert problem(await one.register("a b")) == "not-acceptable"
    assert (await one.register("carol")).get("type") == "result"
    assert problem(await other.register("dave")) == "item-not-found"
    assert await store.accounts.get("dave") is None


async def test_when_it_ends_matters_only_when_it_is_brought(world, store):
    invite = await invited(store)
    visitor = await Visitor.come(world)
    await visitor.bring(invite.token)
    async with store.database.write() as connection:
        await connection.exec_driver_sql("UPDATE invites SET expires = 1")
    late = await Visitor.come(world)
    assert problem(await late.bring(invite.token)) == "item-not-found"
    assert (await visitor.register("carol")).get("type") == "result"


async def test_an_invitation_that_was_taken_back(world, store):
    invite = await invited(store)
    visitor = await Visitor.come(world)
    await visitor.bring(invite.token)
    assert await store.invites.revoke(invite.token)
    assert problem(await visitor.register("carol")) == "item-not-found"


@pytest.mark.parametrize("token", ["", "x", "x" * 5000, "é", "' OR 1=1 --"])
async def test_wrong_tokens(world, store, token):
    await invited(store)
    visitor = await Visitor.come(world)
    assert problem(await visitor.bring(token.replace("'", "&apos;"))) == "item-not-found"


async def test_a_contacts_token_makes_no_account(world, store):
    await world.user("alice")
    invite = await invited(store, inviter="alice", registers=False)
    visitor = await Visitor.come(world)
    assert problem(await visitor.bring(invite.token)) == "item-not-found"


async def test_a_name_is_kept_for_whom_it_was_promised(world, store):
    named, free = await invited(store, username="juliet"), await invited(store)
    other = await Visitor.come(world)
    await other.bring(free.token)
    assert problem(await other.register("juliet")) == "conflict"
    juliet = await Visitor.come(world, 2)
    await juliet.bring(named.token)
    fields = (await juliet.iq("get", "<query xmlns='jabber:iq:register'/>")).find(REGISTER + "query")
    assert fields.findtext(REGISTER + "username") == "juliet"
    assert problem(await juliet.register("romeo")) == "not-acceptable"
    assert (await juliet.register("juliet")).get("type") == "result"


async def test_an_administrators_name_takes_an_invitation_for_it(world, store):
    visitor = await Visitor.come(world)
    await visitor.bring((await invited(store)).token)
    assert problem(await visitor.register("root")) == "conflict"
    root = await Visitor.come(world)
    await root.bring((await invited(store, username="root")).token)
    assert (await root.register("root")).get("type") == "result"


async def test_inviter_and_invited_are_contacts_at_once(world, store):
    alice = await world.client("alice", worker=2)
    await alice.iq("get", "<query xmlns='jabber:iq:roster'/>")
    visitor = await Visitor.come(world)
    await visitor.bring((await invited(store, inviter="alice")).token)
    assert (await visitor.register("carol")).get("type") == "result"
    push = await alice.expect("iq", type="set")  # XEP-0401, section 4.5
    [item] = push.find(ROSTER + "query")
    assert (item.get("jid"), item.get("subscription")) == (f"carol@{DOMAIN}", "both")
    carol = await world.client("carol", presence=None)
    roster = (await carol.iq("get", "<query xmlns='jabber:iq:roster'/>")).find(ROSTER + "query")
    assert [(item.get("jid"), item.get("subscription")) for item in roster] == [(alice.bare, "both")]
    await carol.send("<presence/>")
    await alice.expect("presence", from_=carol.jid)
    await carol.expect("presence", from_=alice.jid)


async def test_registration_can_be_open(world, store):
    world.config.registration.open = True
    await world.start_worker(3)
    for name in ("one", "two", "three"):
        visitor = await Visitor.come(world, 3)
        fields = await visitor.iq("get", "<query xmlns='jabber:iq:register'/>")
        assert fields.find(f"{REGISTER}query/{REGISTER}username") is not None
        assert (await visitor.register(name)).get("type") == "result"
    visitor = await Visitor.come(world, 3)
    assert problem(await visitor.register("four")) == "resource-constraint"
    assert world.limits_hit() == {"registrations_per_hour": 1}
    await visitor.bring((await invited(store)).token)
    assert (await visitor.register("four")).get("type") == "result"  # invitations are limited by themselves


async def test_too_many_refusals_end_the_stream(world):
    visitor = await Visitor.come(world)
    for _ in range(VISITOR_FAILURES):
        assert problem(await visitor.bring("wrong")) == "item-not-found"
    assert await visitor.end() == "policy-violation"
    assert world.limits_hit() == {"visitor_failures": 1}


@pytest.mark.parametrize(
    "xml",
    [
        "<iq type='get' id='1'><query xmlns='jabber:iq:roster'/></iq>",
        "<iq type='result' id='1'><query xmlns='jabber:iq:register'/></iq>",
        "<iq type='get'><query xmlns='jabber:iq:register'/></iq>",
        "<iq type='get' id='1'><query xmlns='jabber:iq:register'/><query xmlns='jabber:iq:register'/></iq>",
        "<iq type='get' id='1'/>",
        "<iq type='get' id='1' to='elsewhere.test'><query xmlns='jabber:iq:register'/></iq>",
        f"<iq type='get' id='1' to='upload.{DOMAIN}'><query xmlns='jabber:iq:register'/></iq>",
        f"<message to='alice@{DOMAIN}'><body>hi</body></message>",
        "<presence/>",
    ],
)
async def test_visitors_may_ask_nothing_else(world, xml):
    visitor = await Visitor.come(world)
    visitor.pipe.feed(xml.encode())
    assert await visitor.end() == "not-authorized"


async def test_nothing_before_tls(world):
    visitor = await Visitor.come(world, starttls=True)
    visitor.pipe.feed(b"<iq type='get' id='1'><query xmlns='jabber:iq:register'/></iq>")
    assert await visitor.end() == "not-authorized"


# those who have an account


@pytest.mark.parametrize("to", [None, DOMAIN, f"alice@{DOMAIN}"])
async def test_an_account_is_told_that_it_is_one(world, to):
    alice = await world.client("alice")
    query = (await alice.iq("get", "<query xmlns='jabber:iq:register'/>", to=to)).find(REGISTER + "query")
    assert query.find(REGISTER + "registered") is not None
    assert query.findtext(REGISTER + "username") == "alice"


def change(name: str, password: str) -> str:
    fields = f"<username>{name}</username><password>{password}</password>"
    return f"<query xmlns='jabber:iq:register'>{fields}</query>"


async def test_the_password_is_changed(world):
    alice = await world.client("alice")
    assert (await alice.iq("set", change("alice", "another one"), to=DOMAIN)).type == "result"
    await world.settle()
    assert not alice.closed
    assert await can_log_in(world, "alice", "another one") and not await can_log_in(world, "alice", "password")


async def test_a_password_that_cannot_be_changed(world, store):
    await world.user("bob")
    alice = await world.client("alice")
    before = {name: (await store.accounts.get(name)).keys for name in ("alice", "bob")}
    for payload, error in (
        (change("bob", "x"), "forbidden"),
        (change("alice", ""), "bad-request"),
        (change("", "x"), "bad-request"),
        ("<query xmlns='jabber:iq:register'><password>x</password></query>", "bad-request"),
        ("<query xmlns='jabber:iq:register'/>", "bad-request"),
        (change("alice", "x" * 2000), "not-acceptable"),
        (change("alice", "short"), "not-acceptable"),
        (change("alice", "password"), "not-acceptable"),
        (change("a b", "x"), "bad-request"),
    ):
        assert condition(await alice.iq("set", payload)) == error, payload
    bob = f"bob@{DOMAIN}"
    assert condition(await alice.iq("set", change("bob", "x"), to=bob)) == "forbidden"
    assert condition(await alice.iq("get", "<query xmlns='jabber:iq:register'/>", to=bob)) == "forbidden"
    assert {name: (await store.accounts.get(name)).keys for name in ("alice", "bob")} == before


REMOVE = "<query xmlns='jabber:iq:register'><remove/></query>"


async def test_an_account_is_removed_with_all_that_it_had(world, store, config):
    await world.friends("alice", "bob")
    phone, desk = await world.client("alice"), await world.client("alice", worker=2)
    bob = await world.client("bob", worker=2)
    await bob.iq("get", "<query xmlns='jabber:iq:roster'/>")
    folder = Path(config.state_dir) / "uploads" / str(phone.session.user.id)
    folder.mkdir(parents=True)
    (folder / "file").write_text("hi")
    answer = await phone.iq("set", REMOVE, to=DOMAIN)
    assert answer.type == "result"
    for client in (phone, desk):
        error = await client.end_of_stream()
        assert error.condition == "not-authorized"
    await world.settle()
    assert await store.accounts.get("alice") is None and not folder.exists()
    await bob.expect("presence", type="unavailable", from_=phone.jid)
    roster = (await bob.iq("get", "<query xmlns='jabber:iq:roster'/>")).find(ROSTER + "query")
    assert [(item.get("jid"), item.get("subscription")) for item in roster] == [(f"alice@{DOMAIN}", "none")]
    with pytest.raises(StreamError, match="not-authorized"):
        await world.servers[1].bind(phone, "alice", None, "", "tcp")


async def test_a_removal_that_asks_for_more_is_refused(world, store):
    alice = await world.client("alice")
    await world.user("bob")
    more = "<query xmlns='jabber:iq:register'><remove/><username>alice</username></query>"
    assert condition(await alice.iq("set", more)) == "bad-request"
    assert condition(await alice.iq("set", REMOVE, to=f"bob@{DOMAIN}")) == "forbidden"
    assert await store.accounts.get("alice") is not None and await store.accounts.get("bob") is not None

"""XEP-0227: what goes out comes in again, whole."""

from __future__ import annotations

import hashlib
from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest

from nestbox.core.ids import ms_to_id
from nestbox.modules.pubsub.config import NodeConfig
from nestbox.store import Prefs, RosterItem, Store, open_store
from nestbox.store.pubsub_items import Item
from tests.ctl.conftest import Ctl

JUNE = 1_780_000_000_000  # milliseconds
PIE = "{urn:xmpp:pie:0}"


async def fill(store: Store, name: str) -> None:
    """An account with something of everything."""
    account = await store.accounts.create(name, "correct horse")
    await store.roster.put(account.id, RosterItem("bob@x.test", "Bob <3", "both", groups=["Friends", "A & B"]))
    await store.roster.put(account.id, RosterItem("carol@x.test", ask=True, approved=True))
    await store.roster.add_request(account.id, "dave@x.test", b'<presence type="subscribe" from="dave@x.test" id="1"/>')
    photo = b"<PHOTO><BINVAL>eA==</BINVAL></PHOTO>"
    await store.vcards.put(account.id, b'<vCard xmlns="vcard-temp"><FN>Al &amp; Co</FN>' + photo + b"</vCard>")
    await store.accounts.set_photo(account.id, hashlib.sha1(b"x").hexdigest())
    await store.private.put(account.id, "{x:1}a", b'<a xmlns="x:1"><b c="d"/>t</a>')
    await store.private.put(account.id, "{x:2}a", b'<a xmlns="x:2"/>')
    await store.blocking.add(account.id, ["eve@x.test", "mallory@x.test/phone", "spam.test"])
    await store.archive.set_prefs(account.id, Prefs("roster", ["bob@x.test"], ["eve@x.test"]))
    me = f"{name}@nestbox.test"
    for number in range(1_200):
        row_id = ms_to_id(JUNE + number // 3) + number % 3
        ends = (f"{me}/a", "bob@x.test") if number % 2 else ("bob@x.test/b", me)
        stanza = f'<message from="{ends[0]}" to="{ends[1]}" type="chat"><body>{number} &lt;</body></message>'
        store.committer.archive(account.id, row_id, "bob@x.test", stanza.encode())
        await store.committer.flush() if number % 300 == 0 else None
    for number in range(3):
        stanza = (
            f'<message from="bob@x.test/b" to="{me}" type="chat"><body>late {number}</body>'
            '<delay xmlns="urn:xmpp:delay" from="nestbox.test" stamp="2026-06-01T10:00:00.000Z"/></message>'
        )
        store.committer.offline(account.id, ms_to_id(JUNE) + number, stanza.encode())
    await store.committer.flush()
    config = NodeConfig(access_model="whitelist", max_items="max", title="Tunes & more")
    assert await store.pubsub.create(account.id, me, "urn:xmpp:tune", config.encode(), 0, 10)
    node = (await store.pubsub.view(me, "urn:xmpp:tune", me)).node.id
    await store.pubsub_people.affiliate(node, account.id, {"bob@x.test": ("member", None)}, 10, False)
    for number in range(5):
        item = Item(f"item{number}", b'<tune xmlns="urn:tune">%d</tune>' % number, me, number)
        await store.pubsub_items.publish(node, account.id, item, 10, 100_000)


async def contents(store: Store, name: str) -> dict[str, object]:
    """All that an account has, without what a store gives by itself."""
    account = await store.accounts.get(name)
    user, me = account.id, f"{name}@nestbox.test"
    roster = await store.roster.items(user)
    for item in roster:
        item.ver = 0
    nodes = []
    for view in await store.pubsub.views(me, me):
        items = (await store.pubsub_items.page(view.node.id, limit=100, max_bytes=1_000_000)).items
        people = await store.pubsub_people.affiliations(view.node.id)
        nodes.append((view.node.name, NodeConfig.decode(view.node.config), people, [item[:3] for item in items]))
    return {
        "keys": account.keys,
        "enabled": account.enabled,
        "roster": roster,
        "requests": await store.roster.requests(user),
        "photo": account.photo,
        "vcard": await store.vcards.get(user),
        "private": await store.private.all(user),
        "blocked": await store.blocking.list(user),
        "prefs": await store.archive.prefs(user),
        "archive": (await store.archive.query(user, limit=2_000)).rows,
        "with bob": await store.archive.count(user, with_="bob@x.test"),
        "offline": [stanza for _, stanza in await store.offline.fetch(user, 100)],
        "nodes": nodes,
    }


async def test_everything_comes_back(ctl: Ctl, tmp_path: Path) -> None:
    store = await open_store(ctl.settings["database"]["url"])
    for name in ("alice", "zoe"):
        await fill(store, name)
    await store.accounts.create("nobody", "x")
    await store.accounts.set_enabled("zoe", False)
    file = tmp_path / "all.xml"
    await ctl.ok("user", "export", str(file), "--xep0227")
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"correct horse" not in file.read_bytes()
    users = fromstring(file.read_bytes()).findall(f"{PIE}host/{PIE}user")
    assert [user.get("name") for user in users] == ["alice", "nobody", "zoe"]

    (tmp_path / "other").mkdir()
    other = Ctl(tmp_path / "other")
    await other.ok("migrate")
    assert await other.ok("user", "import", "--xep0227", str(file)) == "Imported 3 users.\n"
    copy = await open_store(other.settings["database"]["url"])
    for name in ("alice", "zoe"):
        was, now = await contents(store, name), await contents(copy, name)
        assert len(was["archive"]) == was["with bob"] == 1_200
        for part in was:
            assert now[part] == was[part], part
    again = await other.ok("user", "import", "--xep0227", "-", input=file.read_text())
    assert again.startswith("Imported 0 users.\n3 were there already")
    await store.close()
    await copy.close()


async def test_one_user_is_handed_over_alone(ctl: Ctl) -> None:
    for name in ("alice", "bob"):
        await ctl.ok("user", "add", name)
    users = fromstring(await ctl.ok("user", "export", "-", "--xep0227", "--user", "bob")).findall(f"*/{PIE}user")
    assert [user.get("name") for user in users] == ["bob"]
    assert await ctl.fails("user", "export", "-", "--xep0227", "--user", "carol") == "There is no user carol."


def server_data(users: str, host: str = "nestbox.test") -> str:
    return f"<server-data xmlns='urn:xmpp:pie:0'><host jid='{host}'>{users}</host></server-data>"


async def test_what_another_server_wrote_is_taken_as_far_as_it_goes(ctl: Ctl) -> None:
    results = "".join(
        f"<result xmlns='urn:xmpp:mam:2' id='uuid-{number}'><forwarded xmlns='urn:xmpp:forward:0'>"
        "<delay xmlns='urn:xmpp:delay' stamp='2024-05-01T10:00:00Z'/><message xmlns='jabber:client' type='chat' "
        f"from='romeo@x.test/a' to='juliet@nestbox.test'><body>{number}</body></message></forwarded></result>"
        for number in range(5)
    )
    text = server_data(
        "<user name='Juliet' password='R0m30'>"
        "<query xmlns='jabber:iq:roster'><item jid='romeo@x.test' subscription='both'/>"
        "<item jid='paris@x.test' subscription='odd'/></query>"
        "<blocklist xmlns='urn:xmpp:blocking'><item jid='paris@x.test'/></blocklist>"
        "<query xmlns='jabber:iq:privacy'><list name='other'/></query>"
        "<settings xmlns='urn:other'/>"
        f"<archive xmlns='urn:xmpp:pie:0#mam'>{results}<result xmlns='urn:xmpp:mam:2' id='x'/></archive></user>"
    )
    done = await ctl.ok("user", "import", "--xep0227", "-", input=text)
    assert done.splitlines() == [
        "Imported 1 users.",
        "What this server cannot keep was left out: 1 x privacy list, 1 x result, 1 x roster item, 1 x settings.",
    ]
    store = await open_store(ctl.settings["database"]["url"])
    juliet = await store.accounts.get("juliet")
    assert set(juliet.keys) == {"SHA-1", "SHA-256", "SHA-512"}
    assert [item.jid for item in await store.roster.items(juliet.id)] == ["romeo@x.test"]
    assert await store.blocking.list(juliet.id) == ["paris@x.test"]
    rows = (await store.archive.query(juliet.id, with_="romeo@x.test")).rows
    assert [row.stanza.count(b"<body>%d<" % number) for number, row in enumerate(rows)] == [1] * 5
    await store.close()


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("<no", "no XML"),
        ("<x/>", "not of XEP-0227"),
        (server_data("", "x.test"), "this server is nestbox.test"),
        (server_data(""), "no users"),
        (server_data("<user name='a b' password='x'><vCard xmlns='vcard-temp'/></user>"), "cannot be a username"),
        (server_data("<user name='a'><vCard xmlns='vcard-temp'/></user>"), "neither a password nor SCRAM keys"),
        (
            server_data(
                "<user name='a'><scram-credentials xmlns='urn:xmpp:pie:0#scram' mechanism='SCRAM-SHA-1'>"
                "<iter-count>4096</iter-count><salt>AA==</salt><server-key>AA==</server-key>"
                "<stored-key>AA==</stored-key></scram-credentials></user>"
            ),
            "are damaged",
        ),
    ],
)
async def test_a_wrong_file_imports_nobody(ctl: Ctl, text: str, sentence: str) -> None:
    assert sentence in await ctl.fails("user", "import", "--xep0227", "-", input=text)
    assert await ctl.ok("user", "list") == ""

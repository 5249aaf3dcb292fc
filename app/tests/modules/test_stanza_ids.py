"""XEP-0359: ids that claim to be ours are ours."""

from __future__ import annotations

import pytest

from nestbox.wire.stanza import STANZA_ID

FORGED = "<stanza-id xmlns='urn:xmpp:sid:0' id='1' by='%s'/>"


def ids(stanza) -> list[tuple[str, str]]:
    return [(child.get("by"), child.get("id")) for child in stanza.element.findall(STANZA_ID)]


@pytest.mark.parametrize(
    "by", ["bob@nestbox.test", "BOB@nestbox.test", "alice@nestbox.test", "bob@nestbox.test/x", "nestbox.test", "", "@"]
)
async def test_an_id_in_our_name_is_taken_out(world, by):
    alice = await world.client("alice")
    bob = await world.client("bob")
    await alice.send(f"<message to='{bob.bare}' type='chat'>{FORGED % by}{FORGED % by}<body>hi</body></message>")
    message = await bob.expect("message")
    assert [(by, id) for by, id in ids(message) if id == "1"] == []
    assert [by for by, _ in ids(message)] == [bob.bare]


async def test_the_ids_of_others_and_of_the_sender_pass(world):
    alice = await world.client("alice")
    bob = await world.client("bob")
    origin = "<origin-id xmlns='urn:xmpp:sid:0' id='o1'/>"
    await alice.send(
        f"<message to='{bob.bare}' type='chat'>{origin}{FORGED % 'room@rooms.elsewhere.test'}<body>hi</body></message>"
    )
    message = await bob.expect("message")
    assert ("room@rooms.elsewhere.test", "1") in ids(message)
    assert message.find("{urn:xmpp:sid:0}origin-id").get("id") == "o1"


async def test_a_message_that_is_not_archived_has_no_id(world):
    alice = await world.client("alice")
    bob = await world.client("bob")
    state = "<composing xmlns='http://jabber.org/protocol/chatstates'/>"
    await alice.send(f"<message to='{bob.bare}' type='chat'>{FORGED % bob.bare}{state}</message>")
    assert ids(await bob.expect("message")) == []

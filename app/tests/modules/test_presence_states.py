"""RFC 6121, section 4: which presence passes in each of the nine states of appendix A.1."""

from __future__ import annotations

import pytest

from nestbox.modules.subscriptions import with_state

# The state in alice's roster, and the one that belongs to it in bob's.
MIRROR = {
    "none": "none",
    "none+out": "none+in",
    "none+in": "none+out",
    "none+out+in": "none+out+in",
    "to": "from",
    "to+in": "from+out",
    "from": "to",
    "from+out": "to+in",
    "both": "both",
}


@pytest.mark.parametrize("state", MIRROR)
async def test_presence_in_every_state(world, state):
    for name, other, its in (("alice", "bob", state), ("bob", "alice", MIRROR[state])):
        await world.user(name)
        user = await world.servers[1].users.load(name)
        jid = f"{other}@nestbox.test"
        request = f'<presence type="subscribe" from="{jid}" to="{name}@nestbox.test"/>'.encode()
        await world.servers[1].store.roster.change(
            user.id, jid, lambda contact, jid=jid, its=its, request=request: with_state(contact, jid, its, request), 9
        )
    for server in world.servers.values():  # the store was changed behind their backs
        for name in ("alice", "bob"):
            await server.users.changed(name)
    shows, sees = state.startswith(("from", "both")), state.startswith(("to", "both"))
    alice = await world.client("alice")
    bob = await world.client("bob", worker=2, presence=None)

    async def came(client, sender, kind=None):
        found = [s for s in await client.drain() if s.kind == "presence" and s.from_ == sender.jid]
        assert all(s.type == kind for s in found)
        return bool(found)

    await bob.send("<presence/>")
    assert await came(alice, bob) == sees  # initial presence (section 4.2.2)
    assert await came(bob, alice) == shows  # and the probe that goes with it (section 4.3)
    await alice.send("<presence><show>away</show></presence>")
    assert await came(bob, alice) == shows  # a later one (section 4.4.2)
    await bob.send(f"<presence type='probe' to='{alice.bare}'/>")
    assert await came(bob, alice) == shows
    if not shows:
        await alice.send(f"<presence to='{bob.bare}'/>")
        assert await came(bob, alice)  # directed presence asks for no subscription (section 4.6)
    await alice.leave()
    assert await came(bob, alice, "unavailable")  # who has had it learns of the end (sections 4.5.2 and 4.6.3)
    back = await alice.world.client("alice", worker=1, presence=None)
    await back.drain()
    await bob.leave()
    assert not await came(back, bob, "unavailable")  # it was not available

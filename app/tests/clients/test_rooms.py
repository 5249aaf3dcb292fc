"""Rooms with clients of several makers: a group that encrypts, moderation, history (XEP-0045, XEP-0384, XEP-0425)."""

from __future__ import annotations

import asyncio

from slixmpp import JID

from tests.clients.omemo_person import OmemoPerson
from tests.clients.site import DOMAIN


async def test_a_group_of_three_encrypts(site, names, person, web_chat):
    """Members only, everybody's address known: what the apps ask of a room before they encrypt in it."""
    room = f"group-{names[0]}@rooms.{DOMAIN}"
    anna, ben = await asyncio.gather(person(names[0], 1, kind=OmemoPerson), person(names[1], 2, kind=OmemoPerson))
    await asyncio.gather(anna.forget_omemo_2(), ben.forget_omemo_2())
    await anna.open_room(room, membersonly="1", whois="anyone", persistentroom="1", roomname="Group")
    for name in names[1:]:
        await anna["xep_0045"].set_affiliation(room, "member", jid=f"{name}@{DOMAIN}")
    await ben["xep_0045"].join_muc_wait(JID(room), "ben")
    cleo = await web_chat(names[2])
    await cleo.join(room)
    await cleo.encrypt()  # her keys are published
    await anna.sees_in_room(room, names[2])
    await anna.encrypt("hello you two", names[1], names[2], room=room)
    assert (await ben.next_encrypted())["body"] == "hello you two"
    await cleo.sees("hello you two")
    assert (await anna.next_encrypted())["body"] == "hello you two"  # her own, back from the room
    await cleo.say("hello from the browser")
    for phone in (anna, ben):
        assert (await phone.next_encrypted())["body"] == "hello from the browser"

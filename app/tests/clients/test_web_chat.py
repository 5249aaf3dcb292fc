"""The web chat, built as the appliance has it, in a real browser against other people's clients."""

from __future__ import annotations

from tests.clients.site import DOMAIN


async def test_web_chat_and_a_phone(site, names, web_chat, person):
    anna, ben = await web_chat(names[0]), await person(names[1], 3)
    ben.send_message(f"{names[0]}@{DOMAIN}", "Good morning, browser", mtype="chat")
    await anna.open_chat(ben.boundjid.bare)
    await anna.sees("Good morning, browser")
    await anna.say("Good morning, phone")
    assert (await ben.next_message())["body"] == "Good morning, phone"
    await anna.sees("Good morning, phone")

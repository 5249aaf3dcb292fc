"""End-to-end encryption between clients that share nothing but the standards (XEP-0384 0.3 over PEP)."""

from __future__ import annotations

import asyncio

from tests.clients.omemo_person import OmemoPerson
from tests.clients.pictures import picture
from tests.clients.site import both_databases

PICTURE = picture(64)


@both_databases
async def test_phones_encrypt_for_all_devices(site, names, person):
    """A tablet that came later reads what is written from then on, and so does the writer's other device."""
    anna, ben = await person(names[0], 1, kind=OmemoPerson), await person(names[1], 2, kind=OmemoPerson)
    await anna.encrypt("psst", names[1])
    assert (await ben.next_encrypted())["body"] == "psst"
    tablet = await person(names[1], 3, "tablet", kind=OmemoPerson)
    await tablet.plugin["xep_0280"].enable()
    await anna.hears_of_devices(names[1], 2)
    await anna.encrypt("psst, both", names[1])
    assert (await ben.next_encrypted())["body"] == "psst, both"
    assert (await tablet.next_encrypted())["body"] == "psst, both"


@both_databases
async def test_web_chat_and_a_phone_encrypt(site, names, person, web_chat):
    ben = await person(names[1], 2, kind=OmemoPerson)
    await ben.forget_omemo_2()
    anna = await web_chat(names[0])
    ben.send_message(anna.jid, "let us talk", mtype="chat")
    await anna.open_chat(ben.boundjid.bare)
    await anna.encrypt()
    await anna.say("for you alone")
    assert (await ben.next_encrypted())["body"] == "for you alone"
    await ben.encrypt("and for you", names[0])
    await anna.sees("and for you")


@both_databases
async def test_pictures_are_encrypted_too(site, names, person, web_chat):
    """A picture each way, sent by HTTP upload under a key that only the message has (XEP-0363, XEP-0454)."""
    ben = await person(names[1], 2, kind=OmemoPerson)
    await ben.forget_omemo_2()
    anna = await web_chat(names[0])
    ben.send_message(anna.jid, "show me", mtype="chat")
    await anna.open_chat(ben.boundjid.bare)
    await anna.encrypt()
    await anna.attach("bird.png", PICTURE)
    link = (await ben.next_encrypted())["body"]
    assert link.startswith(f"aesgcm://127.0.0.1:{site.https}/upload/")
    assert await ben.fetch_encrypted(link) == PICTURE
    await ben.encrypt(await ben.upload_encrypted("nest.png", PICTURE), names[0])
    await anna.page.locator("img.chat-image").nth(1).wait_for()
    shown = "image => image.naturalWidth === 64 && new URL(image.src).protocol === 'blob:'"
    images = "[...document.querySelectorAll('img.chat-image')]"
    for _ in range(300):  # wait_for_function would ask by eval(), which the page's policy forbids
        if await anna.page.evaluate(f"{images}.length === 2 && {images}.every({shown})"):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the pictures are not shown")

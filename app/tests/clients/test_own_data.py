"""What a person has but once, on all devices and for all contacts: picture, bookmarks (XEP-0398, XEP-0402)."""

from __future__ import annotations

import asyncio
import base64
import hashlib

from tests.clients.node import StropheClient, XmppClient
from tests.clients.omemo_person import OmemoPerson
from tests.clients.pictures import picture
from tests.clients.site import DOMAIN, both_databases


@both_databases
async def test_a_new_picture_is_seen_by_all(site, names, node, person, web_chat):
    """Published by a phone to its nodes (XEP-0084), seen by an app that knows vCards alone, and in the browser."""
    await site.befriend(*names[:2])
    data = picture(96)
    sha1 = hashlib.sha1(data).hexdigest()
    anna, ben = node(XmppClient, names[0]), await person(names[1], 2, kind=OmemoPerson)
    await anna.come(anna.worker(1))
    await anna.stanza(f"{{jabber:client}}presence[@from='{ben.boundjid.full}']")
    avatars = ben["xep_0084"]
    await avatars.publish_avatar(data)
    await avatars.publish_avatar_metadata({"id": sha1, "type": "image/png", "bytes": len(data)})
    await anna.stanza(f"{{jabber:client}}presence/{{vcard-temp:x:update}}x/[{{vcard-temp:x:update}}photo='{sha1}']")
    card = await anna.ask("<vCard xmlns='vcard-temp'/>", ben.boundjid.bare)
    photo = card.find("{vcard-temp}vCard/{vcard-temp}PHOTO")
    assert base64.b64decode(photo.findtext("{vcard-temp}BINVAL")) == data
    assert photo.findtext("{vcard-temp}TYPE") == "image/png"
    browser = await web_chat(names[0])
    await browser.open_chat(ben.boundjid.bare)
    shown = browser.page.locator(
        "converse-chat-heading converse-avatar image, converse-chat-heading converse-avatar img"
    )
    await shown.first.wait_for()


async def test_an_old_apps_picture_reaches_new_apps(site, names, node, person):
    await site.befriend(*names[:2])
    data = picture(48)
    sha1 = hashlib.sha1(data).hexdigest()
    anna = await node(StropheClient, names[0]).come(site.websocket)
    ben = await person(names[1], 3, kind=OmemoPerson)
    metadata = asyncio.Queue()
    ben.add_event_handler("avatar_metadata_publish", metadata.put_nowait)
    photo = f"<PHOTO><TYPE>image/png</TYPE><BINVAL>{base64.b64encode(data).decode()}</BINVAL></PHOTO>"
    assert (await anna.ask(f"<vCard xmlns='vcard-temp'>{photo}</vCard>", kind="set")).get("type") == "result"
    event = await asyncio.wait_for(metadata.get(), 15)
    assert event["from"].bare == anna.jid
    assert event["pubsub_event"]["items"]["item"]["id"] == sha1
    item = await ben["xep_0084"].retrieve_avatar(anna.jid, sha1)
    assert item["pubsub"]["items"]["item"]["avatar_data"]["value"] == data


@both_databases
async def test_bookmarks_follow_to_other_devices(site, names, node, person, web_chat):
    """A phone bookmarks a room: a tablet hears of it, the browser enters it, an old app finds it in private storage."""
    room = f"club-{names[0]}@rooms.{DOMAIN}"
    phone = await person(names[0], 2, kind=OmemoPerson)
    tablet = await person(names[0], 3, "tablet", kind=OmemoPerson)
    await phone.open_room(room, persistentroom="1", roomname="Book club")
    await phone.bookmark(room, "Book club", autojoin=True)
    assert (await tablet.next_bookmark()).attrib == {"name": "Book club", "autojoin": "true"}
    browser = await web_chat(names[0])
    await browser.page.wait_for_selector("converse-rooms-list >> text=Book club")
    old = await node(StropheClient, names[0], "old").come(site.websocket)
    answer = await old.ask("<query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'/></query>")
    kept = answer.find(".//{storage:bookmarks}conference")
    assert (kept.get("jid"), kept.get("name"), kept.get("autojoin")) == (room, "Book club", "true")

"""What the tests of rooms share."""

from __future__ import annotations

from harness import DOMAIN

HOST = f"rooms.{DOMAIN}"
ROOM = f"tea@{HOST}"
MUC = "http://jabber.org/protocol/muc"
USER = f"{MUC}#user"
ADMIN = f"{MUC}#admin"
OWNER = f"{MUC}#owner"
DATA = "jabber:x:data"
X = f"{{{USER}}}x"


async def enter(client, nick, room=ROOM, inner="", presence=""):
    """Send the presence that enters a room; nothing is waited for."""
    await client.send(f'<presence to="{room}/{nick}"><x xmlns="{MUC}">{inner}</x>{presence}</presence>')


async def join(client, nick, room=ROOM, inner=""):
    """Enter a room, and give back its own presence once the subject has come."""
    await enter(client, nick, room, inner)
    own = await client.expect(
        lambda s: s.kind == "presence" and (s.type == "error" or (s.type is None and 110 in codes(s)))
    )
    assert own.type is None, own.find("{jabber:client}error")[0].tag
    await client.expect(lambda s: s.kind == "message" and s.has("{jabber:client}subject"))
    return own


async def make(world, *, name="anna", nick="Anna", room=ROOM, worker=1, resource=None, **config):
    """A room with these settings (names without ``muc#roomconfig_``), set up by its owner, who is in it."""
    owner = await world.client(name, resource, worker=worker)
    await join(owner, nick, room)
    assert (await configure(owner, room, **config)).type == "result"
    await owner.drain()
    return owner


async def configure(client, room=ROOM, **config):
    """Submit the configuration form; the answer."""
    fields = {"FORM_TYPE": f"{MUC}#roomconfig"} if config else {}
    fields |= {name if "#" in name else f"muc#roomconfig_{name}": value for name, value in config.items()}
    return await client.iq("set", f'<query xmlns="{OWNER}">{form(fields)}</query>', room)


def form(fields):
    """A submitted form; a list as value means several."""
    inner = ""
    for name, value in fields.items():
        values = value if isinstance(value, list) else [value]
        inner += f'<field var="{name}">' + "".join(f"<value>{each}</value>" for each in values) + "</field>"
    return f'<x xmlns="{DATA}" type="submit">{inner}</x>'


def codes(stanza):
    """The status codes in a stanza."""
    return {int(each.get("code")) for each in stanza.element.iterfind(f"{X}/{{{USER}}}status")}


def item(stanza):
    """The attributes of the item in a presence or message of the room."""
    return stanza.element.find(f"{X}/{{{USER}}}item").attrib


async def say(client, text, room=ROOM, extra=""):
    """A message to everybody; the batch that its acknowledgement waits for."""
    return await client.send(
        f'<message to="{room}" type="groupchat" id="m-{text}"><body>{text}</body>{extra}</message>'
    )


async def hears(client, text):
    """Wait for a message with this body."""
    return await client.expect(lambda s: s.kind == "message" and s.element.findtext("{jabber:client}body") == text)


async def set_item(client, attributes, room=ROOM, reason=""):
    """One change of an affiliation or role; the answer."""
    inner = f"<reason>{reason}</reason>" if reason else ""
    return await client.iq("set", f'<query xmlns="{ADMIN}"><item {attributes}>{inner}</item></query>', room)


async def read_list(client, attributes, room=ROOM):
    """The items of a list, as dicts of their attributes, or the error answer."""
    answer = await client.iq("get", f'<query xmlns="{ADMIN}"><item {attributes}/></query>', room)
    return answer if answer.type == "error" else [dict(each.attrib) for each in answer.payload]

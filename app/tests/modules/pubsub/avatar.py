"""A picture in PEP, and its trace in presence (XEP-0084, XEP-0153)."""

from __future__ import annotations

import base64
import hashlib

from harness import Client
from pubsub.pep import publish

from nestbox.wire.stanza import Stanza

DATA, METADATA = "urn:xmpp:avatar:data", "urn:xmpp:avatar:metadata"
UPDATE = "{vcard-temp:x:update}"


def sha1(picture: bytes) -> str:
    return hashlib.sha1(picture).hexdigest()


def info(picture: bytes, kind: str = "image/png") -> str:
    return f"<info xmlns='{METADATA}' bytes='{len(picture)}' id='{sha1(picture)}' type='{kind}'/>"


async def publish_avatar(client: Client, picture: bytes, more: str = "") -> None:
    """As XEP-0084, section 3.1 and 3.2: the data first."""
    data = base64.b64encode(picture).decode()
    assert (await publish(client, DATA, sha1(picture), f"<data xmlns='{DATA}'>{data}</data>")).type == "result"
    metadata = f"<metadata xmlns='{METADATA}'>{more}{info(picture)}</metadata>"
    assert (await publish(client, METADATA, sha1(picture), metadata)).type == "result"


def photo_hash(presence: Stanza) -> str | None:
    """None where presence says nothing of a picture, '' where it says that there is none."""
    update = presence.find(UPDATE + "x")
    return None if update is None else update.findtext(UPDATE + "photo")

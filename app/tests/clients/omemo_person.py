"""slixmpp with slixmpp-omemo: a phone that encrypts (XEP-0384)."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
import urllib.request
import xml.etree.ElementTree as ET

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from omemo.storage import Just, Maybe, Nothing, Storage
from slixmpp import JID
from slixmpp.plugins import register_plugin
from slixmpp.plugins.xep_0402.stanza import Conference
from slixmpp_omemo import XEP_0384

from tests.clients.site import DOMAIN, Site
from tests.live.conftest import Person

__all__ = ["OmemoPerson"]

UPLOAD = "urn:xmpp:http:upload:0"


class _Memory(Storage):
    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[str, object] = {}

    async def _load(self, key: str) -> Maybe:
        return Just(self._kept[key]) if key in self._kept else Nothing()

    async def _store(self, key: str, value: object) -> None:
        self._kept[key] = value

    async def _delete(self, key: str) -> None:
        self._kept.pop(key, None)


class _Omemo(XEP_0384):
    """Trusts each device that it has not seen before, as most apps do."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)
        self._memory = _Memory()

    @property
    def storage(self) -> Storage:
        return self._memory

    @property
    def _btbv_enabled(self) -> bool:
        return True

    async def _prompt_manual_trust(self, manually_trusted: object, identifier: object) -> None:
        raise AssertionError("a device was not trusted blindly")


register_plugin(_Omemo)


class OmemoPerson(Person):
    """A slixmpp client with OMEMO; ``messages`` has the decrypted ones, each with ``encrypted`` set."""

    def __init__(self, name: str, resource: str, site: Site) -> None:
        super().__init__(name, resource, site)
        for plugin in ("xep_0045", "xep_0060", "xep_0084", "xep_0163", "xep_0402", "xep_0425"):
            self.register_plugin(plugin)
        self["xep_0163"].add_interest(Conference.namespace)
        self._published: asyncio.Queue = asyncio.Queue()
        self.add_event_handler("pubsub_publish", self._published.put_nowait)
        self.register_plugin("xep_0384", module=sys.modules[__name__])
        self.ready = asyncio.Event()
        self.add_event_handler("omemo_initialized", lambda event: self.ready.set())

    async def come(self, worker: int) -> OmemoPerson:
        """Be online, with keys published."""
        await super().come(worker)
        await asyncio.wait_for(self.ready.wait(), 15)
        return self

    async def forget_omemo_2(self) -> None:
        """Offer others version 0.3 alone: this library cannot write version 2, and the web chat refuses its keys."""
        await self["xep_0060"].delete_node(self.boundjid.bare, "urn:xmpp:omemo:2:devices")

    async def next_encrypted(self) -> object:
        """The next message, which must be encrypted for this device, as it was written."""
        message = await self.next_message()
        assert self["xep_0384"].is_encrypted(message), message
        return (await self["xep_0384"].decrypt_message(message))[0]

    async def hears_of_devices(self, name: str, count: int) -> None:
        """Wait until an account has as many devices as far as this one knows."""
        manager = await self["xep_0384"].get_session_manager()
        async with asyncio.timeout(15):
            while len(await manager.get_device_information(f"{name}@{DOMAIN}")) != count:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def open_room(self, room: str, **settings: str) -> None:
        """Make a room and set it up by its form; ``settings`` are names without ``muc#roomconfig_``."""
        muc = self["xep_0045"]
        await muc.join_muc_wait(JID(room), self.boundjid.local)
        form = await muc.get_room_config(room)
        form.set_values({f"muc#roomconfig_{name}": value for name, value in settings.items()})
        form["type"] = "submit"
        await muc.set_room_config(room, form)

    async def bookmark(self, room: str, name: str, autojoin: bool) -> None:
        """Keep a room in mind for all devices (XEP-0402)."""
        conference = Conference()
        conference["name"], conference["autojoin"] = name, autojoin
        options = {"pubsub#persist_items": "true", "pubsub#max_items": "max"}
        options |= {"pubsub#send_last_published_item": "never", "pubsub#access_model": "whitelist"}
        form = self["xep_0004"].make_form("submit")
        form.add_field(var="FORM_TYPE", ftype="hidden", value="http://jabber.org/protocol/pubsub#publish-options")
        for field, value in options.items():
            form.add_field(var=field, value=value)
        await self["xep_0060"].publish(self.boundjid.bare, Conference.namespace, room, conference, form)

    async def next_bookmark(self) -> ET.Element:
        """Wait for the server's word that another device has changed a bookmark."""
        async with asyncio.timeout(15):
            while True:
                event = await self._published.get()
                if (bookmark := event.xml.find(f".//{{{Conference.namespace}}}conference")) is not None:
                    return bookmark

    async def sees_in_room(self, room: str, name: str) -> None:
        """Wait until an account is in a room whose occupants' addresses are known."""
        async with asyncio.timeout(15):
            while not self["xep_0045"].jid_in_room(JID(room), JID(f"{name}@{DOMAIN}")):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def encrypt(self, text: str, *names: str, room: str = "") -> None:
        """Send a text to an account, or to the accounts that are in a room, encrypted for all their devices."""
        to, kind = (room, "groupchat") if room else (f"{names[0]}@{DOMAIN}", "chat")
        message = self.make_message(to, text, mtype=kind)
        encrypted, problems = await self["xep_0384"].encrypt_message(
            message, {JID(f"{name}@{DOMAIN}") for name in names}
        )
        assert not problems, problems
        encrypted["from"] = None
        encrypted.send()

    async def upload_encrypted(self, name: str, data: bytes) -> str:
        """Encrypt a file, upload it, and return its link with the key (XEP-0454)."""
        iv, key = os.urandom(12), os.urandom(32)
        data = AESGCM(key).encrypt(iv, data, None)
        ask = self.make_iq_get(ito=f"upload.{DOMAIN}")
        ask.append(ET.Element(f"{{{UPLOAD}}}request", {"filename": name, "size": str(len(data))}))
        slot = (await ask.send()).xml.find(f"{{{UPLOAD}}}slot")
        put = slot.find(f"{{{UPLOAD}}}put")
        headers = {header.get("name"): header.text for header in put}
        await self._http(urllib.request.Request(put.get("url"), data, headers, method="PUT"))
        return slot.find(f"{{{UPLOAD}}}get").get("url").replace("https:", "aesgcm:") + f"#{iv.hex()}{key.hex()}"

    async def fetch_encrypted(self, link: str) -> bytes:
        """Download and decrypt what such a link names."""
        url, _, secret = link.replace("aesgcm:", "https:").partition("#")
        iv, key = bytes.fromhex(secret[:-64]), bytes.fromhex(secret[-64:])
        return AESGCM(key).decrypt(iv, await self._http(urllib.request.Request(url)), None)

    async def _http(self, request: urllib.request.Request) -> bytes:
        context = ssl.create_default_context(cafile=self.cluster.certificate)

        def run() -> bytes:
            with urllib.request.urlopen(request, timeout=10, context=context) as answer:
                return answer.read()

        return await asyncio.to_thread(run)

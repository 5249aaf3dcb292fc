"""nestboxctl user export --xep0227: all that is kept of accounts, piece by piece, whatever its size."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterable
from typing import IO
from xml.etree.ElementTree import XML

from nestbox.config import Config
from nestbox.core.delay import timestamp
from nestbox.core.ids import id_to_ms
from nestbox.ctl import portable as names
from nestbox.modules.archive_preferences import prefs_element
from nestbox.modules.pubsub.config import NodeConfig, config_form
from nestbox.modules.roster_items import item_bytes
from nestbox.store import Account, Store
from nestbox.store.archive import Prefs
from nestbox.wire import ns
from nestbox.wire.element import Element, el, escape_attribute, to_bytes

__all__ = ["write"]

_PAGE = 500
_PAGE_BYTES = 4 * 1024 * 1024


async def write(stream: IO[str], store: Store, config: Config, accounts: Iterable[Account]) -> None:
    """Write the accounts, which come with their keys. Raises StoreError, OSError."""
    stream.write(f'<?xml version="1.0" encoding="UTF-8"?>\n<server-data xmlns="{names.PIE}">\n')
    stream.write(f'<host jid="{escape_attribute(config.domain)}">\n')
    for account in accounts:
        stream.write(f'<user name="{escape_attribute(account.username)}">\n')
        async for data in _pieces(store, config, account):
            stream.write(data.decode() + "\n")
        stream.write("</user>\n")
    stream.write("</host>\n</server-data>\n")


async def _pieces(store: Store, config: Config, account: Account) -> AsyncIterator[bytes]:
    home = f"{account.username}@{config.domain}"
    async for element in _small(store, account):
        yield to_bytes(element, names.PIE)
    items = b"".join(map(item_bytes, await store.roster.items(account.id)))
    yield f'<query xmlns="{ns.ROSTER}">'.encode() + items + b"</query>"
    for _, request in await store.roster.requests(account.id):
        yield _in_client(request)
    vcard = await store.vcards.get(account.id)
    if vcard is not None:
        yield vcard
    private = await store.private.all(account.id)
    if private:
        yield b'<query xmlns="%s">' % ns.PRIVATE.encode() + b"".join(private) + b"</query>"
    yield b"<offline-messages>"
    for _, stanza in await store.offline.fetch(account.id, config.limits.offline_messages):
        yield _in_client(stanza)
    yield b"</offline-messages>"
    yield f'<archive xmlns="{names.ARCHIVE}">'.encode()
    async for data in _archive(store, account.id):
        yield data
    yield b"</archive>"
    async for element in _nodes(store, home):
        yield to_bytes(element, names.PIE)


async def _small(store: Store, account: Account) -> AsyncIterator[Element]:
    for name, keys in account.keys.items():
        yield el(
            names.CREDENTIALS,
            {"mechanism": f"SCRAM-{name}"},
            el(names.ITERATIONS, text=str(keys.iterations)),
            el(names.SALT, text=base64.b64encode(keys.salt).decode()),
            el(names.SERVER_KEY, text=base64.b64encode(keys.server_key).decode()),
            el(names.STORED_KEY, text=base64.b64encode(keys.stored_key).decode()),
        )
    if not account.enabled:
        yield el(names.DISABLED)
    blocked = await store.blocking.list(account.id)
    if blocked:
        items = [
            el(names.PRIVACY_ITEM, {"type": "jid", "value": jid, "action": "deny", "order": str(order)})
            for order, jid in enumerate(blocked, 1)
        ]
        default = el(names.PRIVACY_DEFAULT, {"name": "blocked"})
        yield el(names.PRIVACY_QUERY, None, default, el(names.PRIVACY_LIST, {"name": "blocked"}, *items))
    prefs = await store.archive.prefs(account.id)
    if prefs != Prefs():
        yield prefs_element(prefs)


async def _archive(store: Store, owner: int) -> AsyncIterator[bytes]:
    after = None
    while True:
        page = await store.archive.query(owner, after=after, limit=_PAGE)
        for row in page.rows:
            stamp = timestamp(id_to_ms(row.id))
            yield (
                (
                    f'<result xmlns="{ns.MAM}" id="{row.id}"><forwarded xmlns="{ns.FORWARD}">'
                    f'<delay xmlns="{ns.DELAY}" stamp="{stamp}"/>'
                ).encode()
                + _in_client(row.stanza)
                + b"</forwarded></result>"
            )
        if page.complete:
            return
        after = page.rows[-1].id


async def _nodes(store: Store, home: str) -> AsyncIterator[Element]:
    """Each node of PEP with what it is (section 4.9), then what is in it."""
    for view in await store.pubsub.views(home, home):
        node = view.node
        form = config_form(NodeConfig.decode(node.config))
        form.set("type", "submit")
        owner = el(names.OWNER, None, el(names.CONFIGURE, {"node": node.name}, form))
        affiliations = await store.pubsub_people.affiliations(node.id)
        if affiliations:
            listed = [el(names.AFFILIATION, {"jid": jid, "affiliation": what}) for jid, what in affiliations.items()]
            owner.append(el(names.AFFILIATIONS, {"node": node.name}, *listed))
        yield owner
        after = None
        while (page := await store.pubsub_items.page(node.id, limit=_PAGE, max_bytes=_PAGE_BYTES, after=after)).items:
            items = el(names.ITEMS, {"node": node.name})
            for item in page.items:
                element = el(names.ITEM, {"id": item.name, "publisher": item.publisher})
                if item.payload:
                    element.append(XML(item.payload))
                items.append(element)
            yield el(names.PUBSUB, None, items)
            after = page.items[-1].name


def _in_client(stanza: bytes) -> bytes:
    """A stored stanza, for a place with another default namespace."""
    end = min(at for at in (stanza.find(b" "), stanza.find(b">"), stanza.find(b"/")) if at > 0)
    return b'%s xmlns="%s"%s' % (stanza[:end], ns.CLIENT.encode(), stanza[end:])

"""XEP-0313, Message Archive Management: every conversation, on every device.

A message is put into the archives of its sender and its recipient under one id, before anybody gets it, and the
sender's acknowledgement waits for the commit. The recipient's copy carries that id (``<stanza-id/>``, XEP-0359). This
is every message's way: the row is the stanza as serialised once, the id is added as bytes.

Preferences are those of XEP-0441, in the namespace of XEP-0313.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nestbox.core import registry as reg
from nestbox.core.errors import StanzaError
from nestbox.core.hooks import IqContext, MessageContext
from nestbox.core.ids import id_to_ms
from nestbox.core.jid import JID, parse_jid
from nestbox.modules import Xep
from nestbox.modules.archive_query import QUERY, Query, parse_query, query_form
from nestbox.modules.content import ONE_TO_ONE, archivable
from nestbox.modules.rsm import page_result
from nestbox.modules.stanza_ids import stanza_id_bytes
from nestbox.store.archive import ArchiveRow, Prefs
from nestbox.store.errors import StoreBusy
from nestbox.wire import ns
from nestbox.wire.element import Element, el, escape_attribute
from nestbox.wire.stanza import STANZA_ID

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.core.session import Session
    from nestbox.core.users import User

__all__ = ["XEPS", "keeps", "setup", "timestamp"]

XEPS = (
    Xep(313, "1.1", "``with`` matches bare addresses; rooms archive for themselves"),
    Xep(441, "0.2.0"),
)

PAGE = 50  # messages in a page when the client does not say
MAX_PAGE = 100
MAX_PAGE_BYTES = 1024 * 1024  # a page of the largest stanzas would fill a client's buffer
FRESH_MS = 5_000  # an id this young may be committed by another worker at this moment
MAX_PREFS = 1_000  # addresses in a list
METADATA = f"{{{ns.MAM}}}metadata"
PREFS = f"{{{ns.MAM}}}prefs"
_JID = f"{{{ns.MAM}}}jid"


def keeps(user: User, peer: JID) -> bool:
    """Whether ``user`` wants messages from or to ``peer`` archived (XEP-0441, section 2)."""
    if user.archive == "always" and not user.archive_never:
        return True
    if user.archive_never and (peer.bare in user.archive_never or str(peer) in user.archive_never):
        return False
    if user.archive_always and (peer.bare in user.archive_always or str(peer) in user.archive_always):
        return True
    if user.archive == "roster":
        # Rather one message too many where the roster is not known yet.
        return user.contacts is None or peer.bare in user.contacts or peer.bare == user.jid
    return user.archive == "always"


def timestamp(ms: int) -> str:
    """Unix milliseconds as XEP-0082 wants them."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


def setup(server: Server) -> None:
    """Archive messages and answer queries, unless the operator has switched the archive off."""
    if not server.config.archive.enabled:
        return
    module = _Archive(server)
    server.hooks.message_archive.add(module.archive)
    server.account_features.update((ns.MAM, ns.MAM_EXTENDED))
    server.router.iq("account", "get", QUERY, lambda context: _own(context) and query_form())
    server.router.iq("account", "set", QUERY, module.query)
    server.router.iq("account", "get", METADATA, module.metadata)
    server.router.iq("account", "get", PREFS, module.get_prefs)
    server.router.iq("account", "set", PREFS, module.set_prefs)


def _own(context: IqContext) -> Session:
    """The session that asks for its own account's archive. Raises StanzaError forbidden for anyone else."""
    if not context.own or context.session is None:
        raise StanzaError("forbidden", "This is someone else's archive.")
    return context.session


class _Archive:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._committer = server.store.committer
        self._next_id = server.ids.next

    # every message's way

    def archive(self, context: MessageContext) -> None:
        stanza = context.stanza
        if stanza.element.get("type") not in ONE_TO_ONE or not archivable(stanza.element):
            return
        owner, recipient = context.owner, context.recipient
        if recipient is not None and recipient.archive == "roster" and recipient.contacts is None:
            self._server.spawn(self._server.users.contacts(recipient))  # `keeps` does without until it is there
        for_owner = owner is not None and keeps(owner, context.to)
        for_recipient = recipient is not None and recipient is not owner and keeps(recipient, context.sender)
        if not (for_owner or for_recipient):
            return
        archive_id = self._next_id()
        data = stanza.encode()
        committer = self._committer
        try:
            if for_owner:
                context.batch = committer.archive(owner.id, archive_id, context.to.bare, data)
            if for_recipient:
                context.batch = committer.archive(recipient.id, archive_id, context.sender.bare, data)
        except StoreBusy:
            raise StanzaError("resource-constraint", "The server cannot store messages now; try again.") from None
        context.archive_id = archive_id
        if for_recipient or recipient is owner:
            by = recipient.jid
            child = Element(STANZA_ID, {"by": by, "id": str(archive_id)})
            stanza.append_bytes(child, stanza_id_bytes(by, archive_id))

    # queries

    async def query(self, context: IqContext) -> Element:
        session = _own(context)
        query = parse_query(context.payload)
        store = self._server.store.archive
        owner = session.user.id
        await self._committer.flush()  # a client finds what it has just sent
        await self._check_edges(owner, query)
        if query.page.max == 0:
            count = await store.count(owner, with_=query.with_, start=query.start, end=query.end)
            return _fin([], count == 0, count)
        page = await store.query(
            owner,
            with_=query.with_,
            start=query.start,
            end=query.end,
            after=query.after,
            before=query.before,
            ids=query.ids,
            limit=min(query.page.max or PAGE, MAX_PAGE),
            backward=query.page.backward,
        )
        rows = _bounded(page.rows, query.page.backward)
        self._send(session, query, rows)
        complete = page.complete and len(rows) == len(page.rows)
        whole = complete and query.page.after is None and query.page.before is None
        return _fin(rows, complete, len(rows) if whole else None)

    async def _check_edges(self, owner: int, query: Query) -> None:
        """Raise item-not-found unless all ids that the client names are there (section 4.3.2)."""
        if not query.edges:
            return
        edges = sorted(query.edges)
        deadline = time.time() * 1000 + 1_000
        while True:
            page = await self._server.store.archive.query(owner, ids=edges, limit=len(edges))
            missing = query.edges.difference(row.id for row in page.rows)
            if not missing:
                return
            now = time.time() * 1000
            # A message may reach us before the worker that took it has committed it.
            if now > deadline or any(id_to_ms(edge) < now - FRESH_MS for edge in missing):
                raise StanzaError("item-not-found", "No message of this archive has that id.")
            await asyncio.sleep(0.02)

    def _send(self, session: Session, query: Query, rows: list[ArchiveRow]) -> None:
        address = f'from="{escape_attribute(session.entry.bare)}" to="{escape_attribute(session.full)}"'
        query_id = "" if query.query_id is None else f' queryid="{escape_attribute(query.query_id)}"'
        head = f'<message {address}><result xmlns="{ns.MAM}"{query_id} id="%d"><forwarded xmlns="{ns.FORWARD}">'
        start = (head.replace("%", "%%").replace("%%d", "%d") + f'<delay xmlns="{ns.DELAY}" stamp="%s"/>').encode()
        for row in reversed(rows) if query.flip else rows:
            stamp = timestamp(id_to_ms(row.id)).encode()
            session.send(
                b'%s<message xmlns="jabber:client"%s</forwarded></result></message>'
                % (start % (row.id, stamp), row.stanza.removeprefix(b"<message"))
            )

    async def metadata(self, context: IqContext) -> Element:
        session = _own(context)
        await self._committer.flush()
        ends = await self._server.store.archive.ends(session.user.id)
        answer = el(METADATA)
        for name, archive_id in zip(("start", "end"), ends or (), strict=False):
            stamp = timestamp(id_to_ms(archive_id))
            answer.append(el(f"{{{ns.MAM}}}{name}", {"id": str(archive_id), "timestamp": stamp}))
        return answer

    # preferences

    async def get_prefs(self, context: IqContext) -> Element:
        session = _own(context)
        return _prefs_element(await self._server.store.archive.prefs(session.user.id))

    async def set_prefs(self, context: IqContext) -> Element:
        session = _own(context)
        prefs = _parse_prefs(context.payload)
        await self._server.store.archive.set_prefs(session.user.id, prefs)
        await self._server.users.changed(session.user.username)
        self._server.registry.tell_all(reg.Account(session.user.username))
        return _prefs_element(prefs)


def _bounded(rows: list[ArchiveRow], backward: bool) -> list[ArchiveRow]:
    """As many rows as fit a page, from the end at which the page begins; at least one."""
    total = 0
    for count, row in enumerate(reversed(rows) if backward else rows):
        total += len(row.stanza)
        if total > MAX_PAGE_BYTES and count:
            return rows[-count:] if backward else rows[:count]
    return rows


def _fin(rows: list[ArchiveRow], complete: bool, count: int | None) -> Element:
    first = str(rows[0].id) if rows else None
    last = str(rows[-1].id) if rows else None
    return el(f"{{{ns.MAM}}}fin", {"complete": "true"} if complete else None, page_result(first, last, count))


def _prefs_element(prefs: Prefs) -> Element:
    answer = el(PREFS, {"default": prefs.default})
    for name, addresses in (("always", prefs.always), ("never", prefs.never)):
        answer.append(el(f"{{{ns.MAM}}}{name}", None, *(el(_JID, text=address) for address in addresses)))
    return answer


def _parse_prefs(element: Element) -> Prefs:
    default = element.get("default")
    if default not in ("always", "never", "roster"):
        raise StanzaError("bad-request", "default must be always, never or roster.")
    lists = []
    for name in ("always", "never"):
        found = element.find(f"{{{ns.MAM}}}{name}")
        addresses = found.findall(_JID) if found is not None else []
        if len(addresses) > MAX_PREFS:
            raise StanzaError("resource-constraint", f"At most {MAX_PREFS} addresses in a list.", type="modify")
        try:
            lists.append(sorted({str(parse_jid((address.text or "").strip())) for address in addresses}))
        except ValueError as error:
            raise StanzaError("jid-malformed", str(error)) from None
    return Prefs(default, *lists)

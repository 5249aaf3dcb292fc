"""Entity capabilities (XEP-0115): a hash that stands for a disco answer, ours and that of our clients.

The server's own is in the stream features, so that clients need not ask. What a client's hash stands for is asked once
by the worker that has the session, and only what proves to have that hash is remembered for others: an answer that does
not counts for the session that gave it and for nobody else (section 9.1 of the XEP's security considerations). All we
want to know are the pubsub nodes that a client asks to hear of (XEP-0163, section 4.2). The module is set up last, when
all features of the server are known.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.core.jid import parse_jid
from nestbox.modules import Xep
from nestbox.modules.dataforms import FORM
from nestbox.modules.disco import FEATURE, IDENTITY, INFO, host_info
from nestbox.wire import ns
from nestbox.wire.element import Element, el, to_bytes
from nestbox.wire.stanza import parse_stanza

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.core.session import Session
    from nestbox.wire.stanza import Stanza

__all__ = ["XEPS", "setup", "verification"]

XEPS = (Xep(115, "1.6.0"),)
CAPS = f"{{{ns.CAPS}}}c"
NOTIFY = "+notify"
NODES_MAX = 200  # nodes that one client may ask to hear of
CACHED_BYTES = 16 * 1024  # of the names of such nodes; a longer list counts for its session only
TURN_SECONDS = 2.0  # how long a session waits for another to say what the same hash stands for
_LANG = f"{{{ns.XML}}}lang"
_FIELD = f"{{{ns.DATA_FORMS}}}field"
_VALUE = f"{{{ns.DATA_FORMS}}}value"
# XEP-0115, section 5.1, with the names of XEP-0300.
_HASHES = {"md5", "sha-1", "sha-224", "sha-256", "sha-384", "sha-512"}


def verification(info: Element, algorithm: str = "sha-1") -> str | None:
    """The verification string of a disco#info answer in base64 (XEP-0115, section 5.1).

    None for a hash that we do not know and for an answer that is ill-formed (section 5.4): with it anything could be
    given the hash of something else.
    """
    if algorithm not in _HASHES:
        return None
    identities = [
        (each.get("category", ""), each.get("type", ""), each.get(_LANG, ""), each.get("name", ""))
        for each in info.iterfind(IDENTITY)
    ]
    features = [each.get("var", "") for each in info.iterfind(FEATURE)]
    forms = [form for form in map(_form, info.iterfind(FORM)) if form is not None]
    kinds = [kind for kind, _ in forms]
    parts = ["/".join(identity) for identity in sorted(identities)] + sorted(features)
    for kind, fields in sorted(forms):
        parts.append(kind)
        for name, values in sorted(fields):
            parts += [name, *sorted(values)]
    twice = any(len(set(each)) != len(each) for each in (identities, features, kinds))
    if twice or "" in kinds or any("<" in part for part in parts):
        return None
    text = "".join(part + "<" for part in parts)
    return base64.b64encode(hashlib.new(algorithm.replace("sha-", "sha"), text.encode()).digest()).decode()


def _form(form: Element) -> tuple[str, list[tuple[str, list[str]]]] | None:
    """The FORM_TYPE of a form with its other fields; None for a form without, which does not count.

    A FORM_TYPE of several values is given back as '', which no form can have.
    """
    kind, fields = None, []
    for field in form.iterfind(_FIELD):
        values = [value.text or "" for value in field.iterfind(_VALUE)]
        if field.get("var") != "FORM_TYPE":
            fields.append((field.get("var", ""), values))
        elif field.get("type") in ("hidden", None):
            kind = values[0] if len(set(values)) == 1 else ""
    return None if kind is None else (kind, fields)


class _Clients:
    """What the clients of this worker ask to be notified of."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._host = parse_jid(server.config.domain)
        self._known: OrderedDict[tuple[str, str], frozenset[str]] = OrderedDict()  # by hash and verification string
        self._asking: dict[tuple[str, str], asyncio.Event] = {}

    def presence(self, session: Session, stanza: Stanza) -> None:
        """A session has sent presence; one without capabilities changes nothing."""
        if stanza.type == "unavailable":
            session.caps, session.notify = None, frozenset()
            return
        session.moved_at = None
        self._look(session, stanza)

    def resumed(self, session: Session) -> None:
        """A session that came from another worker is new here."""
        if session.caps is None and session.presence is not None:
            self._look(session, parse_stanza(session.presence))

    def _look(self, session: Session, stanza: Stanza) -> None:
        element = stanza.find(CAPS)
        if element is None:
            return
        caps = (element.get("hash", ""), element.get("node", ""), element.get("ver", ""))
        if caps == session.caps:
            return
        session.caps = caps
        nodes = self._recall(caps)
        if nodes is not None:
            self._interested(session, nodes)
        else:
            self._server.spawn(self._learn(session, caps))

    def _recall(self, caps: tuple[str, str, str]) -> frozenset[str] | None:
        key = (caps[0], caps[2])
        nodes = self._known.get(key)
        if nodes is not None:
            self._known.move_to_end(key)
        return nodes

    async def _learn(self, session: Session, caps: tuple[str, str, str]) -> None:
        key = (caps[0], caps[2])
        asking = self._asking.get(key)
        if asking is not None:  # many come with the same client at once: one of them is asked
            with suppress(TimeoutError):
                async with asyncio.timeout(TURN_SECONDS):
                    await asking.wait()
        nodes = self._recall(caps)
        if nodes is None and session.caps == caps:
            asking = asyncio.Event()
            self._asking[key] = asking
            try:
                nodes = await self._ask(session, caps)
            finally:
                asking.set()
                if self._asking.get(key) is asking:
                    del self._asking[key]
        if nodes is not None and session.caps == caps and not session.ended:
            self._interested(session, nodes)

    async def _ask(self, session: Session, caps: tuple[str, str, str]) -> frozenset[str] | None:
        algorithm, node, ver = caps
        query = el(INFO, {"node": f"{node}#{ver}"})
        try:
            answer = await self._server.questions.ask(self._host, session.jid, "get", query)
        except StanzaError:
            return None
        info = answer.find(INFO)
        if answer.type != "result" or info is None:
            return None
        features = (each.get("var", "") for each in info.iterfind(FEATURE))
        wanted = [name.removesuffix(NOTIFY) for name in features if name.endswith(NOTIFY)]
        if len(wanted) > NODES_MAX:  # the client asked nothing, so nothing can be refused
            self._server.counts.limits_hit["caps_nodes"] += 1
        nodes = frozenset(wanted[:NODES_MAX])
        if sum(map(len, nodes)) <= CACHED_BYTES and verification(info, algorithm) == ver:
            self._known[algorithm, ver] = nodes
            while len(self._known) > self._server.config.limits.caps_cached:
                self._known.popitem(last=False)
        return nodes

    def _interested(self, session: Session, nodes: frozenset[str]) -> None:
        new = nodes - session.notify
        session.notify = nodes
        if new:
            self._server.hooks.interests.run(session, new)


def setup(server: Server) -> None:
    """Advertise our hash, answer disco for its node, and learn what our clients' hashes stand for."""
    server.host_features.add(ns.CAPS)
    node = server.config.https_url
    ver = verification(host_info(server))
    server.host_nodes.add(f"{node}#{ver}")
    server.stream_features.append(to_bytes(el(CAPS, {"hash": "sha-1", "node": node, "ver": ver or ""})))
    clients = _Clients(server)
    server.hooks.presence_sent.add(clients.presence)
    server.hooks.session_resumed.add(clients.resumed)

"""The way of a connection to its session: who logs in, with what, and what becomes of those who do not."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from nestbox.core.errors import SaslError, StanzaError, StreamError
from nestbox.core.jid import prepare_localpart
from nestbox.core.visitor import Visitor
from nestbox.log import short_address
from nestbox.protocol.events import (
    Authenticated,
    BindRequest,
    Establish,
    LoginFailed,
    Lookup,
    ResumeRequest,
    StoreKeys,
    TokenLookup,
    VisitorIq,
)

if TYPE_CHECKING:
    from nestbox.net.connection import Connection
    from nestbox.wire.element import Element

__all__ = ["HANDLERS"]

_log = logging.getLogger("nestbox.c2s")
VISIT_SECONDS = 300.0  # more for a person who makes an account, who has a form to fill in
VISITOR_FAILURES = 10
NAME_CHARACTERS = 256  # of the name of an account whose failed logins are counted


async def _guarded(connection: Connection, username: str) -> None:
    """Wait where logins have failed before; others need not wait for that. Raises StreamError."""
    connection.name = username[:NAME_CHARACTERS]
    guard = connection.shared.server.guard
    limit = guard.limit(connection.transport.peer, connection.name)
    if limit:
        counts = connection.shared.server.counts
        counts.logins_delayed += 1
        counts.limits_hit[limit] += 1
        await connection.shared.pace.aside(guard.wait(connection.transport.peer, connection.name))


async def _lookup(connection: Connection, event: Lookup) -> None:
    await _guarded(connection, event.username)
    connection.stream.credentials(await connection.shared.server.logins.credentials(event.username))


async def _token_lookup(connection: Connection, event: TokenLookup) -> None:
    await _guarded(connection, event.username)
    connection.stream.tokens(await connection.shared.server.logins.tokens(event.username, event.agent))


async def _store_keys(connection: Connection, event: StoreKeys) -> None:
    await connection.shared.server.store.accounts.add_keys(event.username, event.hash, event.keys)
    connection.stream.keys_stored()


async def _establish(connection: Connection, event: Establish) -> None:
    server, transport = connection.shared.server, connection.transport
    connection.early = []
    try:
        session, outcome = await server.logins.establish(connection, event, transport.peer, transport.kind)
    except SaslError as error:
        connection.stream.refused(error)
        return
    finally:
        early = connection.early
        if not connection.gone:
            connection.early = None
    connection.session = session
    connection.stream.established(outcome)
    if session is None or connection.gone:
        return
    connection.flush()
    for data in early if outcome.resumed is None else session.sm.unacked():
        connection.send_stanza(data)
    session.ask()


def _login_failed(connection: Connection, event: LoginFailed) -> None:
    if event.condition == "aborted":
        return
    server, transport = connection.shared.server, connection.transport
    server.counts.logins_failed += 1
    if event.condition == "not-authorized":
        server.guard.failed(transport.peer, connection.name)
    address = short_address(transport.peer, server.config.log.addresses)
    fields = {"address": address, "reason": event.condition, "transport": transport.kind}
    _log.info("a login failed", extra={"fields": fields})


def _authenticated(connection: Connection, event: Authenticated) -> None:
    connection.username = prepare_localpart(event.username)
    server = connection.shared.server
    server.counts.logins += 1
    server.guard.succeeded(connection.transport.peer, connection.name)
    connection.shared.visited(connection)
    if connection.transport.kind != "tcp":
        connection.transport.max_message = server.config.limits.stanza_bytes


async def _visit(connection: Connection, event: VisitorIq) -> None:
    """Somebody without an account asks something; too many refusals end the stream."""
    server = connection.shared.server
    visitor = connection.visitor
    if visitor is None:
        visitor = connection.visitor = Visitor(connection.transport.peer)
    answer: Element | StanzaError | None
    try:
        answer = await server.visitor_iqs[event.stanza.payload.tag](visitor, event.stanza)
        if not visitor.welcome:
            visitor.welcome = True
            connection.opened += VISIT_SECONDS
    except StanzaError as error:
        server.counts.refused(error)
        visitor.failures += 1
        answer = error
    connection.stream.visitor_answered(answer)
    if visitor.failures >= VISITOR_FAILURES:
        raise StreamError("policy-violation", "Too many requests were refused.", limit="visitor_failures")


async def _bind(connection: Connection, event: BindRequest) -> None:
    transport = connection.transport
    try:
        session = await connection.shared.server.bind(
            connection, connection.username, event.resource, transport.peer, transport.kind
        )
    except StanzaError as error:
        connection.shared.server.counts.refused(error)
        connection.stream.bind_failed(error)
        return
    connection.session = session
    connection.stream.bound(session.jid)


async def _resume(connection: Connection, event: ResumeRequest) -> None:
    server = connection.shared.server
    session = await server.resume(connection, connection.username, event.previd, event.h)
    if session is None:
        handled = await server.resumption.handled(connection.username, event.previd)
        connection.stream.resume_failed("item-not-found", handled)
        return
    connection.session = session
    connection.stream.resumed(event.previd, session.durable(server.store.committer.committed))
    if connection.gone:
        return
    connection.flush()
    for data in session.sm.unacked():
        connection.send_stanza(data)
    session.ask()


HANDLERS = {
    Lookup: _lookup,
    TokenLookup: _token_lookup,
    StoreKeys: _store_keys,
    Establish: _establish,
    LoginFailed: _login_failed,
    Authenticated: _authenticated,
    BindRequest: _bind,
    ResumeRequest: _resume,
    VisitorIq: _visit,
}

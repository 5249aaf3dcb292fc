"""Who may log in, and everything that a client gets with its login (XEP-0388): a token, its old session or a new one.

Tokens (XEP-0484) are in the store, so that any worker knows them, and a new password ends them everywhere at once.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from nestbox.core.errors import SaslError, StanzaError
from nestbox.core.jid import prepare_localpart
from nestbox.core.registry import Kick
from nestbox.protocol import sm
from nestbox.protocol.bind import client_of
from nestbox.protocol.events import Establish, Established
from nestbox.protocol.fast import Token, agent_key, make_token
from nestbox.protocol.sasl import Credentials
from nestbox.protocol.sm import HandledCountTooHigh
from nestbox.store.tokens import TokenRow

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.core.session import Link, Session
    from nestbox.core.users import User
    from nestbox.protocol.bind import Bind2

__all__ = ["Logins"]

ROTATE_SECONDS = 86_400  # a token older than this is replaced when it is used


class Logins:
    """Answers what a `nestbox.protocol.stream.Stream` asks on the way to a session."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._store = server.store

    async def credentials(self, username: str) -> Credentials | None:
        """The keys of an account, None when there is none. Raises StoreError."""
        try:
            profile = await self._server.users.profile(prepare_localpart(username))
        except ValueError:  # no account can have this name: it is treated as an unknown one
            return None
        return Credentials(profile.account.keys, profile.account.enabled) if profile is not None else None

    async def tokens(self, username: str, agent: str) -> list[Token]:
        """The tokens of one client of an account. Raises StoreError."""
        agent = agent_key(agent)
        secret = self._server.secret
        return [
            Token(
                row.mechanism,
                row.nonce,
                make_token(secret, username, agent, row.mechanism, row.nonce),
                row.expires,
                row.count,
                row.fresh,
            )
            for row in await self._store.tokens.of(username, agent)
        ]

    async def establish(
        self, link: Link, event: Establish, address: str, transport: str
    ) -> tuple[Session | None, Established]:
        """Do what the client wants beside its login; the session writes to ``link``, which must hold that back.

        Where a session was resumed, the caller must answer before it waits for anything (see `Resumption.resume`).
        Raises SaslError when the client is not let in after all, StreamError, StoreError.
        """
        user = await self._server.users.load(event.username)
        if user is None or not user.enabled:
            raise SaslError("account-disabled", "this account is disabled")
        outcome = Established()
        if event.token is not None:
            await self._use_token(user, event)
        if event.agent is not None:
            await self._note_device(user, event.agent, event.device)
        mechanism = event.new_token or self._rotated(event)
        if mechanism is not None and event.agent is not None:
            outcome.token = await self._new_token(user, agent_key(event.agent), mechanism)
        if event.resume is not None:
            try:
                session = await self._server.resume(link, event.username, *event.resume)
            except HandledCountTooHigh:  # one is bound instead (XEP-0386, section 3.2)
                session = None
            if session is not None:
                outcome.jid = session.jid
                outcome.resumed = session.durable(self._store.committer.committed)
                outcome.sm = True
                return session, outcome
            outcome.handled = await self._server.resumption.handled(event.username, event.resume[0])
        if event.bind is None:
            return None, outcome
        return await self._bind(link, event, event.bind, outcome, address, transport), outcome

    async def _note_device(self, user: User, agent: str, name: str) -> None:
        client = client_of(user.username, agent, self._server.secret)
        limit = self._server.config.limits.devices
        if not await self._store.devices.note(user.id, agent_key(agent), client, name, limit):
            self._server.counts.limits_hit["devices"] += 1

    # tokens

    async def _use_token(self, user: User, event: Establish) -> None:
        token, count = event.token, event.count or 0
        changes = token.fresh or count
        if changes and not await self._store.tokens.use(user.id, agent_key(event.agent), token.nonce, count):
            raise SaslError("not-authorized", "that token is not valid")
        if event.invalidate:
            await self._store.tokens.invalidate(user.id, token.nonce)

    def _rotated(self, event: Establish) -> str | None:
        """The mechanism for which a token that is used is replaced (XEP-0484, section 3.5), None: not yet."""
        token = event.token
        if token is None or event.invalidate:
            return None
        left = token.expires - time.time()
        return token.mechanism if left < self._server.config.sasl.token_days * 86_400 - ROTATE_SECONDS else None

    async def _new_token(self, user: User, agent: str, mechanism: str) -> tuple[str, str]:
        nonce = secrets.token_bytes(16)
        expires = int(time.time()) + self._server.config.sasl.token_days * 86_400
        row = TokenRow(agent, True, mechanism, nonce, expires, 0)
        if not await self._store.tokens.issue(user.id, row, self._server.config.limits.token_clients):
            self._server.counts.limits_hit["token_clients"] += 1
        token = make_token(self._server.secret, user.username, agent, mechanism, nonce)
        return token.decode(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires))

    # Bind 2 (XEP-0386)

    async def _bind(
        self, link: Link, event: Establish, bind: Bind2, outcome: Established, address: str, transport: str
    ) -> Session:
        server = self._server
        answers: list[bytes] = []
        prepare = self._features(bind, outcome, answers)
        try:
            session = await server.bind(link, event.username, bind.resource, address, transport, prepare)
        except StanzaError as error:
            server.counts.refused(error)
            raise SaslError("temporary-auth-failure", error.text) from error
        self._end_earlier(session, bind.client)
        try:
            for handler in server.bound:
                answers.append(await handler(session))
        except BaseException:
            await server.end_session(session)
            raise
        outcome.jid = session.jid
        outcome.bound = b"".join(answers)
        return session

    def _features(self, bind: Bind2, outcome: Established, answers: list[bytes]) -> Callable[[Session], None]:
        """Switch on what was asked for, before anybody sees the session; what is not known is ignored."""

        def prepare(session: Session) -> None:
            for element in bind.features:
                if element.tag == sm.ENABLE and session.sm is None:
                    sm_id = self._server.enable_sm(session, sm.wants_resumption(element))
                    answers.append(sm.enabled(sm_id, self._server.config.limits.resume_seconds))
                    outcome.sm = True
                elif element.tag in self._server.inline:
                    self._server.inline[element.tag](session, element)

        return prepare

    def _end_earlier(self, session: Session, client: str) -> None:
        """End the sessions that the same client has left behind under another tag (section 3.2)."""
        for entry in list(self._server.registry.of(session.entry.bare).values()):
            other = entry.resource
            if client and other != session.entry.resource and (other == client or other.endswith(f"/{client}")):
                kick = Kick(entry.bare, other, entry.uid, "conflict", "The same client has a new session.")
                self._server.registry.tell(entry.worker, kick)

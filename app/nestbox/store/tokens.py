"""Tokens of FAST (XEP-0484): for each client of an account the one in use, and a fresh one that may take its place."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from nestbox.store.database import Database
from nestbox.store.reader import Lookup, Reader, text
from nestbox.store.schema import tokens
from nestbox.store.upsert import upsert

__all__ = ["TokenRow", "Tokens"]

_TOKENS = """
SELECT a.username, t.agent, t.fresh, t.mechanism, t.nonce, t.expires, t.count
FROM accounts a JOIN tokens t ON t.user_id = a.id
WHERE a.enabled AND a.username IN ({}) ORDER BY t.fresh DESC
"""
KEPT_SECONDS = 30 * 86_400  # for how long a client is told that its token has expired, not that it is wrong


@dataclass(slots=True)
class TokenRow:
    """``agent`` says which client, ``nonce`` is what the token is made from; ``expires`` is Unix time in seconds.

    ``fresh`` is a token that was not used yet; ``count`` is the highest of the client's own counter (section 3.4).
    """

    agent: str
    fresh: bool
    mechanism: str
    nonce: bytes
    expires: int
    count: int


class Tokens:
    """Every method may raise StoreError."""

    def __init__(self, database: Database, reader: Reader) -> None:
        self._database = database
        self._tokens = Lookup(reader, _TOKENS)

    async def of(self, username: str, agent: str) -> list[TokenRow]:
        """The tokens of a client, the fresh one first; none of a disabled account."""
        rows = await self._tokens.get(username)
        return [
            TokenRow(agent, bool(fresh), text(mechanism), nonce, expires, count)
            for _, whose, fresh, mechanism, nonce, expires, count in rows
            if text(whose) == agent
        ]

    async def use(self, user_id: int, agent: str, nonce: bytes, count: int) -> bool:
        """Note that a token was used, with this count (0: the client does not count).

        A fresh one takes the place of the one before. False when that cannot be: it was revoked or replaced meanwhile,
        or somebody was quicker with as high a count.
        """
        client = (tokens.c.user_id == user_id) & (tokens.c.agent == agent)
        this = client & (tokens.c.nonce == nonce)
        async with self._database.write() as connection:
            query = select(tokens.c.fresh, tokens.c["count"], tokens.c.expires).where(this).with_for_update()
            row = (await connection.execute(query)).first()
            if row is None or row.expires <= time.time() or (count and count <= row[1]):
                return False
            if row.fresh:
                await connection.execute(delete(tokens).where(client, ~tokens.c.fresh))
            await connection.execute(update(tokens).where(this).values(fresh=False, count=max(count, row[1])))
        return True

    async def issue(self, user_id: int, row: TokenRow, limit: int) -> bool:
        """Give a client a fresh token, in place of one that it has not used.

        False when the account has tokens for more than ``limit`` clients; the one that expires first has lost its own.
        """
        mine = tokens.c.user_id == user_id
        values = {"agent": row.agent, "fresh": True, "mechanism": row.mechanism, "nonce": row.nonce}
        values |= {"user_id": user_id, "expires": row.expires, "count": 0}
        async with self._database.write() as connection:
            await connection.execute(delete(tokens).where(mine, tokens.c.expires < int(time.time()) - KEPT_SECONDS))
            await connection.execute(upsert(self._database.kind, tokens, values))
            query = select(tokens.c.agent).where(mine, tokens.c.agent != row.agent).group_by(tokens.c.agent)
            query = query.order_by(func.max(tokens.c.expires).desc(), tokens.c.agent)
            surplus = list((await connection.execute(query)).scalars())[limit - 1 :]
            if surplus:
                await connection.execute(delete(tokens).where(mine, tokens.c.agent.in_(surplus)))
        return not surplus

    async def invalidate(self, user_id: int, nonce: bytes) -> None:
        """End a token at its client's wish (section 3.6)."""
        async with self._database.write() as connection:
            await revoke(connection, user_id, nonce)


async def revoke(connection: AsyncConnection, user_id: int, nonce: bytes | None = None) -> None:
    """In a transaction: make one token of an account, or all, worth nothing."""
    now = int(time.time())
    which = tokens.c.user_id == user_id
    if nonce is not None:
        which &= tokens.c.nonce == nonce
    await connection.execute(update(tokens).where(which, tokens.c.expires > now).values(expires=now))

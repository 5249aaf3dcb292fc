"""Invitations: who may make an account, and whose contact that makes them (XEP-0401, XEP-0379).

All times are Unix times in seconds.
"""

from __future__ import annotations

import builtins
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Row, delete, func, insert, select, update

from nestbox.store.accounts import insert_accounts
from nestbox.store.database import Database
from nestbox.store.errors import AccountExists, StoreError, StoreFull
from nestbox.store.passwords import ScramKeys
from nestbox.store.schema import accounts, invites

__all__ = ["Invite", "InviteGone", "Invites", "new_token"]

_ALPHABET = string.ascii_letters + string.digits


def new_token() -> str:
    """A token of 142 bits, of letters and digits as XEP-0401, section 4.1 has it."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(24))


class InviteGone(StoreError):
    """The invitation was used up or taken back."""


@dataclass(slots=True)
class Invite:
    """An invitation of ``user_id`` (``inviter`` by name; both None: of the operator).

    ``registers``: it is good for an account, of the name ``username`` where that is not empty. ``contact``: it makes
    inviter and invited each other's contacts.
    """

    token: str
    user_id: int | None
    username: str
    registers: bool
    contact: bool
    uses_left: int
    created: int
    expires: int
    inviter: str | None = None

    def is_open(self, now: float) -> bool:
        """Whether it can still be used."""
        return self.uses_left > 0 and self.expires > now


class Invites:
    """Every method may raise StoreError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, invite: Invite, limit: int | None = None) -> None:
        """Enter an invitation. Raises StoreFull beyond ``limit`` open ones of its inviter, AccountExists."""
        async with self._database.write() as connection:
            if limit is not None:
                # Those of one inviter wait for each other here, or two could share the last place.
                query = select(accounts.c.id).where(accounts.c.id == invite.user_id).with_for_update()
                await connection.execute(query)
                mine = (invites.c.user_id == invite.user_id) & _open(invite.created)
                if (await connection.execute(select(func.count()).where(mine))).scalar_one() >= limit:
                    raise StoreFull(f"You have {limit} open invitations.", limit="open_invites")
            if invite.username:
                taken = select(accounts.c.id).where(accounts.c.username == invite.username)
                kept = select(invites.c.token).where(invites.c.username == invite.username, _open(invite.created))
                for query in (taken, kept):
                    if (await connection.execute(query)).first() is not None:
                        raise AccountExists(f"The name {invite.username} is taken.")
            columns = invites.c.keys()
            await connection.execute(insert(invites).values({name: getattr(invite, name) for name in columns}))

    async def get(self, token: str) -> Invite | None:
        """An invitation by its token, open or not."""
        async with self._database.read() as connection:
            row = (await connection.execute(_QUERY.where(invites.c.token == token))).first()
        return None if row is None else _invite(row)

    async def list(self, now: int) -> builtins.list[Invite]:
        """All open invitations, the newest first."""
        query = _QUERY.where(_open(now)).order_by(invites.c.created.desc(), invites.c.token)
        async with self._database.read() as connection:
            return [_invite(row) for row in await connection.execute(query)]

    async def revoke(self, token: str) -> bool:
        """Take an invitation back; False when there is none."""
        async with self._database.write() as connection:
            return (await connection.execute(delete(invites).where(invites.c.token == token))).rowcount > 0

    async def reserved(self, username: str, now: int, but: str = "") -> bool:
        """Whether a name is kept for whoever comes with an open invitation other than ``but``."""
        query = select(invites.c.token).where(invites.c.username == username, invites.c.token != but, _open(now))
        async with self._database.read() as connection:
            return (await connection.execute(query)).first() is not None

    async def use(self, token: str) -> bool:
        """Use an invitation once; False when it was used up or taken back. When it ends is for the caller to see."""
        async with self._database.write() as connection:
            return (await connection.execute(_use(token))).rowcount > 0

    async def register(self, token: str, username: str, keys: Mapping[str, ScramKeys]) -> None:
        """Use an invitation for an account of a prepared name: both or neither. Raises InviteGone, AccountExists."""
        async with self._database.write() as connection:
            if not (await connection.execute(_use(token))).rowcount:
                raise InviteGone("This invitation was used already.")
            if await insert_accounts(connection, {username: keys}):
                raise AccountExists(f"There is already a user {username}.")

    async def forget(self, before: int) -> None:
        """Remove those that ended before a time."""
        async with self._database.write() as connection:
            await connection.execute(delete(invites).where(invites.c.expires < before))


_QUERY = select(invites, accounts.c.username.label("inviter")).outerjoin_from(invites, accounts)


def _open(now: int) -> ColumnElement[bool]:
    return (invites.c.uses_left > 0) & (invites.c.expires > now)


def _use(token: str) -> object:
    statement = update(invites).where(invites.c.token == token, invites.c.uses_left > 0)
    return statement.values(uses_left=invites.c.uses_left - 1)


def _invite(row: Row[tuple[object, ...]]) -> Invite:
    return Invite(**row._mapping)

"""All that a login needs of an account, in one statement."""

from __future__ import annotations

import json
from dataclasses import dataclass

from nestbox.store.accounts import Account
from nestbox.store.archive import Prefs
from nestbox.store.passwords import ScramKeys
from nestbox.store.push import Registration
from nestbox.store.reader import Lookup, Reader, Row, text

__all__ = ["Profile", "Profiles"]

_HASHES = ("SHA-1", "SHA-256", "SHA-512")
_KEYS = ", ".join(f"k{n}.salt, k{n}.iterations, k{n}.stored_key, k{n}.server_key" for n in range(len(_HASHES)))
_JOINS = " ".join(
    f"LEFT JOIN credentials k{n} ON k{n}.user_id = a.id AND k{n}.hash = '{name}'" for n, name in enumerate(_HASHES)
)
_STATEMENT = f"""
SELECT a.username, a.id, a.enabled, a.created, a.photo, p.prefs_json,
  EXISTS (SELECT 1 FROM blocking b WHERE b.user_id = a.id),
  EXISTS (SELECT 1 FROM push s WHERE s.user_id = a.id),
  EXISTS (SELECT 1 FROM offline o WHERE o.user_id = a.id),
  EXISTS (SELECT 1 FROM roster_requests q WHERE q.user_id = a.id),
  EXISTS (SELECT 1 FROM roster r WHERE r.user_id = a.id AND r.subscription <> 'remove'), a.roster_ver,
  {_KEYS}
FROM accounts a LEFT JOIN archive_prefs p ON p.user_id = a.id {_JOINS}
WHERE a.username IN ({{}})
"""  # noqa: S608 (made of the constants above)
_BLOCKED = "SELECT user_id, jid FROM blocking WHERE user_id IN ({})"
_PUSHES = "SELECT user_id, jid, node, resource, options FROM push WHERE user_id IN ({})"
_FIRST_KEY = 12  # column


@dataclass(slots=True)
class Profile:
    """An account with its keys; ``offline`` and ``requests`` say whether messages, or asking contacts, wait for it.

    ``empty_roster`` is the version of its roster when that has no contacts, else None.
    """

    account: Account
    prefs: Prefs
    blocked: frozenset[str]
    pushes: tuple[Registration, ...]
    offline: bool
    requests: bool
    empty_roster: int | None


class Profiles:
    """May raise StoreError."""

    def __init__(self, reader: Reader) -> None:
        self._profiles = Lookup(reader, _STATEMENT)
        self._blocked = Lookup(reader, _BLOCKED)
        self._pushes = Lookup(reader, _PUSHES)

    async def get(self, username: str) -> Profile | None:
        """The profile of a prepared username, None when there is no account."""
        rows = await self._profiles.get(username)
        if not rows:
            return None
        row = rows[0]
        _, user_id, enabled, created, photo, prefs, blocks, pushes, offline, requests, roster, version = row[
            :_FIRST_KEY
        ]
        account = Account(user_id, username, bool(enabled), created, _keys(row), text(photo or ""))
        blocked = await self._blocked.get(user_id) if blocks else ()
        registered = await self._pushes.get(user_id) if pushes else ()
        return Profile(
            account,
            Prefs(**json.loads(prefs)) if prefs is not None else Prefs(),
            frozenset(text(jid) for _, jid in blocked),
            tuple(Registration(*map(text, names), options) for _, *names, options in registered),
            bool(offline),
            bool(requests),
            None if roster else version,
        )


def _keys(row: Row) -> dict[str, ScramKeys]:
    keys = {}
    for index, name in enumerate(_HASHES):
        start = _FIRST_KEY + 4 * index
        if row[start] is not None:
            keys[name] = ScramKeys(*row[start : start + 4])
    return keys

"""The devices that an account is used on: clients that say which one they are (XEP-0388, section 2.3)."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import delete, func, select

from nestbox.store.database import Database
from nestbox.store.schema import devices, tokens
from nestbox.store.upsert import upsert

__all__ = ["Device", "Devices"]

SEEN_SECONDS = 3600  # how exact `Device.seen` is: a login more often than this writes nothing


@dataclass(slots=True)
class Device:
    """``agent`` stands for the client's id, ``client`` for it in the resources of its sessions.

    ``name`` is what it calls itself and what it runs on.

    ``seen`` is the Unix time of its last login, ``expires`` that of the end of its token, 0 without one.
    """

    agent: str
    client: str
    name: str
    seen: int
    expires: int = 0


class Devices:
    """Every method may raise StoreError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def note(self, user_id: int, agent: str, client: str, name: str, limit: int) -> bool:
        """Remember a login. False when there are more than ``limit``; the one not seen for longest is forgotten."""
        now = int(time.time())
        mine = devices.c.user_id == user_id
        query = select(devices.c.name, devices.c.seen).where(mine, devices.c.agent == agent)
        async with self._database.read() as connection:
            known = (await connection.execute(query)).first()
        if known is not None and known.name == name and now - known.seen < SEEN_SECONDS:
            return True
        row = {"user_id": user_id, "agent": agent, "client": client, "name": name, "seen": now}
        async with self._database.write() as connection:
            await connection.execute(upsert(self._database.kind, devices, row))
            query = select(devices.c.agent).where(mine, devices.c.agent != agent)
            query = query.order_by(devices.c.seen.desc(), devices.c.agent)
            surplus = list((await connection.execute(query)).scalars())[limit - 1 :]
            if surplus:
                await connection.execute(delete(devices).where(mine, devices.c.agent.in_(surplus)))
        return not surplus

    async def of(self, user_id: int) -> list[Device]:
        """An account's devices, the one seen last first."""
        token = select(tokens.c.agent, func.max(tokens.c.expires).label("expires"))
        token = token.where(tokens.c.user_id == user_id).group_by(tokens.c.agent).subquery()
        query = select(devices, token.c.expires).outerjoin(token, token.c.agent == devices.c.agent)
        query = query.where(devices.c.user_id == user_id).order_by(devices.c.seen.desc(), devices.c.agent)
        now = time.time()
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [
            Device(row.agent, row.client, row.name, row.seen, row.expires if (row.expires or 0) > now else 0)
            for row in rows
        ]

    async def remove(self, user_id: int, agent: str) -> bool:
        """Forget a device with its tokens, so that none of them lets anybody in; False when there is no such device."""
        async with self._database.write() as connection:
            await connection.execute(delete(tokens).where(tokens.c.user_id == user_id, tokens.c.agent == agent))
            gone = await connection.execute(
                delete(devices).where(devices.c.user_id == user_id, devices.c.agent == agent)
            )
        return gone.rowcount > 0

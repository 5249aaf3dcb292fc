"""What a log-in costs the worker: connect, SCRAM-SHA-1, bind, roster get, initial presence (bench/run.py prints it).

Once with an empty roster, and once with 200 contacts of whom 100 are online, so that presence goes to and comes from
all of those. Each is measured on a worker that has just started, and again when it knows the accounts.
"""

from __future__ import annotations

import asyncio

from load import Client, cpu_seconds, log_in
from nestbox.store import open_store
from nestbox.store.schema import roster
from sqlalchemy import insert

__all__ = ["CONTACTS", "fill_rosters", "measure_logins"]

CONTACTS = 200
ONLINE = 100


async def fill_rosters(url: str, names: list[str], contacts: list[str], domain: str) -> None:
    """Give each account the same contacts, subscribed both ways; whose rosters do not matter here."""
    store = await open_store(url)
    for name in names:
        account = await store.accounts.get(name)
        rows = [
            {
                "user_id": account.id,
                "jid": f"{contact}@{domain}",
                "name": f"Contact {contact}".encode(),
                "subscription": "both",
                "ask": False,
                "approved": False,
                "groups_json": b'["Friends"]',
                "ver": 1,
            }
            for contact in contacts
        ]
        async with store.database.write() as connection:
            await connection.execute(insert(roster), rows)
    await store.close()


async def measure_logins(pid: int, address: str, domain: str, password: str, count: int, **how: bool) -> list[float]:
    """Milliseconds of CPU of one log-in: empty roster, the same again, full roster, the same again.

    ``count`` accounts named u0, u1 ... log in, then a tenth as many named t0, t1 ... that `fill_rosters` was given.
    """

    async def cost(names: list[str]) -> tuple[float, list[Client]]:
        before = cpu_seconds(pid)
        clients = await log_in(names, password, domain, address, **how)
        await asyncio.sleep(2.5)  # a worker looks for offline messages a moment later, too
        return (cpu_seconds(pid) - before) * 1e3 / len(names), clients

    async def twice(names: list[str]) -> list[float]:
        figures = []
        for _ in range(2):
            figure, clients = await cost(names)
            figures.append(figure)
            for client in clients:
                client.close()
            await asyncio.sleep(1)
        return figures

    await asyncio.sleep(1)
    plain = await twice([f"u{number}" for number in range(count)])
    online = await log_in([f"u{number}" for number in range(ONLINE)], password, domain, address, **how)
    full = await twice([f"t{number}" for number in range(count // 10)])
    for client in online:
        client.close()
    return plain + full

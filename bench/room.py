"""A room with many occupants: they enter, then some of them talk to all."""

from __future__ import annotations

import asyncio
import time

from chat import TEXT, percentile
from load import Client

__all__ = ["enter", "talk"]


async def enter(clients: list[Client], room: str) -> None:
    """Everybody enters a room of that address; the first one sets it up."""
    for number, client in enumerate(clients):
        client.send_stanza(
            f"<presence to='{room}/{client.user}'><x xmlns='http://jabber.org/protocol/muc'/></presence>"
        )
        await client.expect(rb"<subject.*?</message>")
        if number == 0:
            client.send_stanza(
                f"<iq type='set' id='setup' to='{room}'><query xmlns='http://jabber.org/protocol/muc#owner'>"
                "<x xmlns='jabber:x:data' type='submit'/></query></iq>"
            )
            await client.expect(rb"setup")


async def talk(clients: list[Client], room: str, rate: float, seconds: float) -> dict[str, float]:
    """Occupants take turns at ``rate`` messages per second in all, 60 bytes of text each; everybody gets each.

    Returns the stanzas that were due and those that came, the median and the 99th percentile of the latency in ms.
    """
    latencies: list[int] = []
    for client in clients:
        client.on_message = lambda sent: latencies.append(time.monotonic_ns() - sent)
    begin = time.monotonic()
    sent = 0
    while (now := time.monotonic() - begin) < seconds:
        while sent < now * rate:
            clients[sent % len(clients)].send_stanza(
                f"<message to='{room}' type='groupchat' id='m{sent}'>"
                f"<body>{time.monotonic_ns()} {TEXT}</body></message>"
            )
            sent += 1
        await asyncio.sleep(max(0.0, sent / rate - (time.monotonic() - begin)))
    due = sent * len(clients)
    deadline = time.monotonic() + 10
    while len(latencies) < due and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    for client in clients:
        client.on_message = None
    latencies.sort()
    received = len(latencies)
    return {"due": due, "lost": due - received, "p50": percentile(latencies, 50), "p99": percentile(latencies, 99)}

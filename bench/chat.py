"""Messages between two people: at a steady rate, and as fast as they go."""

from __future__ import annotations

import asyncio
import time

from load import Client

__all__ = ["TEXT", "FlatOut", "percentile", "steady"]

TEXT = "x" * 60  # with the time of sending 80 bytes


def percentile(sorted_ns: list[int], percent: int) -> float:
    """Of nanoseconds, in milliseconds; not a number where there are none."""
    return sorted_ns[len(sorted_ns) * percent // 100] / 1e6 if sorted_ns else float("nan")


async def steady(clients: list[Client], rate: float, seconds: float) -> dict[str, float]:
    """Pairs of clients chat in an open loop at ``rate`` messages per second in all, 80 bytes of text each.

    Returns the messages sent and received, the median and the 99th percentile of the latency in milliseconds.
    """
    latencies: list[int] = []
    for client in clients:
        client.on_message = lambda sent: latencies.append(time.monotonic_ns() - sent)
    begin = time.monotonic()
    sent = 0
    while (now := time.monotonic() - begin) < seconds:
        while sent < now * rate:
            one = (sent * 2) % (len(clients) - 1)
            one -= one % 2
            clients[one].send(clients[one].message(clients[one + 1].user, TEXT))
            sent += 1
        await asyncio.sleep(max(0.0, sent / rate - (time.monotonic() - begin)))
    deadline = time.monotonic() + 5
    while len(latencies) < sent and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    for client in clients:
        client.on_message = None
    latencies.sort()
    received = len(latencies)
    return {"sent": sent, "lost": sent - received, "p50": percentile(latencies, 50), "p99": percentile(latencies, 99)}


class _Pair:
    """A sender who has ``in_flight`` messages under way at any time; what arrives together is answered in one write."""

    def __init__(self, sender: Client, receiver: Client, in_flight: int) -> None:
        self.sender = sender
        self.received = 0
        self.going = True
        self._frame = sender.framed(sender.message(receiver.user, TEXT))
        self._owed = 0
        receiver.on_message = self._arrived
        sender.write(self._frame * in_flight)

    def _arrived(self, _sent: int) -> None:
        self.received += 1
        if not self._owed:
            asyncio.get_running_loop().call_soon(self._answer)
        self._owed += 1

    def _answer(self) -> None:
        owed, self._owed = self._owed, 0
        if self.going:
            self.sender.write(self._frame * owed)


class FlatOut:
    """Pairs of clients who chat as fast as the server lets them, until `stop`."""

    def __init__(self, clients: list[Client], pairs: int = 200, in_flight: int = 4) -> None:
        self._clients = clients[: 2 * pairs]
        self._pairs = [_Pair(a, b, in_flight) for a, b in zip(self._clients[::2], self._clients[1::2], strict=True)]

    @property
    def received(self) -> int:
        """Messages that have arrived."""
        return sum(pair.received for pair in self._pairs)

    async def stop(self) -> None:
        """Send no more, and wait for what is under way."""
        for pair in self._pairs:
            pair.going = False
        before = -1
        while before != self.received:
            before = self.received
            await asyncio.sleep(0.5)
        for client in self._clients:
            client.on_message = None

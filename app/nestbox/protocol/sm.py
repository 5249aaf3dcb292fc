"""Stream management: what was sent and is not acknowledged yet, and how both sides say so (XEP-0198)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from nestbox import Xep
from nestbox.core.errors import StreamError
from nestbox.wire import ns
from nestbox.wire.element import Element, escape_attribute

__all__ = ["ENABLE", "AckQueue", "HandledCountTooHigh", "enabled", "failed", "resumed", "unsigned", "wants_resumption"]

ENABLE = f"{{{ns.SM}}}enable"

XEPS = (Xep(198, "1.6.3"),)

_WRAP = 2**32  # h is an unsignedInt that begins again at 0
_LENIENT = 100_000  # stanzas that a worker may have sent unseen; more is a client's mistake


class HandledCountTooHigh(StreamError):
    """The peer claims to have handled more than it was sent (XEP-0198, section 6); ``extra`` goes into the error."""

    def __init__(self, h: int, sent: int) -> None:
        super().__init__("undefined-condition", f"you acknowledged {h} stanzas, but got {sent}")
        self.extra = f"<handled-count-too-high xmlns='urn:xmpp:sm:3' h='{h}' send-count='{sent}'/>".encode()


class AckQueue:
    """Stanzas that the peer has not acknowledged, oldest first; ``acked`` is its last ``h``, ``size`` counts bytes.

    ``recovered`` is set for a queue that went on without its worker: how many of its stanzas are from before that. The
    peer may have been sent more, and its first ``h`` counts those, too, but none of the stanzas that came since.
    """

    __slots__ = ("_max_bytes", "_max_stanzas", "_queue", "acked", "recovered", "size")

    def __init__(self, max_stanzas: int = 1000, max_bytes: int = 4 * 1024 * 1024) -> None:
        self._max_stanzas = max_stanzas
        self._max_bytes = max_bytes
        self.restore(0, ())

    def restore(self, acked: int, queue: Iterable[bytes]) -> None:
        """Go on where another queue, with this ``acked`` and these ``unacked()``, left off."""
        self._queue = deque(queue)
        self.recovered: int | None = None
        self.size = sum(map(len, self._queue))
        self.acked = acked % _WRAP

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._queue)

    @property
    def sent(self) -> int:
        """How many stanzas were sent so far, modulo 2**32."""
        return (self.acked + len(self._queue)) % _WRAP

    def push(self, data: bytes) -> bool:
        """Remember a stanza that is being sent. False when the queue is over its limits: end the session, and
        deliver ``unacked()`` elsewhere."""
        self._queue.append(data)
        self.size += len(data)
        return len(self._queue) <= self._max_stanzas and self.size <= self._max_bytes

    def ack(self, h: int) -> int:
        """Forget what the peer has handled; ``h`` counts from the beginning, modulo 2**32. Returns how many that were.

        Raises HandledCountTooHigh when it never got that many.
        """
        count = (h - self.acked) % _WRAP
        queue, recovered = self._queue, self.recovered
        if recovered is not None and count <= _LENIENT:
            count = min(count, recovered)
        self.recovered = None
        if count > len(queue):
            raise HandledCountTooHigh(h, self.sent)
        for _ in range(count):
            self.size -= len(queue.popleft())
        self.acked = h
        return count

    def unacked(self) -> list[bytes]:
        """What must be sent again, oldest first."""
        return list(self._queue)


# on the wire


def unsigned(text: str | None) -> int | None:
    """An xs:unsignedInt, None when it is none."""
    if text and text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < _WRAP:
        return int(text)
    return None


def wants_resumption(enable: Element) -> bool:
    """Whether ``<enable/>`` asks for a session that can be resumed."""
    return enable.get("resume") in ("true", "1")


def enabled(id: str | None, max: int | None, location: str | None = None) -> bytes:
    """``<enabled/>``; see `Stream.sm_enabled`."""
    xml = f"<enabled xmlns='{ns.SM}'"
    if id is not None:
        xml += f' id="{escape_attribute(id)}" resume="true"'
        xml += f' max="{max}"' if max is not None else ""
        xml += f' location="{escape_attribute(location)}"' if location else ""
    return f"{xml}/>".encode()


def resumed(previd: str, h: int) -> bytes:
    """``<resumed/>``."""
    return f"<resumed xmlns='{ns.SM}' previd=\"{escape_attribute(previd)}\" h='{h}'/>".encode()


def failed(condition: str, h: int | None = None) -> bytes:
    """``<failed/>`` with a stanza error's condition."""
    handled = f" h='{h}'" if h is not None else ""
    return f"<failed xmlns='{ns.SM}'{handled}><{condition} xmlns='{ns.STANZA_ERRORS}'/></failed>".encode()

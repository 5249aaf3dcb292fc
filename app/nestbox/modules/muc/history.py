"""What was said last, for those who enter (XEP-0045, sections 7.2.13 and 7.2.14)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from xml.etree.ElementTree import XML

from nestbox.core.delay import delayed
from nestbox.core.errors import StanzaError
from nestbox.core.ids import id_to_ms
from nestbox.modules.archive_query import milliseconds
from nestbox.wire import ns
from nestbox.wire.element import Element

__all__ = ["History", "is_subject", "without_jid", "worth_showing"]

HISTORY = f"{{{ns.MUC}}}history"
_BYTES = 256 * 1024  # of all that a room remembers
_END = b"</message>"
_REAL = f'<x xmlns="{ns.MUC_USER}"><item '.encode()
_ALONE = frozenset((f"{{{ns.RETRACT}}}retract", f"{{{ns.RETRACT}}}retracted"))
_SUBJECT, _BODY, _THREAD = "{jabber:client}subject", "{jabber:client}body", "{jabber:client}thread"


def without_jid(row: bytes) -> bytes:
    """A row of the archive without the sender's real address, which we put at its end."""
    at = row.rfind(_REAL)
    return row if at < 0 else row[:at] + _END


class History:
    """The last messages by id, as they were sent; ``limit`` is their number."""

    def __init__(self, limit: int) -> None:
        self._messages: deque[tuple[int, bytes]] = deque()
        self._limit = limit
        self._size = 0

    def add(self, message_id: int, data: bytes) -> None:
        """Remember a message."""
        self._messages.append((message_id, data))
        self._size += len(data)
        while len(self._messages) > self._limit or (self._size > _BYTES and len(self._messages) > 1):
            self._size -= len(self._messages.popleft()[1])

    def load(self, rows: Iterable[tuple[int, bytes]]) -> None:
        """Remember rows of the archive that are worth showing, oldest first."""
        for message_id, row in rows:
            data = without_jid(row)
            element = XML(b'<stream xmlns="jabber:client">' + data + b"</stream>")[0]
            if worth_showing(element):
                self.add(message_id, data)

    def forget(self, message_id: int) -> None:
        """A message was retracted."""
        for found in [each for each in self._messages if each[0] == message_id]:
            self._messages.remove(found)
            self._size -= len(found[1])

    def since(self, message_id: int) -> list[bytes]:
        """The messages after one, as they were sent."""
        return [data for each, data in self._messages if each > message_id]

    def chosen(self, room: str, x: Element | None, most: int) -> list[bytes]:
        """The messages for somebody who enters with this ``<x/>``, which may ask for fewer than the room's ``most``."""
        request = x.find(HISTORY) if x is not None else None
        chosen = list(self._messages)
        if request is None:
            return [delayed(data, room, id_to_ms(each)) for each, data in chosen[-most:]] if most else []
        since = 0
        if request.get("since"):
            since = milliseconds(request.get("since"))
        seconds = _number(request, "seconds")
        if seconds is not None:
            since = max(since, int((time.time() - seconds) * 1000))
        chosen = [each for each in chosen if id_to_ms(each[0]) >= since]
        stanzas, characters = _number(request, "maxstanzas"), _number(request, "maxchars")
        wanted = min(len(chosen), most if stanzas is None else min(stanzas, most))
        chosen = chosen[len(chosen) - wanted :]
        found = [delayed(data, room, id_to_ms(each)) for each, data in chosen]
        if characters is not None:
            for count, data in enumerate(reversed(found)):
                characters -= len(data.decode())
                if characters < 0:
                    return found[len(found) - count :]
        return found


def is_subject(message: Element) -> bool:
    """Whether a message changes the room's subject (section 8.1): with a body or a thread it is one like any other."""
    return message.find(_SUBJECT) is not None and message.find(_BODY) is None and message.find(_THREAD) is None


def worth_showing(message: Element) -> bool:
    """Whether a message tells newcomers something: not a change of the subject, nor what is left of a retracted one."""
    return not is_subject(message) and not any(child.tag in _ALONE for child in message)


def _number(request: Element, name: str) -> int | None:
    text = request.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise StanzaError("bad-request", f"{name} is a number.")
    return int(text[:9])

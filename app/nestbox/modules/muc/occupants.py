"""Who is in a room: occupants, and the seats that their sessions have.

An account may be in a room with several sessions under one nick (XEP-0045, section 7.2.8): they are one occupant with
one role, and the presence that the others see is that of the session which spoke last.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

import msgspec

from nestbox.modules.muc.fanout import to_attribute

__all__ = ["Occupant", "Record", "Seat"]


class Record(msgspec.Struct, array_like=True):
    """A seat as the bus keeps it, for the worker that takes the room over.

    ``uid`` is the session's (`Entry.uid`), 0 for an address of a component, which is there until an error comes back
    from it; ``away_since`` is Unix time in seconds, 0 while its session is there, and
    ``missed`` then the id before the first message of the archive that it has not got.
    """

    nick: str
    role: str
    uid: int
    presence: bytes
    away_since: int = 0
    missed: int = 0


@dataclass(slots=True, eq=False)
class Seat:
    """A session in the room; ``presence`` are the children of its last presence, ``to`` its address for the fan-out."""

    full: str
    bare: str
    resource: str
    uid: int
    presence: bytes
    occupant: Occupant
    to: bytes = b""
    away_since: int = 0
    missed: int = 0

    def __post_init__(self) -> None:
        self.to = to_attribute(self.full)

    def record(self) -> bytes:
        """What the bus keeps."""
        occupant = self.occupant
        record = Record(occupant.nick, occupant.role, self.uid, self.presence, self.away_since, self.missed)
        return msgspec.msgpack.encode(record)


@dataclass(slots=True, eq=False)
class Occupant:
    """A nick in the room. ``jid`` is room@host/nick; ``id_bytes`` and ``id_element`` its occupant id (XEP-0421).

    ``seats`` are in the order in which they last spoke; ``told`` remembers its presence as last written, with and
    without the real address.
    """

    nick: str
    jid: str
    bare: str
    role: str
    id_element: Element
    id_bytes: bytes
    seats: dict[str, Seat] = field(default_factory=dict)
    told: dict[bool, bytes] = field(default_factory=dict)

    @property
    def first(self) -> Seat:
        """The seat whose presence stands for the occupant."""
        return next(reversed(self.seats.values()))

    def spoke(self, seat: Seat) -> None:
        """A seat has sent presence: it stands for the occupant now."""
        self.seats.pop(seat.full, None)
        self.seats[seat.full] = seat
        self.told.clear()

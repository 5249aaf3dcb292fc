"""An account's devices and the sessions they have: who uses it, and how one of them is logged out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestbox.core.registry import Kick

if TYPE_CHECKING:
    from nestbox.core.registry import Entry
    from nestbox.store import Device

__all__ = ["belongs", "farewell"]


def belongs(entry: Entry, device: Device) -> bool:
    """Whether a session is this device's: Bind 2 gave it a resource that ends with what stands for its id."""
    return entry.resource == device.client or entry.resource.endswith(f"/{device.client}")


def farewell(entry: Entry) -> Kick:
    """What ends the session of a device that is logged out; nothing of it can be resumed afterwards."""
    return Kick(entry.bare, entry.resource, entry.uid, "not-authorized", "This device was logged out.")

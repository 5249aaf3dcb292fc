"""What a room writes, as canonical bytes without ``to``: presences with their item, messages with status codes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nestbox.modules.muc.config import Hat
from nestbox.wire import ns
from nestbox.wire.element import escape, escape_attribute

__all__ = ["MUC_X", "USER_X", "hats", "item", "message", "presence", "statuses", "user_x"]

MUC_X = f"{{{ns.MUC}}}x"
USER_X = f"{{{ns.MUC_USER}}}x"


def item(
    affiliation: str,
    role: str | None = None,
    *,
    jid: str | None = None,
    nick: str | None = None,
    actor: str | None = None,
    reason: str | None = None,
) -> str:
    """An ``<item/>`` for a place whose namespace is that of muc#user; ``actor`` is a nick."""
    parts = [f'<item affiliation="{affiliation}"']
    for name, value in (("role", role), ("jid", jid), ("nick", nick)):
        if value is not None:
            parts.append(f' {name}="{escape_attribute(value)}"')
    inner = "" if actor is None else f'<actor nick="{escape_attribute(actor)}"/>'
    inner += "" if not reason else f"<reason>{escape(reason)}</reason>"
    return "".join(parts) + (f">{inner}</item>" if inner else "/>")


def statuses(codes: Iterable[int]) -> str:
    """The ``<status/>`` elements."""
    return "".join(f'<status code="{code}"/>' for code in codes)


def hats(worn: Mapping[str, Hat]) -> bytes:
    """The ``<hats/>`` of somebody (XEP-0317, section 4.1), by URI; nothing where there are none."""
    inner = ""
    for uri, hat in worn.items():
        hue = f' hue="{escape_attribute(hat.hue)}"' if hat.hue else ""
        inner += f'<hat uri="{escape_attribute(uri)}" title="{escape_attribute(hat.title)}"{hue}/>'
    return f'<hats xmlns="{ns.HATS}">{inner}</hats>'.encode() if inner else b""


def user_x(inner: str) -> bytes:
    """An ``<x/>`` of muc#user."""
    return f'<x xmlns="{ns.MUC_USER}">{inner}</x>'.encode()


def presence(from_: str, inner: bytes, kind: str | None = None) -> bytes:
    """A presence from an occupant or the room."""
    type_ = "" if kind is None else f' type="{kind}"'
    return f'<presence from="{escape_attribute(from_)}"{type_}>'.encode() + inner + b"</presence>"


def message(from_: str, inner: bytes, kind: str | None = "groupchat") -> bytes:
    """A message from the room."""
    type_ = "" if kind is None else f' type="{kind}"'
    return f'<message from="{escape_attribute(from_)}"{type_}>'.encode() + inner + b"</message>"

"""How a command is offered to administrators (XEP-0133, section 4): a form, and what is done with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.modules import dataforms
from nestbox.modules.commands import Answer, Call, Command
from nestbox.modules.dataforms import Field
from nestbox.wire import ns

if TYPE_CHECKING:
    from nestbox.core.server import Server

__all__ = ["Act", "add_command", "note"]

Act = Callable[[Call], Awaitable[Answer]]
Values = Callable[[], Awaitable[dict[str, list[str]]]]


def add_command(
    server: Server, name: str, title: str, act: Act, fields: Iterable[Field] = (), values: Values | None = None
) -> None:
    """Offer ``admin#name`` to administrators: a form with ``fields``, if there are any, and what is done with it.

    ``values`` gives what the fields hold at first.
    """
    node = f"{ns.ADMIN}#{name}"
    admins = frozenset(server.config.admins)
    fields = tuple(fields)

    async def checked(call: Call) -> Answer:
        missing = [field.name for field in fields if field.required and not any(call.values(field.name))]
        if missing:
            raise StanzaError("not-acceptable", f"Fill in {', '.join(missing)}.")
        return await act(call)

    async def ask(call: Call) -> Answer:
        held = await values() if values is not None else {}
        filled = [field._replace(values=held.get(field.name, ())) for field in fields]
        return Answer((dataforms.form(ns.ADMIN, filled, title=title),))

    steps = (ask, checked) if fields else (act,)
    server.commands[node] = Command(node, title, steps, lambda sender: sender.local in admins)


def note(text: str) -> Answer:
    """An answer that is a sentence."""
    return Answer(notes=(("info", text),))

"""Ad-hoc commands (XEP-0050): what the host does for people whose client knows nothing of it but forms.

Other modules put a `Command` into ``server.commands``. A command is a row of steps, each of which answers what the one
before it was given; the last one ends it. A command session is bound to the full JID that began it and lives on the
worker which that client is connected to.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import TYPE_CHECKING

from nestbox.core.errors import StanzaError
from nestbox.modules import Xep, dataforms
from nestbox.modules.disco import FEATURE, IDENTITY, INFO, ITEM, ITEMS
from nestbox.wire import ns
from nestbox.wire.element import Element, el

if TYPE_CHECKING:
    from nestbox.core.hooks import IqContext
    from nestbox.core.jid import JID
    from nestbox.core.server import Server
    from nestbox.core.session import Session

__all__ = ["COMMAND", "XEPS", "Answer", "Call", "Command", "everybody", "setup"]

XEPS = (Xep(50, "1.3.0"),)
COMMAND = f"{{{ns.COMMANDS}}}command"
ACTIONS = ("execute", "next", "prev", "complete", "cancel")
_LANG = f"{{{ns.XML}}}lang"
_LANGUAGE = re.compile(r"[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*").fullmatch


@dataclass(slots=True)
class Call:
    """What a step is given: who asks, and what was submitted to the steps before it, the latest last."""

    sender: JID
    forms: list[dict[str, list[str]]] = field(default_factory=list)

    def value(self, name: str) -> str:
        """The latest value of a field, '' where there is none."""
        values = self.values(name)
        return values[0] if values else ""

    def values(self, name: str) -> list[str]:
        """The latest values of a field of several values."""
        return next((form[name] for form in reversed(self.forms) if name in form), [])


@dataclass(slots=True)
class Answer:
    """What a step shows: payloads, usually a form, and notes as (info, warn or error; text)."""

    payloads: tuple[Element, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()


Step = Callable[[Call], "Answer | Awaitable[Answer]"]


def everybody(sender: JID) -> bool:
    """For a command that any account of ours may use."""
    return True


@dataclass(frozen=True, slots=True)
class Command:
    """A command: where it is found, what it is called, its steps, and who may use it.

    A step that raises StanzaError leaves the command where it was, so that the form can be sent again.
    """

    node: str
    name: str
    steps: tuple[Step, ...]
    allowed: Callable[[JID], bool] = everybody


@dataclass(slots=True)
class _Running:
    command: Command
    call: Call
    touched: float  # the loop's time


class _Commands:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._running: dict[str, dict[str, _Running]] = {}  # by full JID, then by session id
        self._limits = server.config.limits

    # discovery (section 2)

    def node(self, tag: str, node: str, sender: JID) -> Element | None:
        """The disco answer for the list of commands or one of them."""
        commands = self._server.commands
        if node == ns.COMMANDS:
            if tag == INFO:
                return _info(node, "command-list", "Commands")
            found = [command for command in commands.values() if self._may(command, sender)]
            jid = self._server.config.domain
            items = [el(ITEM, {"jid": jid, "node": command.node, "name": command.name}) for command in found]
            return el(ITEMS, {"node": node}, *items)
        command = commands.get(node)
        if command is None:
            return None
        self._check(command, sender)
        return _info(node, "command-node", command.name) if tag == INFO else el(ITEMS, {"node": node})

    def _may(self, command: Command, sender: JID) -> bool:
        return sender.domain == self._server.config.domain and command.allowed(sender)

    def _check(self, command: Command, sender: JID) -> None:
        if not self._may(command, sender):
            raise StanzaError("forbidden", "You may not use this command.")

    # execution (sections 2.4 and 3)

    async def execute(self, context: IqContext) -> Element:
        if context.account is not None and not context.own:
            raise StanzaError("service-unavailable")
        request, sender = context.payload, context.sender
        language = request.get(_LANG) or context.stanza.element.get(_LANG)
        if language and not _LANGUAGE(language):
            raise _bad("bad-locale", "xml:lang is no language.")
        action = request.get("action", "execute")
        if action not in ACTIONS:
            raise _bad("malformed-action", f"An action is one of {', '.join(ACTIONS)}.")
        command = self._server.commands.get(request.get("node", ""))
        if command is None:
            raise StanzaError("item-not-found", "There is no such command.")
        self._check(command, sender)
        if context.session is None:
            raise StanzaError("forbidden", "Commands are for clients of this server.")
        session_id = request.get("sessionid")
        if session_id is None:
            return await self._begin(command, action, request, sender)
        running = self._find(command, session_id, sender)
        if action == "cancel":
            self._end(sender, session_id)
            return _reply(command, session_id, "canceled")
        call = running.call
        if action == "prev":
            if not call.forms:
                raise _bad("bad-action", "This is the first step.")
            forms = call.forms[:-1]
        else:
            usual = _usual_action(command, len(call.forms))
            if action not in ("execute", usual):
                raise _bad("bad-action", f"This step goes on by {usual}.")
            forms = [*call.forms, _form(request)]
        return await self._step(running, session_id, forms)

    async def _begin(self, command: Command, action: str, request: Element, sender: JID) -> Element:
        if action != "execute":
            raise _bad("bad-action", "A command begins by execute.")
        running = _Running(command, Call(sender), 0.0)
        others = self._running.setdefault(str(sender), {})
        for session_id in [known for known, other in others.items() if self._expired(other)]:
            del others[session_id]
        if len(others) >= self._limits.command_sessions:
            text = "Complete or cancel the commands that you have begun."
            raise StanzaError("resource-constraint", text, limit="command_sessions")
        session_id = secrets.token_urlsafe(12)
        others[session_id] = running
        try:
            return await self._step(running, session_id, [])
        except BaseException:
            self._end(sender, session_id)
            raise

    async def _step(self, running: _Running, session_id: str, forms: list[dict[str, list[str]]]) -> Element:
        command, sender, at = running.command, running.call.sender, len(forms)
        call = Call(sender, forms)
        answer = command.steps[at](call)
        if isawaitable(answer):
            answer = await answer
        if at == len(command.steps) - 1:
            self._end(sender, session_id)
            return _reply(command, session_id, "completed", answer)
        running.call = call
        running.touched = asyncio.get_running_loop().time()
        usual = _usual_action(command, at)
        actions = el(f"{{{ns.COMMANDS}}}actions", {"execute": usual})
        if at:
            actions.append(el(f"{{{ns.COMMANDS}}}prev"))
        actions.append(el(f"{{{ns.COMMANDS}}}{usual}"))
        return _reply(command, session_id, "executing", answer, actions)

    def _find(self, command: Command, session_id: str, sender: JID) -> _Running:
        running = self._running.get(str(sender), {}).get(session_id)
        if running is None or running.command is not command:
            raise _bad("bad-sessionid", "You have begun no such command.")
        if self._expired(running):
            self._end(sender, session_id)
            text, expired = "You took too long; begin again.", _condition("session-expired")
            raise StanzaError("not-allowed", text, extra=expired, limit="command_seconds")
        return running

    def _expired(self, running: _Running) -> bool:
        return bool(running.touched) and (
            asyncio.get_running_loop().time() - running.touched > self._limits.command_seconds
        )

    def _end(self, sender: JID, session_id: str) -> None:
        running = self._running.get(str(sender), {})
        running.pop(session_id, None)
        if not running:
            self._running.pop(str(sender), None)

    def forget(self, session: Session) -> None:
        """The client is gone."""
        self._running.pop(session.full, None)


def _info(node: str, kind: str, name: str) -> Element:
    features = (ns.COMMANDS, ns.DATA_FORMS) if kind == "command-node" else (ns.DISCO_INFO, ns.DISCO_ITEMS)
    identity = el(IDENTITY, {"category": "automation", "type": kind, "name": name})
    return el(INFO, {"node": node}, identity, *(el(FEATURE, {"var": feature}) for feature in features))


def _usual_action(command: Command, at: int) -> str:
    """What takes step ``at`` further: the one before the last completes the command."""
    return "complete" if at == len(command.steps) - 2 else "next"


def _form(request: Element) -> dict[str, list[str]]:
    x = request.find(dataforms.FORM)
    if x is None:
        raise _bad("bad-payload", "This step needs a form.")
    try:
        return dataforms.submitted(x, None)
    except StanzaError as error:
        raise _bad("bad-payload", error.text) from None


def _reply(command: Command, session_id: str, status: str, answer: Answer | None = None, *children: Element) -> Element:
    reply = el(COMMAND, {"node": command.node, "sessionid": session_id, "status": status}, *children)
    if answer is not None:
        reply.extend(el(f"{{{ns.COMMANDS}}}note", {"type": kind}, text=text) for kind, text in answer.notes)
        reply.extend(answer.payloads)
    return reply


def _condition(name: str) -> Element:
    return el(f"{{{ns.COMMANDS}}}{name}")


def _bad(name: str, text: str) -> StanzaError:
    """A bad-request with a condition of section 4.6."""
    return StanzaError("bad-request", text, extra=_condition(name))


def setup(server: Server) -> None:
    """Answer for the commands of the host, also where a client asks its own account for them."""
    commands = _Commands(server)
    for where in ("host", "account"):
        server.router.iq(where, "set", COMMAND, commands.execute)
    server.disco_nodes.append(commands.node)
    server.hooks.session_ended.add(commands.forget)
    server.host_features.update((ns.COMMANDS, ns.DATA_FORMS))

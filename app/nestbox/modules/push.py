"""XEP-0357, Push Notifications: an app's server is told when something waits for a phone that sleeps.

A registration belongs to the client, by its resource, that made it. It is used when a message that would wake a person
comes while that client has no session; and when its session may be resumed (XEP-0198) but its connection is gone, or
silent: then once, until the client has come back or acknowledged something, or its session has ended. A client that is
merely inactive (XEP-0352) gets the message itself.

What an app's server learns is how many messages wait; whose and what they say only if the operator wants it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree.ElementTree import XML

from nestbox.core.errors import StanzaError
from nestbox.core.jid import JID, parse_jid
from nestbox.core.registry import Account
from nestbox.modules import Xep
from nestbox.modules.content import ONE_TO_ONE, wakes
from nestbox.modules.dataforms import FORM, Field, form, submitted
from nestbox.store import Registration
from nestbox.store.errors import StoreFull
from nestbox.wire import ns
from nestbox.wire.element import Element, el, to_bytes
from nestbox.wire.stanza import MESSAGE, Stanza, id_by, parse_stanza

if TYPE_CHECKING:
    from nestbox.core.hooks import IqContext, MessageContext
    from nestbox.core.server import Server
    from nestbox.core.session import Session
    from nestbox.core.users import User

__all__ = ["XEPS", "setup"]

XEPS = (Xep(357, "0.4.1"),)
ENABLE = f"{{{ns.PUSH}}}enable"
DISABLE = f"{{{ns.PUSH}}}disable"
SUMMARY = f"{ns.PUSH.removesuffix(':0')}:summary"
OPTIONS = f"{ns.PUBSUB}#publish-options"
FAILURES = 10  # in a row, after which an app's server that cannot be reached is given up
NODE_BYTES = 1024
BODY_CHARACTERS = 200
# What may be different the next time, beside errors of type "wait" (section 6.1).
_UNREACHABLE = ("remote-server-not-found", "remote-server-timeout")
_CARBON = f"{{{ns.CARBONS}}}received/{{{ns.FORWARD}}}forwarded/{MESSAGE}"


def _waking(stanza: Stanza) -> Element | None:
    """The message in a stanza on its way to a client that is worth a notification: it, or the one it is a copy of."""
    if stanza.kind != "message" or stanza.type not in (*ONE_TO_ONE, "groupchat"):
        return None
    copy = stanza.element.find(_CARBON)
    message = stanza.element if copy is None else copy
    return message if wakes(message) else None


class _Push:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._store = server.store.push
        # Notifications on their way: by account and registration, the message that came meanwhile.
        self._busy: dict[tuple[int, bytes], tuple[int | None, Element] | None] = {}
        self._failing: set[tuple[int, bytes]] = set()

    # registrations (sections 4 and 5)

    async def enable(self, context: IqContext) -> None:
        session = _own(context)
        service, node = _service(context.payload), context.payload.get("node", "")
        limits = self._server.config.limits
        options = _options(context.payload)
        if len(node.encode()) > NODE_BYTES:
            raise StanzaError("policy-violation", "The node is too long.", limit="push_node_bytes")
        if len(options) > limits.push_options_bytes:
            raise StanzaError("policy-violation", "The options are too long.", limit="push_options_bytes")
        registration = Registration(service, node, session.entry.resource, options)
        user = session.user
        if registration in user.pushes and (user.id, registration.key) not in self._failing:
            return  # clients say it again whenever they come
        try:
            await self._store.enable(user.id, registration, limits.push_registrations)
        except StoreFull as error:
            raise StanzaError("resource-constraint", str(error), limit=error.limit) from None
        self._failing.discard((user.id, registration.key))
        await self._changed(user)

    async def disable(self, context: IqContext) -> None:
        user = _own(context).user
        if await self._store.disable(user.id, _service(context.payload), context.payload.get("node")):
            await self._changed(user)

    async def _changed(self, user: User) -> None:
        await self._server.users.changed(user.username)
        self._server.registry.tell_all(Account(user.username))

    # when

    def undelivered(self, context: MessageContext) -> None:
        """A message whose session has ended is kept after all; for others `delivered` was asked."""
        if context.stored:
            self.delivered(context)

    def delivered(self, context: MessageContext) -> None:
        """A message has come for an account: tell the clients that have no session."""
        user = context.recipient
        if user is None or not user.pushes or user is context.owner:
            return
        if context.stanza.type not in ONE_TO_ONE or not wakes(context.stanza.element):
            return
        if context.targets and id_by(context.stanza, user.jid) is None:
            return  # another client has it, and this one would find nothing
        entries = self._server.registry.of(user.jid)
        for registration in user.pushes:
            if registration.resource not in entries:
                self._start(user, registration, None, context.stanza.element)

    def watch(self, session: Session) -> None:
        """A session begins, or goes on."""
        session.away = self._sent_while_away
        session.alerted = None

    def _due(self, session: Session) -> bool:
        """Whether the client has not been told since it was last heard of."""
        if not session.user.pushes or session.sm is None or session.alerted == session.sm.acked:
            return False
        return any(registration.resource == session.entry.resource for registration in session.user.pushes)

    def _sent_while_away(self, session: Session, data: bytes) -> None:
        if data.startswith(b"<message") and self._due(session):
            self._alert(session)

    def silent(self, session: Session) -> None:
        """A client that may resume is gone, or does not acknowledge: what it has not acknowledged may be news to it."""
        if self._due(session):
            self._alert(session)

    def _alert(self, session: Session) -> None:
        waiting = [_waking(parse_stanza(data)) for data in session.sm.unacked() if data.startswith(b"<message")]
        waiting = [message for message in waiting if message is not None]
        if not waiting:
            return
        session.alerted = session.sm.acked
        for registration in session.user.pushes:
            if registration.resource == session.entry.resource:
                self._start(session.user, registration, len(waiting), waiting[-1])

    # notifications (section 6)

    def _start(self, user: User, registration: Registration, count: int | None, message: Element) -> None:
        key = (user.id, registration.key)
        if key in self._busy:  # one at a time; of those that come meanwhile the latest goes next
            self._busy[key] = (count, message)
        else:
            self._busy[key] = None
            self._server.spawn(self._run(key, user, registration, (count, message)))

    async def _run(
        self, key: tuple[int, bytes], user: User, registration: Registration, what: tuple[int | None, Element] | None
    ) -> None:
        try:
            while what is not None and registration in user.pushes:
                self._busy[key] = None
                await self._publish(user, registration, *what)
                what = self._busy[key]
        finally:
            del self._busy[key]

    async def _publish(self, user: User, registration: Registration, count: int | None, message: Element) -> None:
        if count is None:  # what waits in the offline store, if other clients have not taken it
            await self._server.store.committer.flush()
            count = max(1, await self._server.store.offline.count(user.id))
        notification = el(f"{{{ns.PUSH}}}notification", None, self._summary(count, message))
        node = {"node": registration.node} if registration.node else None
        publish = el(f"{{{ns.PUBSUB}}}publish", node, el(f"{{{ns.PUBSUB}}}item", None, notification))
        pubsub = el(f"{{{ns.PUBSUB}}}pubsub", None, publish)
        if registration.options:
            pubsub.append(el(f"{{{ns.PUBSUB}}}publish-options", None, XML(registration.options)))
        sender = JID(user.username, self._server.config.domain)
        try:
            answer = await self._server.questions.ask(sender, parse_jid(registration.jid), "set", pubsub)
        except StanzaError as error:
            await self._failed(user, registration, error.condition, error.type)
            return
        if answer.type == "error":
            await self._failed(user, registration, *_error(answer))
            return
        self._server.counts.pushes += 1
        key = (user.id, registration.key)
        if key in self._failing:
            self._failing.discard(key)
            await self._store.worked(user.id, registration)

    def _summary(self, count: int, message: Element) -> Element:
        fields = [Field("text-single", "message-count", values=(str(count),))]
        if self._server.config.push.details:
            body = message.findtext(f"{{{ns.CLIENT}}}body") or ""
            fields.append(Field("jid-single", "last-message-sender", values=(message.get("from", ""),)))
            fields.append(Field("text-single", "last-message-body", values=(body[:BODY_CHARACTERS],)))
        return form(SUMMARY, fields, kind="submit")

    async def _failed(self, user: User, registration: Registration, condition: str, kind: str) -> None:
        """Give a registration up (section 6.1), at once unless it may only be bad luck."""
        self._server.counts.pushes_failed += 1
        key = (user.id, registration.key)
        if kind == "wait" or condition in _UNREACHABLE:
            self._failing.add(key)
            if await self._store.failed(user.id, registration) < FAILURES:
                return
        self._failing.discard(key)
        await self._store.disable(user.id, registration.jid, registration.node)
        await self._changed(user)


def _own(context: IqContext) -> Session:
    if not context.own or context.session is None:
        raise StanzaError("forbidden", "Only an account's own clients may say where its notifications go.")
    return context.session


def _service(payload: Element) -> str:
    jid = payload.get("jid")
    if not jid:
        raise StanzaError("bad-request", "Which service? Its jid is missing.")
    try:
        return str(parse_jid(jid))
    except ValueError as error:
        raise StanzaError("jid-malformed", str(error)) from None


def _options(payload: Element) -> bytes:
    """The form that goes with each notification, b"" without one; nothing but its fields is kept."""
    given = payload.find(FORM)
    if given is None:
        return b""
    given.set("type", given.get("type", "submit"))  # the XEP's examples leave it out
    fields = [Field("text-single", name, values=values) for name, values in submitted(given, OPTIONS).items()]
    return to_bytes(form(OPTIONS, fields, kind="submit"), "")


def _error(answer: Stanza) -> tuple[str, str]:
    """Condition and type of an error that an app's server has sent."""
    error = answer.find(f"{{{ns.CLIENT}}}error")
    if error is None:
        return "undefined-condition", "cancel"
    conditions = (child.tag.rpartition("}")[2] for child in error if child.tag.startswith(f"{{{ns.STANZA_ERRORS}}}"))
    return next((name for name in conditions if name != "text"), "undefined-condition"), error.get("type", "cancel")


def setup(server: Server) -> None:
    """Take registrations, and notify."""
    push = _Push(server)
    server.router.iq("account", "set", ENABLE, push.enable)
    server.router.iq("account", "set", DISABLE, push.disable)
    server.hooks.message_delivered.add(push.delivered)
    server.hooks.message_undelivered.add(push.undelivered, priority=40)  # before it is kept, which ends the run
    server.hooks.session_bound.add(push.watch)
    server.hooks.session_resumed.add(push.watch)
    server.hooks.session_away.add(push.silent)
    server.account_features.add(ns.PUSH)

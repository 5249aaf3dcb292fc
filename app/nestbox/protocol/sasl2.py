"""The Extensible SASL Profile (XEP-0388): login, resumption or binding, and more, in one round trip.

Once the client has proven who it is, it may have to do tasks, which are those of XEP-0480; then everything else that it
asked for is one event, `Establish`, and its answer goes out with the success.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from nestbox import Xep
from nestbox.core.errors import SaslError, StreamError
from nestbox.protocol import fast, features, sm
from nestbox.protocol.bind import resource_of
from nestbox.protocol.events import Authenticated, Establish, Established, Event, StoreKeys, TokenLookup
from nestbox.protocol.fast import Token
from nestbox.protocol.sasl import Credentials, decode, named
from nestbox.protocol.sasl1 import Login
from nestbox.protocol.upgrade import Upgrade
from nestbox.wire import ns
from nestbox.wire.element import Element, escape, local_name

if TYPE_CHECKING:
    from nestbox.protocol.stream import Stream

__all__ = ["Sasl2"]

XEPS = (Xep(388, "1.0.0"),)

_INITIAL = f"{{{ns.SASL2}}}initial-response"
_USER_AGENT = f"{{{ns.SASL2}}}user-agent"
_BIND = f"{{{ns.BIND2}}}bind"
_RESUME = f"{{{ns.SM}}}resume"
_FAST = f"{{{ns.FAST}}}fast"
_REQUEST_TOKEN = f"{{{ns.FAST}}}request-token"
_UPGRADE = f"{{{ns.SASL_UPGRADE}}}upgrade"
_TRUE = ("true", "1")
_AGENT_MAX = 256  # characters
_DEVICE_MAX = 60  # characters


class Sasl2(Login):
    """``<authenticate/>`` and what follows.

    ``_proof`` is what a token's mechanism said, ``_tasks`` the hashes that the client still brings keys for,
    ``_stage`` what it has to send next, '' for nothing.
    """

    uri = ns.SASL2
    __slots__ = ("_agent", "_keys", "_name", "_proof", "_reply", "_request", "_stage", "_tasks", "_token", "_upgrade")

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self._request: Element | None = None
        self._agent: str | None = None
        self._stage = self._name = ""
        self._proof = self._reply = b""
        self._tasks: list[str] = []
        self._keys: frozenset[str] = frozenset()
        self._token: Token | None = None
        self._upgrade: Upgrade | None = None

    def take(self, item: Element) -> Event | None:
        name = local_name(item.tag)
        stage = self._stage
        if name == "authenticate" and not stage:
            return self._authenticate(item)
        if name == "abort":
            raise SaslError("aborted")
        if name == "response" and stage in ("", "response"):
            if not stage:
                raise SaslError("malformed-request", "a login begins with <authenticate/>")
            return self.receive(_data(item.text))
        if name == "next" and stage == "next":
            return self._next(item)
        if name == "task-data" and stage == "task-data":
            return self._task_data(item)
        raise StreamError("policy-violation", "something else has to come next")  # section 2.4

    def _authenticate(self, item: Element) -> Event | None:
        stream = self.stream
        stream.check_secure()
        self._request = item
        self._stage = "response"
        agent = item.find(_USER_AGENT)
        self._agent = (agent.get("id") or None) if agent is not None else None
        if self._agent is not None and len(self._agent) > _AGENT_MAX:
            raise SaslError("malformed-request", "that id is too long")
        tokens = features.token_mechanisms(stream.bindings, stream.secure)
        wanted = item.find(_REQUEST_TOKEN)
        if wanted is not None:  # XEP-0484, sections 3.2 and 4.1
            if self._agent is None:
                raise SaslError("malformed-request", "a token is asked for with the client's id")
            if wanted.get("mechanism") not in tokens:
                raise SaslError("invalid-mechanism", "there are no such tokens")
        known = features.upgrades(stream.options)
        tasks = [element.text or "" for element in item.iterfind(_UPGRADE)]
        if not all(task in known for task in tasks):
            raise SaslError("malformed-request", "that task is not offered")  # section 2.3
        self._tasks = list(dict.fromkeys(known[task] for task in tasks))
        mechanism = item.get("mechanism", "")
        initial = item.find(_INITIAL)
        if mechanism in tokens:
            return self._with_token(mechanism, item, initial)
        self.begin(mechanism)
        if initial is None:
            self.challenge(b"")
            return None
        return self.receive(_data(initial.text))

    def check_name(self) -> None:
        """Whoever says that it acts for somebody says the same in the stream header (section 2.3)."""
        stated, exchange = self.stream.peer, self.exchange
        if (
            exchange.authzid
            and stated is not None
            and stated.bare != f"{exchange.username}@{self.stream.options.domain}"
        ):
            raise SaslError("invalid-authzid", "the stream was opened by somebody else")

    # with a token (XEP-0484, section 3.4)

    def _with_token(self, mechanism: str, item: Element, initial: Element | None) -> Event:
        if initial is None or item.find(_FAST) is None or self._agent is None:
            raise SaslError("malformed-request", "a token needs <fast/>, the client's id and an initial response")
        name, self._proof = fast.parse(_data(initial.text))
        self._name = named("", name, self.stream.options)
        stated = self.stream.peer
        if stated is not None and stated.bare != f"{self._name}@{self.stream.options.domain}":  # section 4.1
            raise SaslError("not-authorized", "the stream was opened by somebody else")
        self.stream.wait("tokens")
        return TokenLookup(self._name, self._agent)

    def tokens(self, tokens: list[Token]) -> Event:
        """Go on with the tokens of the account's client."""
        request, bindings = self._request, self.stream.bindings
        count = _count(request.find(_FAST))
        self._token, reply = fast.verify(tokens, request.get("mechanism"), self._proof, count, bindings)
        return self.verified(reply)

    # when the client is known

    def credentials(self, credentials: Credentials | None) -> Event | None:
        self._keys = frozenset(credentials.keys) if credentials is not None else frozenset()
        return super().credentials(credentials)

    def verified(self, reply: bytes) -> Event | None:
        if self.exchange is not None:
            self._name = self.exchange.username
        self._reply = reply
        self._tasks = [name for name in self._tasks if self._token is None and name not in self._keys]
        return self._go_on()

    def _go_on(self) -> Event | None:
        """The next task, or the end."""
        if not self._tasks:
            return self._establish()
        task = f"<tasks><task>UPGR-SCRAM-{self._tasks[0]}</task></tasks>"
        self.stream.send(f"<continue xmlns='{ns.SASL2}'>{self._additional()}{task}</continue>".encode())
        self._stage = "next"
        return None

    def _additional(self) -> str:
        reply, self._reply = self._reply, b""
        return f"<additional-data>{base64.b64encode(reply).decode()}</additional-data>" if reply else ""

    def _next(self, item: Element) -> None:
        if item.get("task") != f"UPGR-SCRAM-{self._tasks[0]}":
            raise SaslError("malformed-request", "that task is not due")
        self._upgrade = Upgrade(self._tasks[0], self.stream.options)
        self.stream.send(f"<task-data xmlns='{ns.SASL2}'>{self._upgrade.question()}</task-data>".encode())
        self._stage = "task-data"

    def _task_data(self, item: Element) -> Event:
        keys = self._upgrade.answer(item)
        self.stream.wait("keys")
        return StoreKeys(self._name, self._tasks[0], keys)

    def keys_stored(self) -> Event | None:
        """Go on after a task."""
        self._tasks.pop(0)
        return self._go_on()

    # everything else at once

    def _establish(self) -> Event:
        request = self._request
        stream = self.stream
        event = Establish(self._name, self._agent, self._token, device=_device(request.find(_USER_AGENT)))
        asked = request.find(_FAST)
        if asked is not None and self._token is not None:
            event.count = _count(asked)
            event.invalidate = asked.get("invalidate") in _TRUE
        asked = request.find(_REQUEST_TOKEN)
        event.new_token = asked.get("mechanism") if asked is not None else None
        resume = request.find(_RESUME)
        if resume is not None and stream.options.sm_available:
            h = sm.unsigned(resume.get("h"))
            if resume.get("previd") and h is not None:
                event.resume = (resume.get("previd"), h)
        bind = request.find(_BIND)
        if bind is not None:
            event.bind = resource_of(bind, self._name, self._agent, stream.options.secret)
        stream.wait("establish")
        return event

    def established(self, outcome: Established) -> Event:
        """Say what came of it all (section 2.6.1); without a new stream the features follow."""
        stream, request = self.stream, self._request
        who = str(outcome.jid) if outcome.jid is not None else f"{self._name}@{stream.options.domain}"
        children = [self._additional(), f"<authorization-identifier>{escape(who)}</authorization-identifier>"]
        data = "".join(children).encode()
        resume = request.find(_RESUME)
        if outcome.resumed is not None:
            data += sm.resumed(resume.get("previd"), outcome.resumed)
        elif resume is not None:
            good = resume.get("previd") and sm.unsigned(resume.get("h")) is not None
            data += sm.failed("item-not-found" if good else "bad-request", outcome.handled)
        bound = outcome.jid is not None and outcome.resumed is None
        if bound:
            data += f"<bound xmlns='{ns.BIND2}'>".encode() + outcome.bound + b"</bound>"
        if outcome.token is not None:
            token, expiry = outcome.token
            data += f"<token xmlns='{ns.FAST}' token='{token}' expiry='{expiry}'/>".encode()
        stream.send(f"<success xmlns='{ns.SASL2}'>".encode() + data + b"</success>")
        stream.known(self._name)
        stream.ready = outcome.jid is not None
        stream.sm = outcome.sm
        if outcome.resumed is None:  # XEP-0198, section 9.2: what was resumed has its features
            stream.send_stream(
                "features", features.after_authentication(stream.options, bind=not bound, sm=not stream.sm)
            )
        return Authenticated(self._name)

    def failure(self, error: SaslError) -> bytes:
        text = f"<text>{escape(error.text)}</text>" if error.text else ""
        condition = f"<{error.condition} xmlns='{ns.SASL}'/>"
        return f"<failure xmlns='{ns.SASL2}'>{condition}{text}</failure>".encode()


def _data(text: str | None) -> bytes:
    """SASL data; here an empty element is an empty string (section 2.2). Raises SaslError."""
    return decode((text or "").strip())


def _device(agent: Element | None) -> str:
    """What the client calls itself and what it runs on, cut to what a list can show (section 2.3)."""
    if agent is None:
        return ""
    texts = (agent.findtext(f"{{{ns.SASL2}}}{name}") or "" for name in ("software", "device"))
    shown = ("".join(filter(str.isprintable, text)).strip()[:_DEVICE_MAX] for text in texts)
    return " on ".join(filter(None, shown))


def _count(element: Element) -> int | None:
    """The count of ``<fast/>``, None where there is none. Raises SaslError."""
    text = element.get("count")
    count = sm.unsigned(text)
    if text is not None and not count:
        raise SaslError("malformed-request", "a count is a positive number")
    return count

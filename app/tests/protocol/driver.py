"""A driver that answers a `Stream` the way the server does, for one domain with three accounts."""

from __future__ import annotations

import hashlib
import hmac
import re

from nestbox.core.errors import SaslError
from nestbox.core.jid import JID
from nestbox.protocol import stream as protocol
from nestbox.protocol.fast import Token
from nestbox.protocol.sm import ENABLE, enabled
from nestbox.protocol.stream import Credentials, Stream, StreamOptions

DOMAIN = "nestbox.test"
CERTIFICATE_HASH = hashlib.sha256(b"the certificate").digest()
Bindings = dict[str, bytes]
BINDINGS: Bindings = {"tls-server-end-point": CERTIFICATE_HASH}
NONE: Bindings = {}
HASHES = {"SHA-1": "sha1", "SHA-256": "sha256", "SHA-512": "sha512"}


class Keys:
    """The SCRAM keys of a password for one hash."""

    def __init__(self, password: str, digest: str, salt: bytes = b"0123456789abcdef", iterations: int = 4096) -> None:
        salted = hashlib.pbkdf2_hmac(digest, password.encode(), salt, iterations)
        client_key = hmac.digest(salted, b"Client Key", digest)
        self.salt = salt
        self.iterations = iterations
        self.stored_key = hashlib.new(digest, client_key).digest()
        self.server_key = hmac.digest(salted, b"Server Key", digest)


ACCOUNTS = {
    "romeo": Credentials({name: Keys("secret", digest) for name, digest in HASHES.items()}, True),
    "tybalt": Credentials({name: Keys("secret", digest) for name, digest in HASHES.items()}, False),
    "old": Credentials({"SHA-1": Keys("secret", "sha1")}, True),
}
AGENT = "d4565fa7-4d72-4749-b3d3-740edbf87770"
NEVER = 2**33  # Unix seconds
TOKENS = {
    ("romeo", AGENT): [
        Token("HT-SHA-256-NONE", b"", b"a token", NEVER, 0, True),
        Token("HT-SHA-256-ENDP", b"", b"a bound token", NEVER, 7, False),
        Token("HT-SHA-256-NONE", b"", b"an old token", 1, 0, False),
    ]
}


class Driver:
    """Feeds a stream and answers its events at once; ``sent`` collects pieces of output, ``events`` what happened."""

    def __init__(self, *, framing: str = "tcp", secure: bool = True, bindings: Bindings = NONE, **options) -> None:
        self.options = StreamOptions(DOMAIN, **{"plain_allowed": True, **options})
        self.stream = Stream(self.options, framing=framing, secure=secure, bindings=bindings)
        self.events: list[object] = []
        self.sent: list[bytes] = []
        self.hold: type | None = None  # leave events of this type without an answer

    def feed(self, data: bytes | str) -> str:
        """Feed and run; returns what the stream sent, with changing ids taken out."""
        before = len(self.sent)
        self.stream.feed(data.encode() if isinstance(data, str) else data)
        self.run()
        return normal(b"".join(self.sent[before:]))

    def run(self) -> None:
        """Handle events until the stream has no more."""
        while (event := self.stream.next_event()) is not None:
            self.events.append(event)
            if type(event) is not self.hold:
                self.answer(event)
        while data := self.stream.data_to_send():
            self.sent.append(data)

    def answer(self, event: object) -> None:
        stream = self.stream
        match event:
            case protocol.StartTls():
                stream.tls_established(BINDINGS)
            case protocol.Lookup(username):
                stream.credentials(ACCOUNTS.get(username))
            case protocol.TokenLookup(username, agent):
                stream.tokens(TOKENS.get((username, agent), []))
            case protocol.StoreKeys():
                stream.keys_stored()
            case protocol.Establish():
                self.establish(event)
            case protocol.BindRequest("taken"):
                stream.bind_failed(protocol.StanzaError("conflict"))
            case protocol.BindRequest(resource):
                stream.bound(JID(stream.username, DOMAIN, resource or "made-up"))
            case protocol.ResumeRequest("sm-old", h):
                stream.resumed("sm-old", h + 1)
            case protocol.ResumeRequest("sm-lost", _):
                stream.resume_failed("item-not-found", 7)
            case protocol.ResumeRequest():
                stream.resume_failed("item-not-found")
            case protocol.EnableSm(resume, most):
                stream.sm_enabled("sm-1" if resume else None, most)

    def establish(self, event: protocol.Establish) -> None:
        """All that a login of XEP-0388 asks for."""
        outcome = protocol.Established()
        if event.token is not None and event.count == 13:
            self.stream.refused(SaslError("not-authorized", "somebody else was quicker"))
            return
        if event.new_token is not None:
            outcome.token = (f"new-{event.new_token}", "2026-12-24T00:00:00Z")
        if event.resume is not None and event.resume[0] == "sm-old":
            outcome.jid, outcome.resumed, outcome.sm = JID(event.username, DOMAIN, "old"), event.resume[1] + 1, True
        elif event.bind is not None:
            outcome.jid = JID(event.username, DOMAIN, event.bind.resource)
            if any(element.tag == ENABLE for element in event.bind.features):
                outcome.sm, outcome.bound = True, enabled("sm-1", 60)
        self.stream.established(outcome)

    def log_in(self) -> Driver:
        """Open, authenticate and open again."""
        self.feed(HEADER if self.stream.frame(b"<iq/>") == b"<iq/>" else OPEN)
        self.feed(f"<auth xmlns='{SASL}' mechanism='PLAIN'>AHJvbWVvAHNlY3JldA==</auth>")
        self.feed(HEADER if self.stream.frame(b"<iq/>") == b"<iq/>" else OPEN)
        assert self.stream.username == "romeo"
        return self

    def bind(self) -> Driver:
        """Log in and bind."""
        self.log_in().feed(BIND_IQ)
        assert self.stream.ready
        return self


SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
HEADER = (
    "<?xml version='1.0'?><stream:stream to='nestbox.test' xmlns='jabber:client' "
    "xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
)
OPEN = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='nestbox.test' version='1.0'/>"
BIND_IQ = "<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"


def normal(data: bytes) -> str:
    """Output with the random stream id, and the words of error texts, taken out."""
    text = re.sub(r" id='[0-9a-f]{16}'", " id='ID'", data.decode())
    return re.sub(r"<text [^>]*>[^<]*</text>", "<text/>", text)

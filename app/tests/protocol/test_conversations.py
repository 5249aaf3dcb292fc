"""What a client says and what it gets to hear: good and bad negotiations, on both framings."""

from __future__ import annotations

import re

import pytest

from tests.protocol.driver import BIND_IQ, HEADER, OPEN, Driver


def offer(names: list[str], tokens: list[str]) -> str:
    """The mechanisms of RFC 6120 and of XEP-0388, with what can be had in the same round trip."""
    mechanisms = "".join(f"<mechanism>{name}</mechanism>" for name in names)
    fast = "".join(f"<mechanism>{name}</mechanism>" for name in tokens)
    return (
        f"<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{mechanisms}</mechanisms>"
        f"<authentication xmlns='urn:xmpp:sasl:2'>{mechanisms}<inline><bind xmlns='urn:xmpp:bind:0'><inline>"
        "<feature var='urn:xmpp:sm:3'/></inline></bind><sm xmlns='urn:xmpp:sm:3'/>"
        f"<fast xmlns='urn:xmpp:fast:0'>{fast}</fast></inline>"
        "<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-512</upgrade>"
        "<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-256</upgrade></authentication>"
    )


SCRAM = ["SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1"]
NAMES = {
    "HEADER": HEADER,
    "OPEN": OPEN,
    "BIND": BIND_IQ,
    "GREETING": (
        "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' "
        "from='nestbox.test' id='ID' version='1.0' xml:lang='en'>"
    ),
    "OPENED": (
        "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' from='nestbox.test' id='ID' version='1.0' xml:lang='en'/>"
    ),
    "PRE": offer([*SCRAM, "PLAIN"], ["HT-SHA-256-NONE"])
    + "<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>16384</max-bytes></limits>",
    "PRE_PLUS": offer([*(f"{name}-PLUS" for name in SCRAM), *SCRAM, "PLAIN"], ["HT-SHA-256-ENDP", "HT-SHA-256-NONE"])
    + "<sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'>"
    "<channel-binding type='tls-server-end-point'/></sasl-channel-binding>"
    "<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>16384</max-bytes></limits>",
    "STARTTLS": (
        "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>"
        "<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>16384</max-bytes></limits>"
    ),
    "POST": (
        "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>"
        "<sm xmlns='urn:xmpp:sm:3'/>"
        "<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>262144</max-bytes></limits>"
    ),
    "START": "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
    "PROCEED": "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
    "PLAIN": "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvbWVvAHNlY3JldA==</auth>",
    "WRONG": "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvbWVvAHdyb25n</auth>",
    "SUCCESS": "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'></success>",
    "END": "</stream:stream>",
    "CLOSE": "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>",
    "STREAMS": "xmlns:stream='http://etherx.jabber.org/streams'",
}


def failure(condition: str, text: bool = True) -> str:
    return f"<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><{condition}/>{'<text/>' if text else ''}</failure>"


def stream_error(condition: str, extra: str = "") -> str:
    return (
        f"<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'></{condition}><text/>{extra}"
        "</stream:error></stream:stream>"
    )


def ws_error(condition: str) -> str:
    error = stream_error(condition).removesuffix("</stream:stream>")
    return error.replace("<stream:error", "<stream:error {STREAMS}") + "{CLOSE}"


def sm_failed(condition: str, h: str = "") -> str:
    return f"<failed xmlns='urn:xmpp:sm:3'{h}><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"


FEATURES = "{GREETING}<stream:features>{PRE}</stream:features>"
BOUND = (
    '<iq type="result" id="b"><bind xmlns="urn:ietf:params:xml:ns:xmpp-bind">'
    "<jid>romeo@nestbox.test/made-up</jid></bind></iq>"
)
BAD_RESOURCE = (
    '<iq type="error" id="b"><error type="modify"><bad-request xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/>'
    "<text/></error></iq>"
)
LOGGED_IN = [
    ("{HEADER}", FEATURES),
    ("{PLAIN}", "{SUCCESS}"),
    ("{HEADER}", "{GREETING}<stream:features>{POST}</stream:features>"),
]
READY = [*LOGGED_IN, ("{BIND}", BOUND)]
WS_READY = [
    ("{OPEN}", "{OPENED}<stream:features {STREAMS}>{PRE}</stream:features>"),
    ("{PLAIN}", "{SUCCESS}"),
    ("{OPEN}", "{OPENED}<stream:features {STREAMS}>{POST}</stream:features>"),
    ("{BIND}", BOUND.replace("<iq", '<iq xmlns="jabber:client"')),
]


def resource(text: str) -> str:
    return BIND_IQ.replace("/></iq>", f"><resource>{text}</resource></bind></iq>")


CONVERSATIONS = {
    "login": READY,
    "white space between stanzas": [*READY[:-1], ("{BIND}", BOUND), (" \n ", "")],
    "starttls": (
        {"secure": False, "starttls": True},
        [
            ("{HEADER}", "{GREETING}<stream:features>{STARTTLS}</stream:features>"),
            ("{START}", "{PROCEED}"),
            ("{HEADER}", "{GREETING}<stream:features>{PRE_PLUS}</stream:features>"),
            ("{PLAIN}", "{SUCCESS}"),
        ],
    ),
    "starttls with plaintext behind it": (
        {"secure": False, "starttls": True},
        [("{HEADER}", ...), ("{START} <presence/>", stream_error("policy-violation"))],
    ),
    "starttls with hidden plaintext": (
        {"secure": False, "starttls": True},
        [
            ("{HEADER}", ...),
            (
                "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><![CDATA[</starttls><x \"]]></starttls>"
                "<auth y='\"'/>",
                stream_error("policy-violation"),
            ),
        ],
    ),
    "starttls twice": (
        {"secure": False, "starttls": True},
        [
            ("{HEADER}", ...),
            ("{START}", "{PROCEED}"),
            ("{HEADER}", ...),
            ("{START}", "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>"),
        ],
    ),
    "login before starttls": (
        {"secure": False, "starttls": True},
        [("{HEADER}", ...), ("{PLAIN}", failure("encryption-required"))],
    ),
    "plain not allowed": (
        {"plain_allowed": False},
        [("{HEADER}", ...), ("{PLAIN}", failure("invalid-mechanism"))],
    ),
    "unknown mechanism": [
        ("{HEADER}", ...),
        ("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>", failure("invalid-mechanism")),
        ("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>", failure("invalid-mechanism")),
    ],
    "no initial response": [
        ("{HEADER}", ...),
        (
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'/>",
            "<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
        ),
        ("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>AHJvbWVvAHNlY3JldA==</response>", "{SUCCESS}"),
    ],
    "not base64": [
        ("{HEADER}", ...),
        (
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJv!bWVv</auth>",
            failure("incorrect-encoding"),
        ),
        (
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvb</auth>",
            failure("incorrect-encoding"),
        ),
    ],
    "not {PLAIN}": [
        ("{HEADER}", ...),
        ("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>=</auth>", failure("malformed-request")),
        (
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>/////w==</auth>",
            failure("malformed-request"),
        ),
    ],
    "plain for somebody else": [
        ("{HEADER}", ...),
        (
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>anVsaWV0AHJvbWVvAHNlY3JldA==</auth>",
            failure("invalid-authzid"),
        ),
    ],
    "aborted": [
        ("{HEADER}", ...),
        ("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'>biwsbj1yb21lbyxyPWFiYw==</auth>", ...),
        ("<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>", failure("aborted", text=False)),
        ("{PLAIN}", "{SUCCESS}"),
    ],
    "response to nothing": [
        ("{HEADER}", ...),
        (
            "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>AA==</response>",
            failure("malformed-request", text=False),
        ),
    ],
    "three failures": [
        ("{HEADER}", ...),
        ("{WRONG}", failure("not-authorized")),
        ("{WRONG}", failure("not-authorized")),
        ("{WRONG}", failure("not-authorized") + stream_error("policy-violation")),
    ],
    "two failures, then right": [("{HEADER}", ...), ("{WRONG}", ...), ("{WRONG}", ...), ("{PLAIN}", "{SUCCESS}")],
    "disabled account": [
        ("{HEADER}", ...),
        (
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHR5YmFsdABzZWNyZXQ=</auth>",
            failure("account-disabled"),
        ),
        (
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHR5YmFsdAB3cm9uZw==</auth>",
            failure("not-authorized"),
        ),
    ],
    "everything in one packet": [
        (
            "{HEADER} {PLAIN} {HEADER} {BIND} <presence/>",
            FEATURES + "{SUCCESS}{GREETING}<stream:features>{POST}</stream:features>" + BOUND,
        )
    ],
    "login twice": [*LOGGED_IN, ("{PLAIN}", stream_error("unsupported-stanza-type"))],
    # stream headers
    "unknown host": [
        (HEADER.replace("nestbox.test", "other.test"), "{GREETING}" + stream_error("host-unknown")),
    ],
    "host that is none": [(HEADER.replace("nestbox.test", "a@b/c"), "{GREETING}" + stream_error("host-unknown"))],
    "host in capitals": [(HEADER.replace("nestbox.test", "NestBox.TEST"), FEATURES)],
    "no host": [(HEADER.replace("to='nestbox.test'", ""), "{GREETING}" + stream_error("improper-addressing"))],
    "no version": [(HEADER.replace("version='1.0'>", ">"), "{GREETING}" + stream_error("unsupported-version"))],
    "version 0.9": [(HEADER.replace("='1.0'>", "='0.9'>"), "{GREETING}" + stream_error("unsupported-version"))],
    "version 1.1": [(HEADER.replace("='1.0'>", "='1.1'>"), FEATURES)],
    "version nonsense": [(HEADER.replace("='1.0'>", "='one'>"), "{GREETING}" + stream_error("unsupported-version"))],
    "unknown stream namespace": [
        (HEADER.replace("http://etherx", "https://etherx"), "{GREETING}" + stream_error("invalid-namespace"))
    ],
    "server's namespace": [
        (HEADER.replace("jabber:client", "jabber:server"), "{GREETING}" + stream_error("invalid-namespace"))
    ],
    "another root": [("<html>", "{GREETING}" + stream_error("bad-format"))],
    "HTTP": [("GET / HTTP/1.1\r\n", "{GREETING}" + stream_error("not-well-formed"))],
    "TLS where none is": (
        {},
        [(b"\x16\x03\x01\x02\x00\x01\x00\x01", "{GREETING}" + stream_error("not-well-formed"))],
    ),
    "other prefixes": [
        (
            "<s:stream to='nestbox.test' version='1.0' xmlns:s='http://etherx.jabber.org/streams'>",
            FEATURES,
        ),
        ("{PLAIN}", "{SUCCESS}"),
        (
            "<stream to='nestbox.test' version='1.0' xmlns='http://etherx.jabber.org/streams' xmlns:c='jabber:client'>",
            ...,
        ),
        ("<c:iq type='set' id='b'><b:bind xmlns:b='urn:ietf:params:xml:ns:xmpp-bind'/></c:iq>", BOUND),
        ("<m:message xmlns:m='jabber:client'><m:body>hi</m:body></m:message>", ""),
        ("</stream>", "{END}"),
    ],
    "from is answered": [
        (
            HEADER.replace("to=", "from='Romeo@nestbox.test/balcony' to="),
            FEATURES.replace("{GREETING}", NAMES["GREETING"].replace("'en'>", "'en' to=\"romeo@nestbox.test\">")),
        )
    ],
    "limits": (
        {"idle_seconds": 900, "max_bytes_before_auth": 12_000},
        [
            (
                "{HEADER}",
                FEATURES.replace(
                    "{PRE}",
                    NAMES["PRE"].replace("16384</max-bytes>", "12000</max-bytes><idle-seconds>900</idle-seconds>"),
                ),
            )
        ],
    ),
    # too early
    "stanza before login": [("{HEADER}", ...), ("<message/>", stream_error("not-authorized"))],
    "other element before login": [
        ("{HEADER}", ...),
        ("<active xmlns='urn:xmpp:csi:0'/>", stream_error("not-authorized")),
    ],
    "stanza before bind": [*LOGGED_IN, ("<message/>", stream_error("not-authorized"))],
    "iq before bind": [
        *LOGGED_IN,
        ("<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>", stream_error("not-authorized")),
    ],
    # bind
    "resource": [*LOGGED_IN, (resource("phone"), BOUND.replace("made-up", "phone"))],
    "empty resource": [*LOGGED_IN, (resource(""), BOUND)],
    "resource taken": [
        *LOGGED_IN,
        (
            resource("taken"),
            '<iq type="error" id="b"><error type="cancel"><conflict xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/>'
            "</error></iq>",
        ),
        (resource("phone"), BOUND.replace("made-up", "phone")),
    ],
    "resource with a control character": [*LOGGED_IN, (resource("a&#x9;b"), BAD_RESOURCE), ("{BIND}", BOUND)],
    "resource too long": [*LOGGED_IN, (resource("x" * 1024), BAD_RESOURCE)],
    "get instead of set": [*LOGGED_IN, (BIND_IQ.replace("set", "get"), BAD_RESOURCE)],
    # stream management
    "enable": [*READY, ("<enable xmlns='urn:xmpp:sm:3'/>", "<enabled xmlns='urn:xmpp:sm:3'/>")],
    "enable with resumption": [
        *READY,
        (
            "<enable xmlns='urn:xmpp:sm:3' resume='true' max='60'/>",
            '<enabled xmlns=\'urn:xmpp:sm:3\' id="sm-1" resume="true" max="60"/>',
        ),
    ],
    "enable before login": [("{HEADER}", ...), ("<enable xmlns='urn:xmpp:sm:3'/>", sm_failed("unexpected-request"))],
    "enable before bind": [*LOGGED_IN, ("<enable xmlns='urn:xmpp:sm:3'/>", sm_failed("unexpected-request"))],
    "enable twice": [
        *READY,
        ("<enable xmlns='urn:xmpp:sm:3'/>", ...),
        ("<enable xmlns='urn:xmpp:sm:3'/>", stream_error("policy-violation")),
    ],
    "acks before enable": [
        *READY,
        ("<r xmlns='urn:xmpp:sm:3'/><a xmlns='urn:xmpp:sm:3' h='0'/>", sm_failed("unexpected-request") * 2),
    ],
    "ack without a number": [
        *READY,
        ("<enable xmlns='urn:xmpp:sm:3'/>", ...),
        ("<a xmlns='urn:xmpp:sm:3' h='-1'/>", stream_error("bad-format")),
    ],
    "not available": (
        {"sm_available": False},
        [
            ("{HEADER}", ...),
            LOGGED_IN[1],
            ("{HEADER} {BIND}", ...),
            ("<enable xmlns='urn:xmpp:sm:3'/>", sm_failed("feature-not-implemented")),
        ],
    ),
    "resume": [
        *LOGGED_IN,
        (
            "<resume xmlns='urn:xmpp:sm:3' previd='sm-old' h='4294967295'/>",
            "<resumed xmlns='urn:xmpp:sm:3' previd=\"sm-old\" h='4294967296'/>",
        ),
        ("<r xmlns='urn:xmpp:sm:3'/><message/>", ""),
        ("<resume xmlns='urn:xmpp:sm:3' previd='sm-old' h='0'/>", sm_failed("unexpected-request")),
    ],
    "resume fails, then bind": [
        *LOGGED_IN,
        ("<resume xmlns='urn:xmpp:sm:3' previd='never' h='0'/>", sm_failed("item-not-found")),
        ("<resume xmlns='urn:xmpp:sm:3' previd='sm-lost' h='0'/>", sm_failed("item-not-found", " h='7'")),
        ("{BIND}", BOUND),
    ],
    "resume without h": [
        *LOGGED_IN,
        ("<resume xmlns='urn:xmpp:sm:3' previd='sm-old'/>", sm_failed("bad-request")),
        ("<resume xmlns='urn:xmpp:sm:3' h='4294967296' previd='sm-old'/>", sm_failed("bad-request")),
    ],
    "resume before login": [
        ("{HEADER}", ...),
        ("<resume xmlns='urn:xmpp:sm:3' previd='sm-old' h='0'/>", sm_failed("unexpected-request")),
    ],
    # the end
    "end": [*READY, ("{END}", "{END}"), ("anything", "")],
    "end before login": [("{HEADER}", ...), ("{END}", "{END}")],
    "the client's error": [
        *READY,
        ("<stream:error><reset xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>", "{END}"),
    ],
    "unknown stanza": [*READY, ("<note/>", stream_error("unsupported-stanza-type"))],
    "text": [*READY, ("hello", stream_error("bad-format"))],
    "malformed": [*READY, ("<message></mesage>", stream_error("not-well-formed"))],
    "too big before login": [("{HEADER}", ...), ("<auth a='" + 17_000 * "x", stream_error("policy-violation"))],
    "too big": [*READY, ("<message><body>" + 262_144 * "x", stream_error("policy-violation"))],
    # WebSocket
    "ws: login": ("ws", WS_READY),
    "ws: end": ("ws", [*WS_READY, ("{CLOSE}", "{CLOSE}")]),
    "ws: close before open": ("ws", [("{CLOSE}", "{OPENED}{CLOSE}")]),
    "ws: white space": ("ws", [*WS_READY, (" ", "")]),
    "ws: no open": ("ws", [("{PLAIN}", "{OPENED}" + ws_error("bad-format"))]),
    "ws: opened twice": ("ws", [WS_READY[0], ("{OPEN}", ws_error("bad-format"))]),
    "ws: TCP's header": ("ws", [("{HEADER}", "{OPENED}" + ws_error("bad-format"))]),
    "ws: unknown host": (
        "ws",
        [
            (
                OPEN.replace("nestbox.test", "other.test"),
                "{OPENED}" + ws_error("host-unknown"),
            )
        ],
    ),
    "ws: no version": (
        "ws",
        [(OPEN.replace(" version='1.0'", ""), "{OPENED}" + ws_error("unsupported-version"))],
    ),
    "ws: starttls": (
        "ws",
        [WS_READY[0], ("{START}", "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>{CLOSE}")],
    ),
    "ws: starttls is not offered": (
        {"framing": "websocket", "secure": False, "starttls": True},
        [
            (
                "{OPEN}",
                "{OPENED}<stream:features {STREAMS}><limits xmlns='urn:xmpp:stream-limits:0'>"
                "<max-bytes>16384</max-bytes></limits></stream:features>",
            )
        ],
    ),
    "features of others": (
        {"features_after_auth": [b"<csi xmlns='urn:xmpp:csi:0'/>"]},
        [
            ("{HEADER}{PLAIN}", ...),
            (
                "{HEADER}",
                "{GREETING}<stream:features>{POST}</stream:features>".replace(
                    "{POST}", NAMES["POST"].replace("<limits", "<csi xmlns='urn:xmpp:csi:0'/><limits")
                ),
            ),
        ],
    ),
    "ws: two elements in a frame": (
        "ws",
        [
            *WS_READY,
            (
                "<presence xmlns='jabber:client'/><presence xmlns='jabber:client'/>",
                ws_error("not-well-formed"),
            ),
        ],
    ),
    "ws: half an element in a frame": (
        "ws",
        [*WS_READY, ("<presence xmlns='jabber:client'>", ws_error("not-well-formed"))],
    ),
    "ws: no namespace": (
        "ws",
        [*WS_READY, ("<presence/>", ...)],
    ),
    "ws: enable": (
        "ws",
        [*WS_READY, ("<enable xmlns='urn:xmpp:sm:3'/>", "<enabled xmlns='urn:xmpp:sm:3'/>")],
    ),
}


def expand(text: str | bytes) -> str | bytes:
    """Put the named parts in."""
    if isinstance(text, bytes):
        return text
    return re.sub(r"\{([A-Z_]+)\}", lambda name: NAMES[name[1]], text)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversation(name: str) -> None:
    found = CONVERSATIONS[name]
    options, turns = found if isinstance(found, tuple) else ({}, found)
    if options == "ws":
        options = {"framing": "websocket"}
    driver = Driver(**options)
    for client, server in turns:
        heard = driver.feed(expand(client))
        if server is not ...:
            assert heard == expand(server), f"after {client!r:.200}"


@pytest.mark.parametrize(
    "name", [name for name in CONVERSATIONS if not name.startswith("ws") and "too big" not in name]
)
def test_conversation_byte_by_byte(name: str) -> None:
    """The answers do not depend on how the bytes are cut; only what must not be pipelined does."""
    found = CONVERSATIONS[name]
    options, turns = found if isinstance(found, tuple) else ({}, found)
    driver = Driver(**options)
    for client, server in turns:
        text = expand(client)
        data = text.encode() if isinstance(text, str) else text
        heard = "".join(driver.feed(data[i : i + 1]) for i in range(len(data)))
        if server is not ... and not name.startswith("starttls with"):
            assert heard == expand(server), f"after {client!r:.200}"

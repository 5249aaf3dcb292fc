"""What a client sends to log in by XEP-0388, and what is read from the answers."""

from __future__ import annotations

import base64
import hmac
import re

from scramp import ScramClient

from tests.protocol.driver import AGENT, BINDINGS, CERTIFICATE_HASH, HEADER, OPEN, SASL, Bindings, Driver

SASL2 = "urn:xmpp:sasl:2"
BINDING = ("tls-server-end-point", CERTIFICATE_HASH)
USER_AGENT = f"<user-agent id='{AGENT}'><software>Test</software><device>Phone</device></user-agent>"
BIND = "<bind xmlns='urn:xmpp:bind:0'><tag>Test</tag></bind>"
ENABLE = BIND.replace("</bind>", "<enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>")
NO_BIND = "<stream:features><sm xmlns='urn:xmpp:sm:3'/><limits xmlns='urn:xmpp:stream-limits:0'>"


def b64(data: bytes | str) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def opened(framing: str = "tcp", bindings: Bindings = BINDINGS, header: str = "", **options) -> Driver:
    driver = Driver(framing=framing, bindings=bindings, secret=b"of all workers", **options)
    driver.feed(header or (HEADER if framing == "tcp" else OPEN))
    return driver


def authenticate(driver: Driver, mechanism: str, initial: bytes | str | None, inline: str = "") -> str:
    first = f"<initial-response>{b64(initial)}</initial-response>" if initial is not None else ""
    return driver.feed(f"<authenticate xmlns='{SASL2}' mechanism='{mechanism}'>{first}{inline}</authenticate>")


def respond(driver: Driver, message: bytes | str) -> str:
    return driver.feed(f"<response xmlns='{SASL2}'>{b64(message)}</response>")


def payload(answer: str, name: str = "challenge") -> str:
    found = re.search(f"<{name}(?: xmlns='{SASL2}')?>([^<]*)</{name}>", answer)
    assert found, answer
    return base64.b64decode(found[1]).decode()


def condition(answer: str) -> str:
    found = re.match(rf"<failure xmlns='{SASL2}'><([a-z-]+) xmlns='{SASL}'/>(<text>[^<]*</text>)?</failure>", answer)
    assert found, answer
    return found[1]


def scram(
    driver: Driver,
    inline: str = "",
    name: str = "romeo",
    password: str = "secret",
    mechanism: str = "SCRAM-SHA-256-PLUS",
) -> str:
    """Run the whole exchange; returns the last answer, having checked the server's signature."""
    client = ScramClient([mechanism], name, password, channel_binding=BINDING if "PLUS" in mechanism else None)
    client.set_server_first(payload(authenticate(driver, mechanism, client.get_client_first(), inline)))
    answer = respond(driver, client.get_client_final())
    if "<additional-data>" in answer:
        client.set_server_final(payload(answer, "additional-data"))
    return answer


def plain(driver: Driver, inline: str = "", authzid: str = "", password: str = "secret") -> str:
    return authenticate(driver, "PLAIN", f"{authzid}\0romeo\0{password}", inline)


def with_token(driver: Driver, token: bytes, inline: str = USER_AGENT, fast: str = "", bound: bool = False) -> str:
    mechanism, data = ("HT-SHA-256-ENDP", CERTIFICATE_HASH) if bound else ("HT-SHA-256-NONE", b"")
    proof = hmac.digest(token, b"Initiator" + data, "sha256")
    return authenticate(driver, mechanism, b"romeo\0" + proof, f"<fast xmlns='urn:xmpp:fast:0'{fast}/>{inline}")

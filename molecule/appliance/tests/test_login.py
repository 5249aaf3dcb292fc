"""A login is bound to the TLS connection that it came over, on both ports."""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import ssl
import struct

import pytest
from clients import DOMAIN, SASL
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from scramp import ScramClient

pytest_plugins = ["appliance"]

HEADER = (
    f"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='{DOMAIN}' version='1.0'>"
)
MECHANISM = "SCRAM-SHA-256-PLUS"


class Raw:
    """An XMPP client that speaks in texts and expects patterns."""

    def __init__(self, address: str, port: int) -> None:
        self.socket = socket.create_connection((address, port), 20)

    def start_tls(self, context: ssl.SSLContext) -> None:
        self.socket = context.wrap_socket(self.socket, server_hostname=DOMAIN)

    def ask(self, text: str, pattern: str) -> str:
        """Send a text and read until the pattern has come; its first group."""
        self.socket.sendall(text.encode())
        said = ""
        while (found := re.search(pattern, said)) is None:
            data = self.socket.recv(4096)
            assert data, said
            said += data.decode()
        return found[1]


def exported(secret: bytes) -> bytes:
    """What a client's TLS library exports for the binding tls-exporter (RFC 8446, section 7.5; RFC 9266, section 2)."""
    algorithm = {32: SHA256, 48: SHA384}[len(secret)]()
    nothing = hashlib.new(algorithm.name).digest()

    def expand(secret: bytes, label: bytes, size: int) -> bytes:
        info = struct.pack("!HB", size, len(label)) + label + bytes((len(nothing),)) + nothing
        return HKDFExpand(algorithm, size, info).derive(secret)

    return expand(expand(secret, b"tls13 EXPORTER-Channel-Binding", len(secret)), b"tls13 exporter", 32)


@pytest.mark.parametrize("right", [True, False], ids=["its own", "another's"])
@pytest.mark.parametrize("kind", ["tls-unique", "tls-exporter"])
@pytest.mark.parametrize("port", [5222, 5223])
def test_a_client_binds_its_login_to_its_connection(appliance, tmp_path, monkeypatch, port, kind, right):
    """With what is there in TLS 1.2 and in TLS 1.3; some clients know no other. Of 5223 HAProxy tells the worker."""
    # Scramp refuses tls-exporter, as Python's ssl has no data for it; given the data it does what is right.
    monkeypatch.setattr("scramp.core.CbName.UNSUPPORTED_TYPES", frozenset())
    monkeypatch.setattr("scramp.core.CbName.SUPPORTED_TYPES", {kind})
    context = ssl.create_default_context(cafile=appliance.ca)
    if kind == "tls-unique":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.keylog_filename = str(tmp_path / "secrets")
    client = Raw(appliance.address, port)
    if port == 5222:
        client.ask(HEADER, "(</stream:features>)")
        client.ask("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "(<proceed)")
    client.start_tls(context)
    features = client.ask(HEADER, "(<stream:features.*)</stream:features>")
    assert f"<channel-binding type='{kind}'/>" in features and ">PLAIN<" not in features
    if kind == "tls-unique":
        data = client.socket.get_channel_binding("tls-unique")
    else:
        (secret,) = re.findall(r"^EXPORTER_SECRET \w+ (\w+)$", (tmp_path / "secrets").read_text(), re.MULTILINE)
        data = exported(bytes.fromhex(secret))
    binding = (kind, data if right else bytes(len(data)))
    scram = ScramClient([MECHANISM], "ada", appliance.passwords["ada"], channel_binding=binding)
    first = base64.b64encode(scram.get_client_first().encode()).decode()
    challenge = client.ask(
        f"<auth xmlns='{SASL}' mechanism='{MECHANISM}'>{first}</auth>", "<challenge[^>]*>(.+)</challenge>"
    )
    scram.set_server_first(base64.b64decode(challenge).decode())
    final = base64.b64encode(scram.get_client_final().encode()).decode()
    assert client.ask(f"<response xmlns='{SASL}'>{final}</response>", "<(success|failure)") == (
        "success" if right else "failure"
    )
    client.socket.close()

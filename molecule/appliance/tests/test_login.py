"""A login is bound to the TLS connection that it came over, on both ports."""

from __future__ import annotations

import base64
import re
import socket
import ssl

import pytest
from clients import DOMAIN, SASL
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


@pytest.mark.parametrize("right", [True, False], ids=["its own", "another's"])
@pytest.mark.parametrize("port", [5222, 5223])
def test_a_client_of_tls_1_2_binds_its_login_with_tls_unique(appliance, port, right):
    """As gloox and Swiften do, which know no other; of 5223 HAProxy tells the worker what it is."""
    context = ssl.create_default_context(cafile=appliance.ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    client = Raw(appliance.address, port)
    if port == 5222:
        client.ask(HEADER, "(</stream:features>)")
        client.ask("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "(<proceed)")
    client.start_tls(context)
    features = client.ask(HEADER, "(<stream:features.*)</stream:features>")
    assert "tls-unique" in features and ">PLAIN<" not in features
    unique = client.socket.get_channel_binding("tls-unique")
    binding = ("tls-unique", unique if right else bytes(len(unique)))
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

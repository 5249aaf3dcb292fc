"""log_in.py ADDRESS USER PASSWORD: logs in 25 times on each of 443 (WebSocket), 5222 and 5223, one after another.

Runs in a container of its own, with nothing but Python. Prints the seconds that each took, from the connection to the
bound resource, by port.
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
import socket
import ssl
import sys
import time

LOGINS = 25
address, user, password = sys.argv[1:]
DOMAIN = "nestbox.test"
SASL = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'"
STREAM = (
    f"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='{DOMAIN}' version='1.0'>"
)
OPEN = f"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='{DOMAIN}' version='1.0'/>"
UPGRADE = f"""GET /xmpp-websocket HTTP/1.1
Host: {DOMAIN}
Upgrade: websocket
Connection: Upgrade
Sec-WebSocket-Version: 13
Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}
Sec-WebSocket-Protocol: xmpp

""".replace("\n", "\r\n")

tls = ssl.create_default_context()
tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE


class Client:
    """One connection; elements are found by their text, which is never split by the server's frames' heads."""

    def __init__(self, port: int) -> None:
        self.websocket = False
        self.got = b""
        self.socket = socket.create_connection((address, port), 10)
        if port == 5222:
            self.send(STREAM)
            self.await_(r"</stream:features>")
            self.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
            self.await_(r"<proceed[^>]*>")
        self.socket = tls.wrap_socket(self.socket, server_hostname=DOMAIN)
        if port == 443:
            self.send(UPGRADE)
            self.await_(r"HTTP/1.1 101 .*?\r\n\r\n")
            self.websocket = True

    def send(self, text: str) -> None:
        data = text.encode()
        if self.websocket:  # masked with zeros, which changes nothing (RFC 6455, section 5.3)
            size = len(data)
            head = bytes((0x81, 0x80 | size)) if size < 126 else bytes((0x81, 0xFE, size >> 8, size & 255))
            data = head + bytes(4) + data
        self.socket.sendall(data)

    def await_(self, pattern: str) -> re.Match[bytes]:
        while not (found := re.search(pattern.encode(), self.got, re.DOTALL)):
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError(f"closed after {self.got[-300:]!r}")
            self.got += data
        self.got = self.got[found.end() :]
        return found

    def log_in(self) -> None:
        """SCRAM-SHA-256 (RFC 7677) and a resource."""
        opening, features = (OPEN, r"</(stream:)?features>") if self.websocket else (STREAM, r"</stream:features>")
        self.send(opening)
        self.await_(features)
        first = f"n={user},r={secrets.token_hex(12)}"
        self.send(f"<auth {SASL} mechanism='SCRAM-SHA-256'>{encode('n,,' + first)}</auth>")
        challenge = base64.b64decode(self.await_(r"<challenge[^>]*>([^<]*)<")[1]).decode()
        nonce, salt, rounds = re.match(r"r=([^,]*),s=([^,]*),i=(\d+)", challenge).groups()
        key = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(rounds))
        client_key = hmac.digest(key, b"Client Key", "sha256")
        last = f"c=biws,r={nonce}"
        signed = hmac.digest(hashlib.sha256(client_key).digest(), f"{first},{challenge},{last}".encode(), "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signed, strict=True))).decode()
        self.send(f"<response {SASL}>{encode(f'{last},p={proof}')}</response>")
        self.await_(r"<success[^>]*>")
        self.send(opening)
        self.await_(features)
        bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>"
        self.send(f"<iq xmlns='jabber:client' type='set' id='b'>{bind}</iq>")
        self.await_(r"<jid>[^<]+</jid>")
        self.socket.close()


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def seconds(port: int) -> float:
    begun = time.monotonic()
    try:
        Client(port).log_in()
    except OSError as error:
        print(f"{port}: {error}", file=sys.stderr)
        return 60.0  # did not log in at all
    return time.monotonic() - begun


print(json.dumps({port: [seconds(port) for _ in range(LOGINS)] for port in (443, 5222, 5223)}))

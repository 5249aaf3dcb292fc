"""Logins by XEP-0388 over STARTTLS with the server's real certificate, and back by token on another worker."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import ssl
from collections.abc import AsyncIterator

import pytest
from scramp import ScramClient

from nestbox.store import open_store
from tests.live.conftest import DOMAIN, PASSWORD, Cluster

HEADER = (
    f"<?xml version='1.0'?><stream:stream from='anna@{DOMAIN}' to='{DOMAIN}' version='1.0' xmlns='jabber:client' "
    "xmlns:stream='http://etherx.jabber.org/streams'>"
)
AGENT = "<user-agent id='4f6dbc4c-0001-4b9a-a7ec-3d1a6d6d9a00'/>"
BIND = (
    "<bind xmlns='urn:xmpp:bind:0'><tag>Live</tag><enable xmlns='urn:xmpp:carbons:2'/>"
    "<enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>"
)
REQUEST = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-ENDP'/>"


class Raw:
    """One connection in bytes; ``offer`` are the stream features, ``binding`` the tls-server-end-point."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.offer = ""
        self.binding = b""

    @classmethod
    async def connect(cls, cluster: Cluster, worker: int) -> Raw:
        raw = cls(*await asyncio.open_connection("127.0.0.1", cluster[worker].port))
        raw.send(HEADER)
        assert "urn:xmpp:sasl:2" not in await raw.until("</stream:features>")  # nothing before TLS
        raw.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
        await raw.until("<proceed [^>]*>")
        context = ssl.create_default_context(cafile=str(cluster.certificate))
        await raw._writer.start_tls(context, server_hostname=DOMAIN)
        certificate = raw._writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        raw.binding = hashlib.sha256(certificate).digest()
        raw.send(HEADER)
        raw.offer = await raw.until("</stream:features>")
        return raw

    def send(self, text: str) -> None:
        self._writer.write(text.encode())

    async def until(self, pattern: str) -> str:
        """What came, up to a match."""
        text = ""
        async with asyncio.timeout(15):
            while not re.search(pattern, text):
                data = await self._reader.read(65536)
                assert data, f"closed after {text}"
                text += data.decode()
        return text

    async def authenticate(self, mechanism: str, initial: bytes, inline: str) -> str:
        data = base64.b64encode(initial).decode()
        self.send(
            f"<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'>"
            f"<initial-response>{data}</initial-response>{AGENT}{inline}</authenticate>"
        )
        return await self.until("</challenge>|</failure>|</success>")

    async def with_password(self, inline: str, mechanism: str = "SCRAM-SHA-256-PLUS") -> str:
        """Log in; checks both signatures, the server's and that of its offer (XEP-0474)."""
        client = ScramClient([mechanism], "anna", PASSWORD, channel_binding=("tls-server-end-point", self.binding))
        answer = await self.authenticate(mechanism, client.get_client_first().encode(), inline)
        challenge = base64.b64decode(re.search(">([^<]*)</challenge>", answer)[1]).decode()
        authentication = re.search("<authentication .*?<inline>", self.offer)[0]
        names = sorted(re.findall("<mechanism>([^<]*)", authentication))
        types = sorted(re.findall("<channel-binding type='([^']*)'", self.offer))
        offered = "\x1e".join(names) + "\x1f" + "\x1e".join(types)
        assert challenge.endswith(",h=" + base64.b64encode(hashlib.sha256(offered.encode()).digest()).decode())
        client.set_server_first(challenge)
        final = base64.b64encode(client.get_client_final().encode()).decode()
        self.send(f"<response xmlns='urn:xmpp:sasl:2'>{final}</response>")
        answer = await self.until("</failure>|</success>")
        client.set_server_final(base64.b64decode(re.search("<additional-data>([^<]*)", answer)[1]).decode())
        return answer

    async def with_token(self, token: str, inline: str = "", fast: str = "") -> str:
        proof = hmac.digest(token.encode(), b"Initiator" + self.binding, "sha256")
        inline = f"<fast xmlns='urn:xmpp:fast:0'{fast}/>{inline}"
        answer = await self.authenticate("HT-SHA-256-ENDP", b"anna\0" + proof, inline)
        if "<success" in answer:
            reply = hmac.digest(token.encode(), b"Responder" + self.binding, "sha256")
            assert f"<additional-data>{base64.b64encode(reply).decode()}<" in answer
        return answer


@pytest.fixture
async def connect(cluster: Cluster) -> AsyncIterator[object]:
    connections: list[Raw] = []

    async def make(worker: int) -> Raw:
        connections.append(await Raw.connect(cluster, worker))
        return connections[-1]

    yield make
    for raw in connections:
        raw._writer.transport.abort()


async def test_password_then_token_on_another_worker_then_a_new_password(cluster: Cluster, connect: object) -> None:
    first = await connect(1)
    answer = await first.with_password(BIND + REQUEST)
    full = re.search(f"<authorization-identifier>(anna@{DOMAIN}/Live/[^<]+)<", answer)[1]
    sm_id = re.search('<enabled [^>]*id="([^"]+)"', answer)[1]
    token = re.search("<token [^>]*token='([^']+)'", answer)[1]
    first._writer.transport.abort()
    second = await connect(2)  # and resumes there, in the same round trip
    resume = f"<resume xmlns='urn:xmpp:sm:3' previd='{sm_id}' h='0'/>"
    answer = await second.with_token(token, resume + BIND, " count='1'")
    assert "<resumed " in answer
    assert f">{full}<" in answer
    third = await connect(3)
    assert "<not-authorized" in await third.with_token(token, BIND, " count='1'")
    assert "<bound " in await third.with_token(token, BIND, " count='2'")
    store = await open_store(cluster.database)
    await store.accounts.set_password("anna", "another one")
    await store.close()
    last = await connect(1)
    assert "<credentials-expired" in await last.with_token(token, BIND, " count='3'")


async def test_a_wrong_binding_is_found_out(connect: object) -> None:
    """As if somebody with another certificate stood in between."""
    raw = await connect(1)
    answer = await raw.with_password(REQUEST)
    token = re.search("<token [^>]*token='([^']+)'", answer)[1]
    other = await connect(2)
    other.binding = bytes(32)
    assert "<not-authorized" in await other.with_token(token)
    client = ScramClient(["SCRAM-SHA-256-PLUS"], "anna", PASSWORD, channel_binding=("tls-server-end-point", bytes(32)))
    answer = await other.authenticate("SCRAM-SHA-256-PLUS", client.get_client_first().encode(), "")
    client.set_server_first(base64.b64decode(re.search(">([^<]*)</challenge>", answer)[1]).decode())
    final = base64.b64encode(client.get_client_final().encode()).decode()
    other.send(f"<response xmlns='urn:xmpp:sasl:2'>{final}</response>")
    assert "<not-authorized" in await other.until("</failure>|</success>")


async def test_failed_logins_are_in_the_log_without_addresses(cluster: Cluster, connect: object) -> None:
    raw = await connect(1)
    fast = "<fast xmlns='urn:xmpp:fast:0'/>"
    assert "<failure" in await raw.authenticate("HT-SHA-256-ENDP", b"anna\0" + bytes(32), fast)
    lines = [line for line in cluster.log.read_text().splitlines() if "a login failed" in line]
    assert lines
    assert '"address": "127.0.0.0/24"' in lines[0]
    assert "127.0.0.1" not in lines[0]
    assert "anna" not in lines[0]

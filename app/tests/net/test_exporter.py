"""The channel binding tls-exporter (RFC 9266): the secrets are OpenSSL's, what belongs to them a client in Go said."""

import contextlib
import os
import socket
import ssl
import subprocess

import pytest

from nestbox.net.exporter import _log, exporter
from nestbox.net.tls import TlsCodec, TlsContext


@pytest.mark.parametrize(
    ("secret", "binding"),
    [
        (
            "0ab10b7ea925a8f740a0cc8932ea2afe02b01d551b0ff84679402c2b0c67c0cc",
            "b2ec456fb4796a34c2101e88d1c01babc37fcc1d8f56b9c810d3cffc850677e7",
        ),
        (
            "20c881fdc46529dcc856eb5b02d58733bcf9ab2328619fca7e990000d213b3cb47708e1f1830aa91255771804ce692e9",
            "7ca96cdd41734e44a499c10ff5c94b34cd94c9876c5f1080e0f8ed006a902dfa",
        ),
    ],
    ids=["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"],
)
def test_the_binding_comes_from_the_secret(secret, binding):
    assert exporter(bytes.fromhex(secret)).hex() == binding


class Peer:
    """A client over memory BIOs that logs its secrets."""

    def __init__(self, certificate, log):
        context = ssl.create_default_context(cafile=certificate[0])
        context.keylog_filename = str(log)
        self.log = log
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="xmpp.test")

    def step(self):
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    def binding(self):
        (line,) = [line for line in self.log.read_text().splitlines() if line.startswith("EXPORTER_SECRET")]
        return "tls-exporter", exporter(bytes.fromhex(line.split()[2]))


def test_each_of_two_handshakes_that_go_on_at_once_has_its_own(certificate, tmp_path):
    context = TlsContext(*certificate)
    pairs = [(Peer(certificate, tmp_path / name), TlsCodec(context.context)) for name in ("one", "two")]
    for peer, codec in pairs:
        peer.incoming.write(codec.feed(peer.step())[1])
    broken = TlsCodec(context.context)
    with pytest.raises(ssl.SSLError):
        broken.feed(b"\x16\x03\x01\x00\x05" + bytes(5))
    for peer, codec in reversed(pairs):
        codec.feed(peer.step())
    bindings = [codec.binding() for _, codec in pairs]
    assert bindings == [peer.binding() for peer, _ in pairs]
    assert bindings[0] != bindings[1]


def test_a_client_that_changes_its_keys_fills_no_log(certificate):
    """RFC 8446, section 4.6.3: as often as it likes, and each time there would be new secrets."""
    codec = TlsCodec(TlsContext(*certificate).context)
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.getsockname()[1]}"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, stdin=subprocess.PIPE, **quiet) as client, server.accept()[0] as connection:
            connection.settimeout(10)
            while not codec.established:
                connection.sendall(codec.feed(connection.recv(65536))[1])
            for _ in range(3):
                client.stdin.write(b"K\n")
                client.stdin.flush()
                data = connection.recv(65536)
                plain, answer = codec.feed(data)
                assert data and not plain
                connection.sendall(answer)
            assert os.fstat(_log()).st_size == 0
            client.kill()

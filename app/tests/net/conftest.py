"""Event loops, certificates and small drivers for the tests of sockets."""

import asyncio
import datetime
import ipaddress

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    """Runs a coroutine to its end on asyncio's own loop and on uvloop; a test that hangs fails after 20 s."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        yield lambda coroutine: runner.run(asyncio.wait_for(coroutine, 20))


class Recorder:
    """A receiver that keeps what it is given and lets a test wait for it."""

    def __init__(self, transport):
        self.transport = transport
        self.frames = []
        self.lost = asyncio.get_running_loop().create_future()
        self._news = asyncio.Event()
        self.drained = 0

    @property
    def data(self):
        return b"".join(self.frames)

    def data_received(self, data):
        self.frames.append(data)
        self._news.set()

    def connection_lost(self, exc):
        self.lost.set_result(exc)
        self._news.set()

    def tls_established(self):
        assert not self.frames

    def buffer_drained(self):
        self.drained += 1
        self._news.set()

    async def until(self, condition):
        while not condition(self):
            self._news.clear()
            await self._news.wait()


class Recorders(list):
    """A `MakeReceiver` that remembers its receivers."""

    def __init__(self):
        self._news = asyncio.Event()

    def __call__(self, transport):
        self.append(Recorder(transport))
        self._news.set()
        return self[-1]

    async def first(self):
        while not self:
            self._news.clear()
            await self._news.wait()
        return self[0]


def issue(key, algorithm):
    """A self-signed certificate for xmpp.test: certificate and key as PEM."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "xmpp.test")])
    start = datetime.datetime(2026, 1, 1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=3650))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("xmpp.test"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, algorithm)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private


@pytest.fixture(scope="session")
def pems():
    """Certificates by kind."""
    return {
        "sha256": issue(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()),
        "sha384": issue(ec.generate_private_key(ec.SECP384R1()), hashes.SHA384()),
        "ed25519": issue(ed25519.Ed25519PrivateKey.generate(), None),
    }


@pytest.fixture
def certificate(tmp_path, pems):
    """Paths of an ECDSA certificate and its key."""
    paths = tmp_path / "cert.pem", tmp_path / "key.pem"
    for path, pem in zip(paths, pems["sha256"], strict=True):
        path.write_bytes(pem)
    return paths

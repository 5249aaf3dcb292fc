"""The certificate and the TLS codec."""

import hashlib
import ssl
import warnings

import pytest

from nestbox.net.tls import TlsCodec, TlsContext, TlsError, certificate_hash


@pytest.mark.parametrize("kind", ["sha256", "sha384"])
def test_binding_uses_the_hash_of_the_signature(pems, kind):
    pem = pems[kind][0]
    der = ssl.PEM_cert_to_DER_cert(pem.decode())
    assert certificate_hash(pem) == hashlib.new(kind, der).digest()


def test_binding_of_a_chain_is_that_of_the_first_certificate(pems):
    first, second = pems["sha384"][0], pems["sha256"][0]
    assert certificate_hash(first + second) == certificate_hash(first)


def test_sha1_becomes_sha256(pems):
    # The signature's algorithm is only named in the certificate, so exchanging the name is enough for this test.
    der = ssl.PEM_cert_to_DER_cert(pems["sha256"][0].decode())
    ecdsa_sha256, ecdsa_sha1 = bytes.fromhex("06082a8648ce3d040302"), bytes.fromhex("06072a8648ce3d0401")
    assert der.count(ecdsa_sha256) == 2
    from asn1crypto import x509

    certificate = x509.Certificate.load(der)
    certificate["signature_algorithm"] = {"algorithm": "sha1_ecdsa"}
    changed = certificate.dump(force=True)
    assert ecdsa_sha1 in changed
    pem = ssl.DER_cert_to_PEM_cert(changed).encode()
    assert certificate_hash(pem) == hashlib.sha256(changed).digest()


@pytest.mark.parametrize(
    "pem", [b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate_is_refused_in_a_sentence(pem):
    with pytest.raises(TlsError, match=r"cannot be read.*\.$"):
        certificate_hash(pem)


def test_ed25519_has_no_binding_but_works(tmp_path, pems):
    (tmp_path / "c").write_bytes(pems["ed25519"][0])
    (tmp_path / "k").write_bytes(pems["ed25519"][1])
    with pytest.raises(TlsError):
        certificate_hash(pems["ed25519"][0])
    assert TlsContext(tmp_path / "c", tmp_path / "k").bindings == {}


def test_reload_takes_the_new_certificate_and_keeps_the_old_on_failure(certificate, pems):
    context = TlsContext(*certificate)
    first = context.context, context.bindings
    certificate[0].write_bytes(pems["sha384"][0])
    with pytest.raises(TlsError, match="do not fit together"):
        context.reload()
    assert (context.context, context.bindings) == first
    certificate[1].write_bytes(pems["sha384"][1])
    context.reload()
    assert context.bindings == {"tls-server-end-point": certificate_hash(pems["sha384"][0])}
    assert context.context is not first[0]
    certificate[1].unlink()
    with pytest.raises(TlsError, match="cannot be read"):
        context.reload()


class Client:
    """A TLS client without a socket."""

    def __init__(self, certificate, **settings):
        context = ssl.create_default_context(cafile=certificate[0])
        for name, value in settings.items():
            setattr(context, name, value)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="xmpp.test")

    def handshake(self, codec, step=100_000):
        for _ in range(10):
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            else:
                codec_done = codec.established
                self.send(codec, step)
                if codec_done or codec.established:
                    return
            self.send(codec, step)

    def send(self, codec, step=100_000):
        data, plain = self.outgoing.read(), b""
        for at in range(0, len(data), step):
            piece, answer = codec.feed(data[at : at + step])
            plain += piece
            self.incoming.write(answer)
        return plain


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("step", [1, 100_000])
def test_handshake_and_data_both_ways(certificate, version, step):
    codec = TlsCodec(TlsContext(*certificate).context)
    client = Client(certificate, maximum_version=version)
    client.handshake(codec, step)
    assert codec.established and codec.facts()["version"] == version.name.replace("_", ".")
    payload = bytes(range(256)) * 300
    client.tls.write(payload)
    assert client.send(codec, step) == payload
    client.incoming.write(codec.encode(payload))
    got = b""
    while len(got) < len(payload):
        got += client.tls.read(100_000)
    assert got == payload


def test_close_notify_both_ways(certificate):
    codec = TlsCodec(TlsContext(*certificate).context)
    client = Client(certificate)
    client.handshake(codec)
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.unwrap()
    assert client.send(codec) == b"" and codec.closed
    client.incoming.write(codec.goodbye())
    client.tls.unwrap()


def test_old_versions_and_rubbish_are_refused_with_an_alert(certificate):
    context = TlsContext(*certificate).context
    codec = TlsCodec(context)
    with pytest.raises(ssl.SSLError):
        codec.feed(b"<stream:stream xmlns='jabber:client'>")
    codec = TlsCodec(context)
    with warnings.catch_warnings(action="ignore"):  # Python warns of such old versions, too
        client = Client(certificate, minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1)
    client.tls.context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        client.handshake(codec)
    assert codec.pending_output()[:1] == b"\x15"  # an alert


def cipher_of(certificate, offered, **policy):
    """The cipher that the server chooses for a client of TLS 1.2 that offers these; None when it refuses."""
    codec = TlsCodec(TlsContext(*certificate, **policy).context)
    client = Client(certificate, maximum_version=ssl.TLSVersion.TLSv1_2)
    client.tls.context.set_ciphers(offered)
    try:
        client.handshake(codec)
    except ssl.SSLError:
        return None
    return codec.facts()["cipher"]


AES, CHACHA = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"


@pytest.mark.parametrize("offered", [f"{AES}:{CHACHA}", f"{CHACHA}:{AES}"])
@pytest.mark.parametrize("chacha_first", [False, True])
def test_the_server_chooses_the_cipher_that_its_cpu_is_quick_at(certificate, offered, chacha_first):
    assert cipher_of(certificate, offered, chacha_first=chacha_first) == (CHACHA if chacha_first else AES)


@pytest.mark.parametrize("offered", ["ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA384", "AES128-GCM-SHA256"])
def test_ciphers_outside_the_policy_are_refused(certificate, offered):
    assert cipher_of(certificate, offered) is None


def test_the_modern_policy_is_tls_1_3_only(certificate):
    assert cipher_of(certificate, AES, modern=True) is None
    codec = TlsCodec(TlsContext(*certificate, modern=True).context)
    Client(certificate).handshake(codec)
    assert codec.facts()["version"] == "TLSv1.3"


def test_data_before_the_handshake_is_through_is_not_lost(certificate):
    """TLS 1.3: the client's Finished and its first data arrive in one read."""
    codec = TlsCodec(TlsContext(*certificate).context)
    client = Client(certificate)
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    client.send(codec)
    client.tls.do_handshake()
    client.tls.write(b"first words")
    assert client.send(codec) == b"first words"

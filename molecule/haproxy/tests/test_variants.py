"""Role haproxy with other variables: what they change, and what the role refuses in one sentence before it changes anything."""

import pytest
from clients import handshake, workers_met
from conftest import converge, port_state, wait_for


@pytest.fixture
def as_before(host):
    """Put the configuration back after a test that changed it."""
    host.check_output("cp /etc/haproxy/haproxy.cfg /tmp/haproxy.cfg")
    yield
    host.check_output("cp /tmp/haproxy.cfg /etc/haproxy/haproxy.cfg && systemctl reload-or-restart haproxy")


def test_by_address_one_worker_is_met_and_a_cpu_without_aes_gets_chacha20_and_modern_is_tls_1_3(
    host, address, release, as_before
):
    """One run for all, since it takes long. A Pi 4 has no AES; a client that would take either cipher then gets CHACHA20."""
    either = ["-ciphersuites", "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256"]
    if host.run("grep -qwE '^(flags|Features).* aes' /proc/cpuinfo").rc == 0:
        assert "Cipher is TLS_AES_128_GCM_SHA256" in handshake(host, *either)
    ran = converge(
        host, haproxy_balance="hash" if release >= "26" else "source", haproxy_aes=False, haproxy_tls_policy="modern"
    )
    assert ran.returncode == 0, ran.stdout
    wait_for(lambda: len(set(workers_met(address, 12))) == 1, what="one worker for one address")
    assert "Cipher is TLS_CHACHA20_POLY1305_SHA256" in handshake(host, *either)
    old = "openssl s_client -connect 127.0.0.1:443 -tls1_2 </dev/null"
    assert "alert protocol version" in host.run(old).stderr, "the modern policy"


def test_a_taken_port_is_named_in_one_sentence(host, address):
    host.check_output("systemctl stop haproxy")
    host.check_output("systemd-run --unit=intruder --collect python3 -m http.server 5223")
    try:
        wait_for(lambda: port_state(address, 5223) == "open", what="the intruder")
        refused = converge(host)
        assert refused.returncode != 0 and "Port 5223 is taken by python3; stop it there" in refused.stdout, (
            refused.stdout
        )
    finally:
        host.check_output("systemctl stop intruder; systemctl start haproxy")


def test_too_many_connections_for_the_system_are_refused_in_one_sentence(host):
    most = int(host.check_output("awk '/Max open files/ {print $5}' /proc/1/limits"))
    refused = converge(host, haproxy_maxconn=most)
    assert (
        refused.returncode != 0
        and f"set nestbox_max_connections to {(most - 500) // 2} or less" in refused.stdout.replace("\n", " ")
    )


def test_a_bad_configuration_never_lands(host, address):
    before = host.check_output("sha256sum /etc/haproxy/haproxy.cfg")
    refused = converge(host, haproxy_unlimited_sources=["10.0.0.0/99"])
    assert refused.returncode != 0 and "failed to validate" in refused.stdout, refused.stdout
    assert host.check_output("sha256sum /etc/haproxy/haproxy.cfg") == before and port_state(address, 5222) == "open"

"""Role haproxy: what clients meet on the ports, what workers are told, and who may look inside."""

import json
import ssl

import pytest
from clients import Client, admin, handshake, tls_context
from conftest import assert_confined, assert_limited, exposure, port_state, unit_properties, wait_for


def test_http_leads_to_https_without_the_port(address):
    for name in ["nestbox.test", "nestbox.test:8080"]:
        with Client(address, 80) as client:
            status, headers, _ = client.request("/invite/abc?x=1", name)
        assert (status, headers["location"]) == (301, "https://nestbox.test/invite/abc?x=1")


def test_an_acme_challenge_reaches_certbot(host, address):
    with Client(address, 80) as client:
        assert client.request("/.well-known/acme-challenge/token")[0] == 503
    host.check_output(
        "mkdir -p /tmp/c/.well-known/acme-challenge && echo answer >/tmp/c/.well-known/acme-challenge/token"
    )
    host.check_output(
        "systemd-run --unit=certbot-stand-in --collect python3 -m http.server -b 127.0.0.1 -d /tmp/c 8402"
    )
    try:
        wait_for(lambda: host.run("ss -Hltn 'sport = :8402' | grep -q .").rc == 0, what="the stand-in for certbot")
        with Client(address, 80) as client:
            status, _, body = client.request("/.well-known/acme-challenge/token")
        assert (status, body) == (200, b"answer\n")
    finally:
        host.run("systemctl stop certbot-stand-in")


def test_a_worker_learns_who_calls_over_https_and_cannot_be_lied_to(host, address):
    lies = [
        "X-Forwarded-For: 1.2.3.4",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Host: evil",
        "Forwarded: for=1.2.3.4",
        "X-Real-IP: 1.2.3.4",
    ]
    with Client(address, 443, tls_context(host, "http/1.1")) as client:
        own = client.socket.getsockname()[0]
        status, headers, body = client.request("/", "nestbox.test", *lies)
    assert status == 200 and headers["strict-transport-security"] == "max-age=63072000"
    told = [(name.lower(), value) for name, value in json.loads(body)["headers"]]
    assert ("x-forwarded-for", own) in told and ("x-forwarded-proto", "https") in told
    assert "1.2.3.4" not in str(told) and "evil" not in str(told), told


def test_a_browser_is_told_what_it_may_not_do_even_by_haproxys_own_answers(host, address):
    told = {
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
    }
    with Client(address, 80) as client:
        answers = [client.request("/"), client.request("/.well-known/acme-challenge/token")]
    with Client(address, 80) as client:
        client.socket.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answers.append(client.answer())
    with Client(address, 443, tls_context(host, "http/1.1")) as client:
        answers.append(client.request("/"))
    assert [status for status, _, _ in answers] == [301, 503, 400, 200]
    for status, headers, _ in answers:
        assert told.items() <= headers.items(), (status, headers)
        assert "frame-ancestors 'none'" in headers["content-security-policy"], (status, headers)
        assert "camera=()" in headers["permissions-policy"], (status, headers)


@pytest.mark.parametrize(("port", "offered"), [(443, "h2"), (443, "http/1.1"), (5223, "xmpp-client")])
def test_the_protocol_is_agreed_on_in_the_handshake(host, address, port, offered):
    with Client(address, port, tls_context(host, offered)) as client:
        assert client.socket.selected_alpn_protocol() == offered


def test_a_websocket_is_one_tunnel_to_one_worker(host, address):
    with Client(address, 443, tls_context(host, "http/1.1")) as client:
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        status, headers, _ = client.request(
            "/xmpp-websocket", "nestbox.test", "Connection: Upgrade", "Upgrade: websocket", key
        )
        assert status == 101 and headers["x-worker"] in ("1", "2")
        assert client.echoes() and client.echoes()


@pytest.mark.parametrize("worker", [1, 2])
@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_bosh_request_goes_to_the_worker_of_its_session(host, address, worker, quote):
    with Client(address, 443, tls_context(host, "http/1.1")) as client:
        for rid in range(4):
            body = f"<body rid={quote}{rid}{quote} sid={quote}{worker}-abc{quote}/>"
            status, _, answer = client.request("/http-bind", post=body)
            assert status == 200 and json.loads(answer)["worker"] == worker


def test_5222_is_passed_through_and_the_worker_learns_who_calls(address):
    with Client(address, 5222) as client:
        own = client.socket.getsockname()
        told = client.greeting()
        assert (told["source"], told["port"], told["tls"]) == (*own, False)
        assert client.echoes()


def test_5223_ends_tls_and_the_worker_learns_for_which_name(host, address):
    with Client(address, 5223, tls_context(host, "xmpp-client"), "rooms.nestbox.test") as client:
        own = client.socket.getsockname()
        told = client.greeting()
        assert (told["source"], told["port"], told["tls"], told["authority"]) == (*own, True, "rooms.nestbox.test")
        assert client.echoes()


def test_the_worker_learns_what_a_login_may_be_bound_to(host, address, tmp_path):
    """Of TLS 1.3 the exporter's secret (RFC 9266), of TLS 1.2 tls-unique (RFC 5929)."""
    context = tls_context(host, "xmpp-client")
    context.keylog_filename = str(tmp_path / "secrets")
    with Client(address, 5223, context) as client:
        told = client.greeting()["unique"]
    (line,) = [line for line in (tmp_path / "secrets").read_text().splitlines() if line.startswith("EXPORTER_SECRET")]
    assert told == line.split()[2].lower()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with Client(address, 5223, context) as client:
        assert client.greeting()["unique"] == client.socket.get_channel_binding("tls-unique").hex()


def test_old_tls_is_refused_and_1_2_works(host, address):
    for version, accepted in [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)]:
        context = tls_context(host)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        try:
            with Client(address, 443, context) as client:
                assert accepted and client.socket.version() == "TLSv1.2"
        except ssl.SSLError:
            assert not accepted


def test_the_quantum_safe_group_is_spoken_where_openssl_knows_it(host, release):
    group = "X25519MLKEM768" if release >= "26" else "X25519"
    assert "Cipher is TLS_" in handshake(host, "-groups", group)
    if release >= "26":
        assert f"Negotiated TLS1.3 group: {group}" in handshake(host), "the default of a client that knows it"


def test_components_reach_a_worker_from_this_machine_only(host, address):
    assert port_state(address, 5347) == "closed"
    assert host.check_output("printf 'still there?\n' | nc -N -w 5 127.0.0.1 5347") == "still there?"


def test_statistics_and_metrics_are_for_this_machine_only(host, address):
    assert port_state(address, 8404) == "closed"
    metrics = host.check_output("curl -sS http://127.0.0.1:8404/metrics")
    assert 'haproxy_server_status{proxy="be_http",server="w2",state="UP"} 1' in metrics
    assert "fe_c2s" in host.check_output("curl -sS 'http://127.0.0.1:8404/stats;csv'")
    knock = "import socket; socket.socket(socket.AF_UNIX).connect('/run/haproxy/admin.sock')"
    refused = host.run("runuser -u nestbox -- python3 -c %s", knock)
    assert refused.rc != 0 and "PermissionError" in refused.stderr


def test_one_source_cannot_take_all_connections(host):
    """20 at a time and 60 in ten seconds, says this scenario; the clients are inside, where the limits hold."""
    script = """
import socket
kept = []
def open_one():
    try:
        s = socket.create_connection(("127.0.0.1", 5222), 5)
        return s if s.recv(1) else None
    except ConnectionError:
        return None
for n in range(25): kept.append(open_one())
print("at a time", len([s for s in kept if s]))
for s in kept:
    if s: s.close()
total = 25
while total < 100:
    s = open_one(); total += 1
    if total > 62 and s is None: break
    if s: s.close()
print("in ten seconds", total)
"""
    admin(host, "clear table st_source")
    said = host.check_output("python3 -c %s", script)
    assert "at a time 20\n" in said
    assert int(said.rsplit(" ", 1)[1]) < 70, said
    admin(host, "clear table st_source")


def test_one_source_cannot_ask_without_end(host):
    admin(host, "clear table st_source")
    codes = host.check_output("curl -sk --http1.1 -o /dev/null -w '%{http_code}\n' 'https://127.0.0.1/[1-40]'").split()
    admin(host, "clear table st_source")
    assert codes[:30] == ["200"] * 30 and codes[-1] == "429", codes


def test_the_process_is_confined(host):
    master = unit_properties(host, "haproxy")["MainPID"]
    worker = host.check_output("pgrep -P %s", master).split()[0]
    for process in (master, worker):
        assert host.check_output("ps -o user=,group= -p %s", process).split() == ["haproxy", "nestbox"]
        status = host.check_output("cat /proc/%s/status", process)
        assert "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status
    can = assert_confined(host, "haproxy", ["UNIX", "INET", "INET6"])
    assert can["uid"] != 0 and can["capabilities"] == 1 << 10, "CAP_NET_BIND_SERVICE alone"
    assert exposure(host, "haproxy") <= 1.5
    assert_limited(host, "haproxy")
    wanted = int(unit_properties(host, "haproxy")["LimitNOFILE"])
    assert wanted == 4500


def test_it_comes_back_after_a_kill(host, address):
    killed = unit_properties(host, "haproxy")["MainPID"]
    host.check_output("kill -9 %s", killed)
    wait_for(lambda: unit_properties(host, "haproxy")["MainPID"] not in ("0", killed), what="HAProxy after a kill")
    wait_for(lambda: port_state(address, 5222) == "open", what="port 5222")

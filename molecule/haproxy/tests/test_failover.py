"""Role haproxy: workers that die, fall ill or are drained, and a reload, without a client noticing more than it must."""

import threading

import pytest
from clients import Client, admin, handshake, redispatched, server_states, tls_context, workers_met, xmpp_worker
from conftest import wait_for

BACKENDS = ["be_http", "be_websocket", "be_bosh", "be_upload", "be_c2s", "be_c2s_tls", "be_components"]


def all_states(host, worker: int, state: str) -> bool:
    """Tell whether the worker has that state in all backends."""
    states = server_states(host, worker)
    return sorted(states) == sorted(BACKENDS) and all(value.startswith(state) for value in states.values())


@pytest.fixture(autouse=True)
def both_up(host):
    """Begin and end each test with two workers in service."""

    def ready() -> bool:
        return all(server_states(host, n)["be_http"].startswith("UP") for n in (1, 2))

    wait_for(ready, what="both workers")
    yield
    host.check_output("rm -f /run/nestbox/*/sick /run/nestbox/*/dying; systemctl start nestbox@1 nestbox@2")
    admin(host, "set server be_http/w1 state ready")
    wait_for(ready, what="both workers")


@pytest.fixture
def connect(address):
    """Return a function that opens and keeps a connection to a given worker."""
    kept = []

    def to(worker: int) -> Client:
        def reached() -> Client | None:
            client = Client(address, 5222)
            kept.append(client)
            return client if client.greeting()["worker"] == worker else None

        # A worker that has just come back gets few connections at first (slowstart).
        return wait_for(reached, 40, f"a connection to worker {worker}")

    yield to
    for client in kept:
        client.close()


def test_connections_are_shared_out_evenly(address):
    met = workers_met(address, 20)
    assert met.count(1) == met.count(2) == 10


def test_a_dead_worker_is_routed_around_at_once(host, address, connect):
    client = connect(1)
    host.check_output("systemctl kill --signal=KILL nestbox@1 && rm -rf /run/nestbox/1")
    assert not client.echoes()
    assert [xmpp_worker(address) for _ in range(10)] == [2] * 10
    with Client(address, 443, tls_context(host, "http/1.1")) as https:
        assert all(https.request("/")[0] == 200 for _ in range(5))
    # Only once its death is noticed is its return seen: else HAProxy may meet a worker that does not listen yet.
    wait_for(lambda: all_states(host, 1, "DOWN"), what="worker 1 down in every backend")
    host.check_output("systemctl start nestbox@1")
    wait_for(lambda: all_states(host, 1, "UP"), what="worker 1 up in every backend")
    assert 1 in workers_met(address, 30)


def test_a_worker_killed_and_back_before_haproxy_noticed_costs_nobody_else(host, address):
    """systemd starts a dead worker at once, checks come every two seconds: until then HAProxy finds out by connecting.

    Here checks stop meanwhile, so that HAProxy does not notice even on a slow machine.
    """
    admin(host, "disable health be_http/w1")
    stop, met, cut_off = threading.Event(), [], []

    def keep_coming() -> None:
        while not stop.is_set():
            try:
                met.append(xmpp_worker(address))
            except (OSError, ValueError) as error:
                cut_off.append(error)

    newcomers = [threading.Thread(target=keep_coming) for _ in range(2)]
    for thread in newcomers:
        thread.start()
    try:
        for _ in range(4):
            before = redispatched(host, 1)
            host.check_output("systemctl kill --signal=KILL nestbox@1")
            wait_for(lambda before=before: redispatched(host, 1) > before, what="somebody who meets the dead worker")
            # While systemd has not noticed the death, starting the unit does nothing.
            host.check_output(
                "while systemctl is-active --quiet nestbox@1; do sleep 0.05; done; systemctl start nestbox@1"
            )
            count = len(met)
            wait_for(lambda count=count: 1 in met[count:], what="a newcomer on worker 1, which is back")
    finally:
        stop.set()
        for thread in newcomers:
            thread.join()
        admin(host, "enable health be_http/w1")
    # Whoever was in the killed worker's hands comes back as an app does. Each client may meet a death twice: the dying
    # process's socket takes connections for a moment more.
    assert len(cut_off) <= 16 and len(met) > 100, (len(met), cut_off)


def test_a_request_in_a_dying_workers_hands_is_answered_by_another(host, address):
    """HAProxy asks again for what may be asked twice: a page or a WebSocket. A POST is not repeated."""
    host.check_output("touch /run/nestbox/1/dying")
    context = tls_context(host, "http/1.1")
    upgrade = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    posted = []
    for _ in range(6):
        with Client(address, 443, context) as client:
            assert client.request("/")[0] == 200
        with Client(address, 443, context) as client:
            assert client.request("/xmpp-websocket", "nestbox.test", *upgrade)[0] == 101
        with Client(address, 443, context) as client:
            posted.append(client.request("/invite/token", post="form=1")[0])
    assert 502 in posted and set(posted) <= {200, 502}


def test_an_ill_worker_is_taken_out_and_its_clients_are_sent_away(host, address, connect):
    client, other = connect(1), connect(2)
    host.check_output("touch /run/nestbox/1/sick")
    wait_for(lambda: all_states(host, 1, "DOWN"), what="worker 1 down in every backend")
    assert not client.echoes() and other.echoes()
    assert [xmpp_worker(address) for _ in range(10)] == [2] * 10
    host.check_output("rm /run/nestbox/1/sick")
    wait_for(lambda: all_states(host, 1, "UP"), what="worker 1 up in every backend")


def test_a_drained_worker_keeps_its_clients_and_gets_no_new_ones(host, address, connect):
    client = connect(1)
    admin(host, "set server be_http/w1 state drain")
    wait_for(lambda: all_states(host, 1, "DRAIN"), what="worker 1 drained in every backend")
    assert [xmpp_worker(address) for _ in range(10)] == [2] * 10
    with Client(address, 5223, tls_context(host, "xmpp-client")) as tls:
        assert tls.greeting()["worker"] == 2
    assert client.echoes()
    admin(host, "set server be_http/w1 state ready")
    wait_for(lambda: all_states(host, 1, "UP"), what="worker 1 ready in every backend")
    connect(1)


def test_no_worker_at_all_is_an_answer_and_not_a_hang(host, address):
    host.check_output("systemctl stop nestbox@1 nestbox@2")
    with Client(address, 443, tls_context(host, "http/1.1")) as https:
        assert https.request("/")[0] == 503


def test_a_reload_cuts_nobody_off_and_refuses_nobody(host, address, connect):
    old = [connect(1), connect(2)]
    stop, met, refused = threading.Event(), [], []

    def keep_coming() -> None:
        while not stop.is_set():
            try:
                met.append(xmpp_worker(address))
            except (OSError, ValueError) as error:
                refused.append(error)

    newcomers = threading.Thread(target=keep_coming)
    newcomers.start()
    try:
        for _ in range(3):
            before = admin(host, "show info").split("\nPid: ")[1].split()[0]
            count = len(met)
            host.check_output("systemctl reload haproxy")
            wait_for(
                lambda before=before: admin(host, "show info").split("\nPid: ")[1].split()[0] != before,
                what="the new process",
            )
            wait_for(lambda count=count: len(met) > count + 20, what="connections meanwhile")
    finally:
        stop.set()
        newcomers.join()
    assert not refused, refused[:3]
    assert all(client.echoes() for client in old)


def test_a_renewed_certificate_is_shown_at_once_and_cuts_nobody_off(host, connect):
    """What role tls does after a renewal: put the file in place, reload."""
    old = [connect(1), connect(2)]
    pem = "/etc/nestbox/tls/haproxy.pem"
    make = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=renewed.test "
        "-keyout /tmp/new.key -out /tmp/new.pem 2>/dev/null && cat /tmp/new.pem /tmp/new.key"
    )
    host.check_output(f"cp -p {pem} /tmp/kept.pem")
    try:
        host.check_output(f"{make} >{pem} && systemctl reload haproxy")
        wait_for(lambda: "renewed.test" in handshake(host), what="the new certificate")
        assert all(client.echoes() for client in old)
    finally:
        host.check_output(f"cp -p /tmp/kept.pem {pem} && systemctl reload haproxy")
    wait_for(lambda: "renewed.test" not in handshake(host), what="the old certificate")
    assert all(client.echoes() for client in old)

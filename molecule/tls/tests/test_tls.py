"""Role tls, every mode: the files fit, only the right people read the key, and the renewal repairs what is broken."""

from certificate import ALL_RELOADED, TLS, assert_consistent, reloaded, renew, serial
from conftest import assert_confined, exposure


def test_a_server_starts_with_what_the_workers_read(host):
    served = host.run(
        f"""openssl s_server -accept 127.0.0.1:7443 -cert {TLS}/fullchain.pem -cert_chain {TLS}/fullchain.pem \
            -key {TLS}/key.pem -www >/tmp/server.log 2>&1 & server=$!
        until ss -Hltn 'sport = :7443' | grep -q .; do kill -0 $server || exit 1; done
        openssl s_client -connect 127.0.0.1:7443 -servername nestbox.test </dev/null 2>/dev/null | openssl x509 -noout -serial
        kill $server"""
    )
    assert served.stdout.strip() == serial(host)


def test_the_bundle_holds_the_same_pair(host):
    assert_consistent(host)


def test_only_root_and_the_group_read_the_key(host):
    host.run("id worker >/dev/null 2>&1 || useradd --groups nestbox worker; id other >/dev/null 2>&1 || useradd other")
    assert host.run("su worker -c 'cat %s/key.pem'", TLS).rc == 0
    assert host.run("su other -c 'cat %s/key.pem'", TLS).rc != 0
    assert host.run("su worker -c 'cat %s/haproxy.pem'", TLS).rc == 0
    assert host.run("su other -c 'cat %s/haproxy.pem'", TLS).rc != 0
    assert host.run("su worker -c 'ls %s/ca'", TLS).rc != 0
    assert host.run("su other -c 'cat %s/fullchain.pem'", TLS).rc == 0


def test_a_second_run_changes_nothing(host):
    before = host.check_output(f"stat -c '%i %Y' {TLS}/*.pem")
    renew(host)
    assert host.check_output(f"stat -c '%i %Y' {TLS}/*.pem") == before
    assert reloaded(host) == []


def test_the_timers_unit_is_confined(host):
    acme = "-acme-" in host.backend.get_hostname()
    can = assert_confined(host, "nestbox-tls-renew", ["UNIX", "INET", "INET6", "NETLINK"] if acme else ["UNIX"])
    assert can["capabilities"] == (1 << 10 | 1 if acme else 1), "CAP_CHOWN, and CAP_NET_BIND_SERVICE for certbot"
    assert exposure(host, "nestbox-tls-renew") <= 2.0


def test_the_timer_will_run(host):
    shown = host.check_output(
        "systemctl show nestbox-tls-renew.timer --property=ActiveState,UnitFileState,NextElapseUSecRealtime"
    )
    assert "ActiveState=active" in shown and "UnitFileState=enabled" in shown
    assert "NextElapseUSecRealtime=\n" not in shown + "\n"
    assert host.run("systemctl is-active certbot.timer").stdout.strip() != "active", "two timers would fight"


def test_an_interrupted_run_is_repaired_and_the_services_told(host):
    before = serial(host)
    host.check_output("echo half >%s/fullchain.pem && rm %s/key.pem", TLS, TLS)
    renew(host)
    assert serial(host) == before
    assert_consistent(host)
    assert reloaded(host) == ALL_RELOADED
    assert host.check_output(f"stat -c '%a %U:%G' {TLS}/key.pem") == "640 root:nestbox"

"""Role tls, mode acme: a real ACME server (Caddy's) issued the certificate, and renewal goes through HAProxy's port 80."""

from certificate import ALL_RELOADED, assert_trusted, reloaded, renew, serial
from conftest import wait_for

testinfra_hosts = ["ansible://acme"]


def start_port80(host, port: int) -> None:
    """Let something that stands for HAProxy answer on port 80 with what 127.0.0.1:`port` answers."""
    host.run("systemctl stop port80")
    host.check_output("systemd-run --unit=port80 --collect python3 /root/port80.py %s", str(port))
    wait_for(lambda: host.run("ss -Hltn 'sport = :80' | grep -q .").rc == 0, what="port 80")


def test_a_client_that_trusts_the_acme_server_accepts_every_host(host):
    assert_trusted(host, "/usr/local/share/ca-certificates/acme-test.crt")


def test_it_renews_through_haproxy_and_says_why_it_cannot(host):
    host.check_output("sed s/--keep-until-expiring/--force-renewal/ /usr/local/sbin/nestbox-tls-renew >/tmp/force")
    try:
        start_port80(host, 8402)
        first = serial(host)
        host.check_output("rm -f /run/reloaded-*; sh /tmp/force")
        second = serial(host)
        assert second != first and reloaded(host) == ALL_RELOADED
        start_port80(host, 9)  # as if HAProxy did not hand the challenge on
        refused = host.run("sh /tmp/force")
        assert refused.rc == 1 and serial(host) == second
        assert refused.stderr.count("\n") == 1, refused.stderr
        assert "no certificate from https://acme.test:9443" in refused.stderr, refused.stderr
        assert "ask" not in refused.stderr.lower()
    finally:
        host.run("systemctl stop port80")


def test_the_timers_sandbox_lets_certbot_work(host):
    """A renewal inside the unit: what it writes is among the unit's writable paths."""
    before = serial(host)
    program = "/usr/local/sbin/nestbox-tls-renew"
    host.check_output("cp %s /tmp/kept && sed -i s/--keep-until-expiring/--force-renewal/ %s", program, program)
    try:
        renew(host)
    finally:
        host.check_output("cat /tmp/kept >%s", program)
    assert serial(host) != before and reloaded(host) == ALL_RELOADED

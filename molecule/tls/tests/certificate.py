"""What the tests of every mode look at."""

TLS = "/etc/nestbox/tls"
NAMES = ["nestbox.test", "rooms.nestbox.test", "upload.nestbox.test", "pubsub.nestbox.test"]
ALL_RELOADED = ["reloaded-haproxy.service", "reloaded-nestbox@1.service", "reloaded-nestbox@2.service"]


def serial(host) -> str:
    """Return the serial number of the certificate in place."""
    return host.check_output("openssl x509 -in %s/fullchain.pem -noout -serial", TLS)


def renew(host) -> None:
    """Run the renewal as the timer does, sandbox included, after forgetting who was reloaded."""
    host.check_output("rm -f /run/reloaded-*; systemctl reset-failed nestbox-tls-renew.service")
    host.check_output("systemctl start nestbox-tls-renew.service")


def reloaded(host) -> list[str]:
    """Return the services that were reloaded since `renew` began."""
    return host.check_output("cd /run && ls -d reloaded-* || :").split()


def assert_consistent(host) -> None:
    """Fail unless the three files hold one pair."""
    assert host.check_output("openssl x509 -in %s/haproxy.pem -noout -serial", TLS) == serial(host)
    public = {
        host.check_output("openssl pkey -in %s/haproxy.pem -pubout", TLS),
        host.check_output("openssl pkey -in %s/key.pem -pubout", TLS),
        host.check_output("openssl x509 -in %s/fullchain.pem -noout -pubkey", TLS),
    }
    assert len(public) == 1


def assert_trusted(host, authority: str) -> None:
    """Fail unless a client that trusts the file `authority` accepts the certificate for every host, and for no other."""
    verify = f"openssl verify -CAfile {authority} -untrusted {TLS}/fullchain.pem -purpose sslserver -verify_hostname"
    for name in NAMES:
        seen = host.run(f"{verify} {name} {TLS}/fullchain.pem")
        assert seen.rc == 0, seen.stdout + seen.stderr
    assert host.run(f"{verify} example.org {TLS}/fullchain.pem").rc != 0

"""Role tls, mode private_ca: phones accept the certificate, the authority is worth nothing elsewhere, renewal works."""

import pytest
from certificate import ALL_RELOADED, NAMES, TLS, assert_consistent, assert_trusted, reloaded, renew, serial

testinfra_hosts = ["ansible://private_ca"]


def replace_certificate(host, days: int, names: list[str]) -> None:
    """Put a certificate of the private authority in place that is valid for `days` and covers `names`."""
    san = ",".join(f"DNS:{name}" for name in names)
    host.check_output(
        f"""set -e; cd {TLS}
        openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out /tmp/key
        openssl req -new -key /tmp/key -subj /CN=short -out /tmp/request
        echo subjectAltName={san} >/tmp/extensions
        openssl x509 -req -in /tmp/request -CA ca/cert.pem -CAkey ca/key.pem -set_serial 7 -days {days} \
            -extfile /tmp/extensions -out /tmp/leaf 2>/dev/null
        cat /tmp/key /tmp/leaf >haproxy.pem; cat /tmp/key >key.pem; cat /tmp/leaf >fullchain.pem"""
    )


def test_a_client_that_trusts_the_authority_accepts_every_host(host):
    assert_trusted(host, f"{TLS}/ca.pem")


def test_the_certificate_is_what_phones_accept(host):
    text = host.check_output("openssl x509 -in %s/fullchain.pem -noout -text", TLS)
    assert "ASN1 OID: prime256v1" in text
    assert host.run("openssl x509 -in %s/fullchain.pem -noout -checkend %s", TLS, str(366 * 86400)).rc == 1
    assert host.run("openssl x509 -in %s/fullchain.pem -noout -checkend %s", TLS, str(364 * 86400)).rc == 0


@pytest.mark.parametrize("name", ["example.org", "nestbox.test.example.org"])
def test_the_authority_cannot_vouch_for_anybody_else(host, name):
    """Who installs ca.pem on a phone must not thereby trust this Pi with the rest of the world."""
    replace_certificate(host, 90, [name])
    checked = host.run("openssl verify -CAfile %s/ca.pem -verify_hostname %s %s/fullchain.pem", TLS, name, TLS)
    renew(host)
    assert checked.rc != 0 and "permitted subtree violation" in checked.stdout + checked.stderr


def test_the_authority_signs_no_further_authority(host):
    usage = host.check_output("openssl x509 -in %s/ca.pem -noout -ext basicConstraints,keyUsage", TLS)
    assert "CA:TRUE, pathlen:0" in usage and "Certificate Sign, CRL Sign" in usage


@pytest.mark.parametrize(("days", "names"), [(29, NAMES), (90, NAMES[:2])], ids=["ends soon", "lacks hosts"])
def test_a_certificate_that_ends_soon_or_lacks_a_host_is_renewed(host, days, names):
    authority = host.check_output("sha256sum %s/ca.pem", TLS)
    replace_certificate(host, days, names)
    assert serial(host) == "serial=07"
    renew(host)
    assert serial(host) != "serial=07"
    assert_trusted(host, f"{TLS}/ca.pem")
    assert host.run("openssl x509 -in %s/fullchain.pem -noout -checkend %s", TLS, str(364 * 86400)).rc == 0
    assert reloaded(host) == ALL_RELOADED
    assert host.check_output("sha256sum %s/ca.pem", TLS) == authority, "phones would have to install it again"


def test_a_damaged_bundle_is_replaced(host):
    host.check_output("truncate -s 100 %s/haproxy.pem", TLS)
    renew(host)
    assert_consistent(host)


def test_another_domain_gets_another_certificate_and_authority(host):
    host.check_output("sed s/nestbox.test/other.test/g /usr/local/sbin/nestbox-tls-renew >/tmp/other && sh /tmp/other")
    verify = "openssl verify -CAfile %s/ca.pem -verify_hostname rooms.other.test %s/fullchain.pem"
    assert host.run(verify, TLS, TLS).rc == 0
    renew(host)
    assert host.run(verify, TLS, TLS).rc != 0
    assert_trusted(host, f"{TLS}/ca.pem")


def test_two_runs_at_once_do_not_disturb_each_other(host):
    replace_certificate(host, 1, NAMES)
    host.check_output("nestbox-tls-renew >/dev/null & first=$!; nestbox-tls-renew >/dev/null && wait $first")
    assert_consistent(host)
    assert host.check_output("find %s -name '.new.*'", TLS) == ""

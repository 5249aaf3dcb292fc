"""Whoever cuts his own connection off gets back in by waiting."""

from __future__ import annotations

GATEWAY = "10.0.2.2"  # as which QEMU shows us to the machine
ARMED = "/var/lib/nestbox-lockout-guard/armed"


def test_the_old_rules_come_back_after_a_cut_connection(host, connect, wait_for):
    rules = host.check_output("ufw status numbered")
    host.check_output("nestbox-lockout-guard arm && ufw insert 1 deny from %s to any port 22 proto tcp", GATEWAY)
    assert connect("true") is None, "else this test cut nothing"
    assert "DENY" in host.check_output("ufw status"), "the connection that was there before stays"
    wait_for(lambda: connect("true") is not None, 1000, "SSH again")
    wait_for(lambda: not host.file(ARMED).exists, 60, "the end of the restoring")
    assert host.check_output("ufw status numbered") == rules

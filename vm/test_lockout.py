"""Whoever cuts his own connection off gets back in by waiting."""

from __future__ import annotations

ARMED = "/var/lib/nestbox-lockout-guard/armed"


def test_the_old_rules_come_back_after_a_cut_connection(host, connect, wait_for):
    rules = host.check_output("ufw status numbered")
    host.check_output("nestbox-lockout-guard arm && ufw insert 1 deny 22/tcp")
    assert connect("true") is None, "else this test cut nothing"
    wait_for(lambda: connect("true") is not None, 600, "SSH again")
    wait_for(lambda: not host.file(ARMED).exists, 60, "the end of the restoring")
    assert host.check_output("ufw status numbered") == rules

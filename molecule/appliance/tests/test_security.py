"""Independent scanners look at the appliance: no figure may be worse than its best so far (security/ratchet.yml)."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import pytest
from appliance import starting_alone
from conftest import container_name, wait_for

sys.path.append(str(Path(__file__).parents[3]))

from security import ratchet
from security.target import Target

ADMIN = """
import socket, sys
haproxy = socket.socket(socket.AF_UNIX)
haproxy.connect("/run/haproxy/admin.sock")
haproxy.sendall(sys.argv[1].encode() + b"\\n")
print(b"".join(iter(lambda: haproxy.recv(65536), b"")).decode())
"""


@contextmanager
def without_limits(host) -> Iterator[None]:
    """HAProxy counts our connections as little as those of nestbox_trusted_addresses: such a scanner makes hundreds."""
    us = host.check_output("ip -4 route show default | awk '{print $3}'")
    lists = re.findall(
        r"^(\d+) \(.*acl 'src' file '/etc/haproxy", host.check_output("python3 -c %s 'show acl'", ADMIN), re.MULTILINE
    )
    assert lists
    for number in lists:
        host.check_output("python3 -c %s %s", ADMIN, f"add acl #{number} {us}")
    try:
        yield
    finally:
        for number in lists:
            host.check_output("python3 -c %s %s", ADMIN, f"del acl #{number} {us}")


@pytest.mark.parametrize("scanner", ["ssh_audit", "suid", "sysctl", "exposure", "ports", "sslyze", "testssl", "lynis"])
def test_no_figure_gets_worse(host, scanner):
    if scanner == "lynis":  # the baseline is made in the background after provisioning
        wait_for(lambda: host.file("/var/lib/nestbox-integrity/baseline").exists, 300, "the baseline of files")
    target = Target.of(container_name(host))
    apart = {
        "ports": starting_alone,  # it starts a container with an address of its own
        "sslyze": partial(without_limits, host),
        "testssl": partial(without_limits, host),
    }
    with apart.get(scanner, nullcontext)():
        figures = importlib.import_module(f"security.{scanner}").figures(target)
    assert ratchet.complaints(figures, target.release) == []

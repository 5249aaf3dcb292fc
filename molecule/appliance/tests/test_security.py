"""Independent scanners look at the appliance: no figure may be worse than its best so far (security/ratchet.yml)."""

from __future__ import annotations

import importlib
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from appliance import starting_alone
from conftest import container_name, wait_for

sys.path.append(str(Path(__file__).parents[3]))

from security import ratchet
from security.target import Target


@pytest.mark.parametrize("scanner", ["ssh_audit", "suid", "sysctl", "exposure", "ports", "lynis"])
def test_no_figure_gets_worse(host, scanner):
    if scanner == "lynis":  # the baseline is made in the background after provisioning
        wait_for(lambda: host.file("/var/lib/nestbox-integrity/baseline").exists, 300, "the baseline of files")
    target = Target.of(container_name(host))
    with starting_alone() if scanner == "ports" else nullcontext():  # it starts a container
        figures = importlib.import_module(f"security.{scanner}").figures(target)
    assert ratchet.complaints(figures, target.release) == []

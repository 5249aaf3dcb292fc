"""500 bad connections of one source, while another logs in 25 times on each port; the figure is how often within a second."""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path

from security.scanner import scanner
from security.target import Figure, ScannerError, Target, run

FLOOD = Path(__file__).with_name("flood.py")
LOG_IN = Path(__file__).with_name("log_in.py")
USER = "flood-test"
ENOUGH = 250  # bad connections at a time: HAProxy refuses a source some of its 500


def figures(target: Target) -> list[Figure]:
    """Figures are logins within a second, of 25, by port. Raises ScannerError when the flood does not get going."""
    password = secrets.token_urlsafe(12)
    target.run(f"echo {password} | nestboxctl user add {USER} --password-stdin")
    try:
        with scanner(target, name="flood") as bad, scanner(target, name="guest") as inside:
            run(*bad, "sh", "-c", 'python3 -c "$0" "$1" >/tmp/open &', FLOOD.read_text(), target.address)
            _await_flood(bad)
            took = json.loads(run(*inside, "python3", "-c", LOG_IN.read_text(), target.address, USER, password))
    finally:
        target.run(f"nestboxctl user delete {USER} --yes")
    return [
        Figure(f"logins in a flood {port}", sum(one < 1 for one in all_), (f"the slowest took {max(all_):.2f} s",))
        for port, all_ in took.items()
    ]


def _await_flood(bad: list[str]) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        last = run(*bad, "sh", "-c", "tail -n 1 /tmp/open").strip()
        if last and sum(json.loads(last).values()) >= ENOUGH:
            return
        time.sleep(0.5)
    raise ScannerError("the flood did not get going")

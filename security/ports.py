"""nmap from an address of its own: every TCP port of the appliance, open, refused ("closed") or silent ("filtered")."""

from __future__ import annotations

import re

from security.scanner import scanner
from security.target import Figure, ScannerError, Target, run

OPEN = {22, 80, 443, 5222, 5223}


def figures(target: Target) -> list[Figure]:
    """Figures are ports open that should not be or the other way round, and ports that refuse instead of keeping silent."""
    with scanner(target, "nmap", network="bridge") as inside:
        # A filtered port never answers: many are asked at a time, and each is asked again once.
        quick = ("-Pn", "-n", "-p-", "--min-rate=3000", "--max-retries=2", "--min-parallelism=100", "-oG", "-")
        text = run(*inside, "nmap", "-sS", *quick, target.address, seconds=600)
    states = {int(port): state for port, state in re.findall(r"(\d+)/(open|closed)/tcp", text)}
    if "Ports:" not in text:
        raise ScannerError("nmap saw no port at all")
    opened = {port for port, state in states.items() if state == "open"}
    closed = {port for port, state in states.items() if state == "closed"}
    rest = re.search(r"Ignored State: (\w+) \((\d+)\)", text)
    refused = len(closed) + (int(rest[2]) if rest and rest[1] == "closed" else 0)
    wrong = tuple(f"{port} is {'open' if port in opened else 'not open'}" for port in sorted(opened ^ OPEN))
    return [Figure("ports wrong", len(wrong), wrong), Figure("ports refused", refused)]

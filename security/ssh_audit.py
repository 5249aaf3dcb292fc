"""ssh-audit (PyPI) over the network: algorithms of the SSH server that it marks as failed or warns about."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from security.target import Figure, ScannerError, Target, run


def figures(target: Target) -> list[Figure]:
    """Raises ScannerError when the scan ended before it saw the server's algorithms."""
    program = Path(sys.executable).with_name("ssh-audit")
    # Its exit status is 2 after warnings, 3 after failures.
    report = json.loads(run(program, "--json", "--skip-rate-test", target.address, accept=(0, 2, 3)))
    if not report.get("kex"):
        raise ScannerError("ssh-audit saw no algorithms: is its address held back by the limit on new SSH connections?")
    marks: dict[str, list[str]] = {"fail": [], "warn": []}
    for kind in ("kex", "key", "enc", "mac"):
        for algorithm in report[kind]:
            for level, texts in algorithm.get("notes", {}).items():
                if level in marks:
                    marks[level] += [f"{algorithm['algorithm']}: {text}" for text in texts]
    return [Figure(f"ssh-audit {level}", len(found), tuple(found)) for level, found in marks.items()]

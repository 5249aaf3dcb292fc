"""testssl.sh over HTTPS: its grade as points, 5 for A+, 4 for A (or A-), down to 0; and what it calls a vulnerability."""

from __future__ import annotations

import json

from security.scanner import scanner
from security.target import Figure, ScannerError, Target, run

POINTS = {"A+": 5, "A": 4, "A-": 4, "B": 3, "C": 2, "D": 1}
BAD = {"LOW", "MEDIUM", "HIGH", "CRITICAL"}


def figures(target: Target) -> list[Figure]:
    # From the controller's address, which the limits per source leave alone: it opens hundreds of connections.
    with scanner(target, "testssl.sh bsdextrautils", network="host") as inside:
        ca = target.run("cat /etc/nestbox/tls/ca.pem")
        run(*inside, "sh", "-c", f"cat >/ca.pem <<'END'\n{ca}\nEND")
        options = (
            "--quiet",
            "--fast",
            "--warnings=batch",
            "--add-ca=/ca.pem",
            "--jsonfile=/report.json",
            f"--ip={target.address}",
        )
        # Its exit status is the number of things that it found.
        run(*inside, "testssl", *options, f"https://{target.domain}", accept=tuple(range(250)), seconds=900)
        report = json.loads(run(*inside, "cat", "/report.json"))
    grades = [entry["finding"] for entry in report if entry["id"] == "overall_grade"]
    if not grades:
        raise ScannerError("testssl.sh gave no grade")
    why = tuple(e["finding"] for e in report if e["id"].startswith(("grade_cap_reason", "overall_grade")))
    holes = tuple(f"{e['id']}: {e['finding']}" for e in report if e.get("cve") and e["severity"] in BAD)
    return [Figure("testssl grade", POINTS.get(grades[0], 0), why), Figure("testssl vulnerable", len(holes), holes)]

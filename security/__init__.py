"""What `make security` measures: one small file per scanner, each with `figures(target) -> list[Figure]`.

`scripts/security` runs all that are named in SCANNERS on the demo of both releases; molecule/appliance runs the quick ones in
`make test`. What a figure must not fall behind is in ratchet.yml.
"""

SCANNERS = ("lynis", "ssh_audit", "sysctl", "suid", "exposure", "sslyze", "testssl", "ports", "floods")

"""`systemd-analyze security`: how much of the system a unit's processes could reach; 0 is nothing, 10 everything."""

from __future__ import annotations

import json
import re

from security.target import Figure, Target

# Every service that Nestbox brings or that is reached from the network, by the row of the ratchet; the first unit that the host has.
UNITS = {
    "worker": ["nestbox@1.service"],
    "haproxy": ["haproxy.service"],
    "bus": ["valkey-server.service", "redis-server.service"],
    "mariadb": ["mariadb.service"],
    "maintenance": ["nestbox-maintenance.service"],
    "tls renewal": ["nestbox-tls-renew.service"],
}


def figures(target: Target) -> list[Figure]:
    there = set(target.run("systemctl list-unit-files --type=service --no-legend --no-pager --full").split())
    found = []
    for row, units in UNITS.items():
        names = [unit for unit in units if unit in there or unit.replace("@1.", "@.") in there]
        if names:
            report = json.loads(target.run(f"systemd-analyze security --json=short --no-pager {names[0]}"))
            missing = [line for line in report if not line["set"] and line.get("exposure")]
            missing.sort(key=lambda line: -float(line["exposure"]))
            text = target.run(f"systemd-analyze security --no-pager {names[0]}")
            level = re.search(r"exposure level for \S+: ([\d.]+)", text)[1]
            found.append(Figure(f"exposure {row}", float(level), tuple(line["name"] for line in missing)))
    return found

"""Kernel settings in force, of those that the kernel self-protection project, CIS and flood resistance ask for."""

from __future__ import annotations

from pathlib import Path

import yaml

from security.target import Figure, Target

KEYS = Path(__file__).with_name("sysctl_keys.yml")


def accepted(value: str, wanted: str) -> bool:
    """Whether a setting is one of `1|2`, or at least n for `>=n`."""
    return int(value or -1) >= int(wanted[2:]) if wanted.startswith(">=") else value in wanted.split("|")


def figures(target: Target) -> list[Figure]:
    keys = yaml.safe_load(KEYS.read_text())
    values = target.run("for k in " + " ".join(keys) + "; do echo $k $(sysctl -n $k 2>/dev/null); done")
    seen = {key: value.strip() for key, _, value in (line.partition(" ") for line in values.splitlines())}
    wrong = [f"{key} is {seen[key] or 'not there'}" for key, wanted in keys.items() if not accepted(seen[key], wanted)]
    return [Figure("sysctl keys", len(keys) - len(wrong), tuple(wrong))]

"""Figures may get better, never worse: ratchet.yml holds the best of each release."""

from __future__ import annotations

from pathlib import Path

import yaml

from security.target import Figure

FILE = Path(__file__).with_name("ratchet.yml")


def load() -> dict[str, dict]:
    """The rows of ratchet.yml by the figure's name: `better` (higher or lower), `goal`, and the best figure of each release."""
    return yaml.safe_load(FILE.read_text())


def judge(figure: Figure, release: str, rows: dict[str, dict]) -> str:
    """ "WORSE" (than the best so far), "UNKNOWN" (no row for it), "goal missed", "better" or "as before"."""
    row = rows.get(figure.name)
    if row is None or release not in row:
        return "UNKNOWN"
    sign = 1 if row["better"] == "higher" else -1
    if sign * (figure.value - row[release]) < 0:
        return "WORSE"
    if sign * (figure.value - row["goal"]) < 0:
        return "goal missed"
    return "better" if figure.value != row[release] else "as before"


def complaints(figures: list[Figure], release: str) -> list[str]:
    """A sentence for each figure that is worse than the ratchet, misses its goal or has no row."""
    rows = load()
    return [
        f"{figure.name} is {figure.value:g}, {verdict.lower()} "
        f"(best so far {rows.get(figure.name, {}).get(release)}, goal {rows.get(figure.name, {}).get('goal')}): "
        + "; ".join(figure.found[:20])
        for figure in figures
        if (verdict := judge(figure, release, rows)) not in ("better", "as before")
    ]

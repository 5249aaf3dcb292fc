"""The report of `capacity.py`: one picture, and one HTML page that holds the picture and the table."""

from __future__ import annotations

import base64
import html
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from appliance import Appliance
from matplotlib import pyplot
from matplotlib.axes import Axes
from ramp import Bounds, Step

__all__ = ["write"]

COLUMNS = (
    ("sessions", lambda s: f"{s.sessions}"),
    ("messages/s", lambda s: f"{s.rate:.0f}"),
    ("p50 ms", lambda s: f"{s.p50_ms:.1f}"),
    ("p99 ms", lambda s: f"{s.p99_ms:.1f}"),
    ("lost", lambda s: f"{s.lost}"),
    ("log-in p99 ms", lambda s: f"{s.login_p99_ms:.0f}" if s.new else ""),
    ("failed log-ins", lambda s: f"{s.failed}"),
    ("CPU % of all cores", lambda s: f"{s.cpu_percent:.0f}"),
    ("appliance's CPU, % of a core", lambda s: f"{sum(s.services_cpu.values()):.0f}"),
    ("its memory, MiB", lambda s: f"{sum(s.services_mib.values()):.0f}"),
    ("memory left %", lambda s: f"{s.available_percent:.0f}"),
    ("loop lag p99 ms", lambda s: f"{s.lag_p99_ms:.0f}"),
    ("generator's CPU, % of a core", lambda s: f"{s.generator_percent:.0f}"),
)
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em}img{max-width:100%}"
    "table{border-collapse:collapse;font-size:13px}td,th{border:1px solid #ccc;padding:.2em .5em;text-align:right}"
)


def write(
    out: Path, steps: list[Step], held: list[Step], end: str, why: str, bounds: Bounds, appliance: Appliance
) -> list[Path]:
    """Write ``out``.png and ``out``.html and return their paths."""
    out.parent.mkdir(parents=True, exist_ok=True)
    picture, page = out.with_suffix(".png"), out.with_suffix(".html")
    title = headline(held, appliance.name)
    _draw(picture, steps, title, end, bounds)
    _page(page, picture, steps, title, end, why, bounds, appliance)
    return [picture, page]


def headline(held: list[Step], name: str) -> str:
    """What the machine was seen to hold, in one line."""
    if not held:
        return f"{name[0].upper()}{name[1:]} held not even the first step"
    best = max(held, key=lambda step: (step.sessions, step.rate))
    return (
        f"{name[0].upper()}{name[1:]} held {best.sessions:,} sessions with {best.rate:.0f} messages a second "
        f"(p99 {best.p99_ms:.0f} ms)"
    )


def _draw(path: Path, steps: list[Step], title: str, end: str, bounds: Bounds) -> None:
    figure, axes = pyplot.subplots(2, 2, figsize=(10, 6.4), layout="constrained")
    figure.suptitle(f"{title}\nended since {end}", fontsize=10)
    numbers = range(len(steps))
    load, latency, cpu, memory = axes.flat
    load.set_title("load of each step")
    load.plot(numbers, [step.sessions for step in steps], "o-", label="sessions")
    rates = load.twinx()
    rates.plot(numbers, [step.rate for step in steps], "s--", color="tab:orange", label="messages/s (right)")
    load.legend(handles=[*load.get_lines(), *rates.get_lines()], fontsize=8)
    latency.set_title("delivery of a message, ms")
    for name in ("p50_ms", "p99_ms"):
        latency.plot(numbers, [getattr(step, name) for step in steps], "o-", label=name.removesuffix("_ms"))
    latency.plot(numbers, [step.lag_p99_ms for step in steps], ":", label="loop lag p99 of the worst worker, at most")
    latency.axhline(bounds.p99_ms, color="tab:red", lw=1, label="limit")
    latency.set_yscale("log")
    cpu.set_title("CPU, % of one core")
    _stack(cpu, steps, "services_cpu")
    cpu.plot(numbers, [step.generator_percent for step in steps], "k:", label="the generator, on our side")
    memory.set_title("memory (PSS), MiB")
    _stack(memory, steps, "services_mib")
    for axis in axes.flat:
        axis.set_xticks(numbers, [f"{step.sessions}\n{step.rate:.0f}/s" for step in steps], fontsize=6)
        axis.grid(alpha=0.3)
        if axis is not load:
            axis.legend(fontsize=7)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def _stack(axis: Axes, steps: list[Step], name: str) -> None:
    services = sorted({service for step in steps for service in getattr(step, name)})
    rows = [[getattr(step, name).get(service, 0) for step in steps] for service in services]
    if rows:
        axis.stackplot(range(len(steps)), rows, labels=services, alpha=0.8)


def _page(
    path: Path,
    picture: Path,
    steps: list[Step],
    title: str,
    end: str,
    why: str,
    bounds: Bounds,
    appliance: Appliance,
) -> None:
    data = base64.b64encode(picture.read_bytes()).decode()
    rows = "".join("<tr>" + "".join(f"<td>{column(step)}</td>" for _, column in COLUMNS) + "</tr>" for step in steps)
    heads = "".join(f"<th>{name}</th>" for name, _ in COLUMNS)
    shared = (
        " The generator ran on the same machine: CPU % counts the appliance's services only."
        * appliance.shares_this_machine
    )
    text = (
        f"Ended since {end}. Limits: p99 over {bounds.p99_ms:g} ms, memory left under {bounds.memory_percent:g} %, CPU over "
        f"{bounds.cpu_percent:g} %, over {bounds.error_percent:g} % of log-ins, sessions or messages lost; at most "
        f"{bounds.sessions} sessions ({why}) and {bounds.minutes:g} minutes.{shared}"
    )
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
        f"<h1>{html.escape(title)}</h1><p>{html.escape(text)}</p><p>{time.strftime('%Y-%m-%d %H:%M')}</p>"
        f'<img alt="The figures of the table as curves" src="data:image/png;base64,{data}">'
        f"<table><tr>{heads}</tr>{rows}</table></html>\n"
    )

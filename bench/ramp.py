"""The steps of `capacity.py`: how load grows, what one step found, and when it is enough. Nothing here touches a network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["Bounds", "Step", "machine_figures", "plan", "reached"]

MAX_SESSIONS = 20_000
MAX_MINUTES = 15
GENERATOR_FULL = 90.0  # per cent of a core: beyond, latencies are the generator's own
FASTER = 1.5


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where it ends: limits of the appliance in milliseconds and per cent, and those of the run itself."""

    p99_ms: float = 100
    memory_percent: float = 10
    cpu_percent: float = 90
    error_percent: float = 1
    sessions: int = MAX_SESSIONS
    minutes: float = MAX_MINUTES


@dataclass(slots=True)
class Step:
    """What was seen while ``sessions`` chatted with ``rate`` messages a second in all; percentages of the whole machine."""

    sessions: int
    rate: float
    new: int = 0
    failed: int = 0  # log-ins of this step
    why: str = ""  # of the first that failed
    dropped: int = 0  # sessions that the appliance ended
    sent: int = 0
    lost: int = 0
    p50_ms: float = 0
    p99_ms: float = 0
    login_p99_ms: float = 0
    generator_percent: float = 0  # of one core
    cpu_percent: float = 0
    available_percent: float = 100
    lag_p99_ms: float = 0
    services_cpu: dict[str, float] = field(default_factory=dict)  # per cent of one core
    services_mib: dict[str, float] = field(default_factory=dict)


def plan(step: int, per_minute: float, sessions: int) -> Iterator[tuple[int, float]]:
    """Sessions and messages a second of each step: first more sessions, then, with all of them, more messages."""
    count = 0
    while count < sessions:
        count = min(count + step, sessions)
        yield count, count * per_minute / 60
    rate = count * per_minute / 60
    while True:
        rate *= FASTER
        yield count, rate


def reached(step: Step, bounds: Bounds) -> str:
    """The first limit that a step went over, as a sentence; '' when it kept within all of them."""
    over = bounds.error_percent / 100
    if step.failed > step.new * over:
        return f"{step.failed} of {step.new} log-ins failed ({step.why})"
    if step.dropped > step.sessions * over:
        return f"the appliance ended {step.dropped} of {step.sessions} sessions"
    if step.generator_percent > GENERATOR_FULL:
        return (
            f"the generator used {step.generator_percent:.0f} % of its core: this is the limit of the generator, "
            "not of the appliance"
        )
    if step.lost > step.sent * over:
        return f"{step.lost} of {step.sent} messages did not arrive within five seconds"
    if step.p99_ms > bounds.p99_ms:
        return f"one message in a hundred took more than {bounds.p99_ms:.0f} ms (p99 {step.p99_ms:.0f} ms)"
    if step.available_percent < bounds.memory_percent:
        return f"only {step.available_percent:.0f} % of the memory was left"
    if step.cpu_percent > bounds.cpu_percent:
        return f"its cores were {step.cpu_percent:.0f} % busy"
    return ""


def machine_figures(step: Step, samples: list[dict], shared: bool) -> None:
    """Fill in what the appliance's samples of a step say; there are two or more, from its begin to its end.

    Where the appliance ``shared`` its cores with us and with others, only what its own services took counts.
    """
    first, last = samples[0], samples[-1]
    seconds = last["time"] - first["time"]
    busy, idle = last["busy"] - first["busy"], last["idle"] - first["idle"]
    step.cpu_percent = 100 * busy / ((busy + idle) or 1)
    step.available_percent = min(100 * sample["available_kib"] / sample["total_kib"] for sample in samples)
    for name, entry in last["services"].items():
        if name in first["services"]:
            step.services_cpu[name] = 100 * max(0.0, entry["cpu"] - first["services"][name]["cpu"]) / seconds
    if shared:
        step.cpu_percent = sum(step.services_cpu.values()) / last["cores"]
    whole = next((sample for sample in reversed(samples) if sample["whole"]), None)
    if whole is not None:
        step.services_mib = {name: entry["pss"] / 1024 for name, entry in whole["services"].items()}
    step.lag_p99_ms = max((_p99(*pair) for pair in zip(first["lags"], last["lags"], strict=False)), default=0.0) * 1e3


def _p99(before: dict[str, float], after: dict[str, float]) -> float:
    """The upper edge, in seconds, of the bucket that holds the 99th percentile of what came between two histograms."""
    counts = {edge: after[edge] - before.get(edge, 0) for edge in after}
    total = counts.get("+Inf", 0)
    edges = sorted(float(edge) for edge, count in counts.items() if total and count >= total * 0.99)
    return edges[0] if edges and edges[0] != float("inf") else (5.0 if edges else 0.0)

"""When `make capacity` asks for more, and when it has seen enough."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import islice

import pytest
from machine import ROOT

sys.path.insert(0, str(ROOT / "bench"))
from appliance import Appliance
from capacity import limits, read_arguments
from ramp import Bounds, Step, machine_figures, plan, reached

GOOD = Step(1000, 100, new=250, sent=1000, p50_ms=1, p99_ms=20, cpu_percent=50, available_percent=60)


def test_first_the_sessions_grow_then_the_messages():
    assert list(islice(plan(250, 6, 600), 5)) == [(250, 25), (500, 50), (600, 60), (600, 90), (600, 135)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"failed": 2}, ""),  # under one per cent
        ({"failed": 3, "why": "refused"}, "3 of 250 log-ins failed (refused)"),
        ({"dropped": 11}, "ended 11 of 1000 sessions"),
        ({"lost": 11}, "11 of 1000 messages"),
        ({"p99_ms": 101}, "p99 101 ms"),
        ({"available_percent": 9}, "9 % of the memory"),
        ({"cpu_percent": 91}, "91 % busy"),
        ({"generator_percent": 95, "p99_ms": 500}, "limit of the generator"),  # and not said of the appliance
        ({"new": 0, "failed": 0}, ""),
    ],
)
def test_a_step_ends_the_ramp_at_the_first_limit(change, said):
    verdict = reached(replace(GOOD, **change), Bounds())
    assert said in verdict and bool(said) == bool(verdict)


def test_a_machine_s_figures_are_those_between_two_samples():
    lags = {"0.01": 90.0, "0.1": 100.0, "+Inf": 100.0}
    first = {
        "time": 10.0,
        "busy": 4.0,
        "idle": 6.0,
        "cores": 2,
        "total_kib": 1000,
        "available_kib": 500,
        "whole": True,
        "services": {"worker 1": {"cpu": 1.0, "pss": 2048}},
        "lags": [lags],
    }
    later = {"0.01": 100.0, "0.1": 120.0, "+Inf": 120.0}
    last = {
        **first,
        "time": 20.0,
        "busy": 19.0,
        "idle": 11.0,
        "available_kib": 300,
        "whole": False,
        "services": {"worker 1": {"cpu": 6.0, "pss": 0}, "haproxy": {"cpu": 1.0, "pss": 0}},
        "lags": [later],
    }
    step = Step(2, 1)
    machine_figures(step, [first, last], shared=False)
    assert (step.cpu_percent, step.available_percent) == (75, 30)
    assert step.services_cpu == {"worker 1": 50}
    assert step.services_mib == {"worker 1": 2}
    assert step.lag_p99_ms == 100
    machine_figures(step, [first, last], shared=True)
    assert step.cpu_percent == 25


@pytest.mark.parametrize("option", ["--max-sessions=20001", "--max-minutes=16", "--step=1", "--logins=0"])
def test_a_run_has_hard_bounds(option, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["capacity", option])
    with pytest.raises(SystemExit):
        read_arguments()
    assert "capacity: error: " in capsys.readouterr().err


def test_no_more_sessions_than_the_appliance_takes(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["capacity"])
    appliance = Appliance("pi", "192.0.2.1", [])
    appliance.max_connections = 600
    bounds, why = limits(appliance, read_arguments())
    assert (bounds.sessions, bounds.minutes) == (550, 15)
    assert why == "nestbox_max_connections is 600 there"

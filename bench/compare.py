"""The tables of one server beside another: each row is one server under all the loads of `measure`."""

from __future__ import annotations

import argparse
import importlib
import tempfile
from dataclasses import astuple
from pathlib import Path
from statistics import median

from measure import CORE, Figures, measure, run
from peers import container, nestbox

__all__ = ["print_comparison", "print_servers"]

HEAD = (
    "| server, archive, transport | KiB/session: own / all | CPU us/login: own / all | CPU us/message: own / all | p50 / p99 ms "
    "| flat out, messages/CPU-s: own / all | (reached/s) | room: CPU us/stanza, p99 ms; CPU with stream management | lost | load before |\n"
    "|" + " --- |" * 10
)
# The archive of ours that a peer's is set beside, and the loads: what is not a message's way is measured by one transport.
COMPARED = (
    ("off", "off", "tcp", "chat flat room"),
    ("mariadb", "own", "tcp", "chat flat room"),
    ("sqlite", "sqlite", "tcp", "chat"),
    ("off", "off", "websocket", ""),
    ("off", "off", "tls", ""),
)
OWN = (
    ("off", "tcp", "chat flat room"),
    ("sqlite", "tcp", "chat flat room"),
    ("mariadb", "tcp", "chat flat room"),
    ("mariadb", "websocket", "chat flat"),
    ("mariadb", "tls", "chat flat"),
)


def _measure(name: str, archive: str, transport: str, loads: str, options: argparse.Namespace) -> Figures:
    start = importlib.import_module(f"peers.{name}").start
    with (
        tempfile.TemporaryDirectory(prefix="bench.") as folder,
        start(Path(folder), options.sessions, archive=archive, transport=transport, core=CORE) as server,
    ):
        return run(measure(server, options, loads))


def _row(name: str, figures: Figures) -> str:
    def pair(one: float, two: float, form: str = ".0f") -> str:
        return "-" if not two else f"{one:{form}}" if abs(one - two) < 0.05 * two else f"{one:{form}} / {two:{form}}"

    per_second = (
        1e6 / figures.flat_us if figures.flat_us else 0,
        1e6 / figures.flat_all_us if figures.flat_all_us else 0,
    )
    cells = (
        name,
        pair(figures.own_kib, figures.all_kib, ".1f"),
        pair(figures.login_us, figures.login_all_us),
        pair(figures.chat_us, figures.chat_all_us),
        f"{figures.p50:.2f} / {figures.p99:.1f}" if figures.chat_us else "-",
        pair(*per_second),
        f"{figures.reached:.0f}" if figures.reached else "-",
        f"{figures.room_us:.0f}, {figures.room_p99:.1f}; {figures.room_sm_us:.0f}" if figures.room_us else "-",
        f"{figures.lost}",
        f"{figures.load:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def _ratios(ours: Figures, theirs: Figures) -> str:
    """How many times ours the peer's is, all processes of both counted."""

    def times(name: str) -> str:
        own, peer = getattr(ours, name), getattr(theirs, name)
        return f"{peer / own:.1f}" if own and peer else "-"

    names = ("all_kib", "login_all_us", "chat_all_us", "p99", "flat_all_us", "reached")
    cells = [times(name) for name in names] + [f"{times('room_us')}; {times('room_sm_us')}"]
    return f"| **peer : ours** (all processes) | {' | '.join(cells)} | | |"


def _medians(rounds: list[Figures]) -> Figures:
    return Figures(*(median(column) for column in zip(*map(astuple, rounds), strict=True)))


def print_servers(options: argparse.Namespace) -> None:
    """Ours alone."""
    print(f"\n## One worker\n\n{nestbox.SETTINGS}\n\n{HEAD}")
    for archive, transport, loads in OWN:
        print(
            _row(f"Nestbox, {archive}, {transport}", _measure("nestbox", archive, transport, loads, options)),
            flush=True,
        )


def print_comparison(options: argparse.Namespace) -> None:
    """Ours and the peer's, alternately."""
    peer = options.peer
    container.image()
    module = importlib.import_module(f"peers.{peer}")
    print(f"\n## Beside {container.version(*module.PACKAGES)}\n\n{nestbox.SETTINGS}\n\n{module.SETTINGS}\n\n{HEAD}")
    for own_archive, peer_archive, transport, loads in COMPARED:
        if options.only not in f"{peer_archive},{transport}":
            continue
        ours, theirs = [], []
        for _ in range(options.rounds if "flat" in loads else 1):
            ours.append(_measure("nestbox", own_archive, transport, loads, options))
            theirs.append(_measure(peer, peer_archive, transport, loads, options))
        ours, theirs = _medians(ours), _medians(theirs)
        print(_row(f"Nestbox, {own_archive}, {transport}", ours))
        print(_row(f"{peer}, {peer_archive}, {transport}", theirs))
        print(_ratios(ours, theirs), flush=True)

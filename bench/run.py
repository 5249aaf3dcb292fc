"""The figures of the README: what the IM server costs and how quick it is, alone or beside a peer.

The load and the server share the machine, each on cores of its own; CPU seconds are the figure to compare, wall clock is
not. See bench/README.md for how each figure is taken.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import resource
from pathlib import Path

from acks import print_acks
from archive import print_archive
from budget import print_budget
from compare import print_comparison, print_servers
from crowd import print_crowd
from hot import print_profile
from logins import print_logins
from pages import print_pages
from peers import DOMAIN, PASSWORD, users
from peers.nestbox import create_accounts
from storm import print_storm

__all__ = ["DOMAIN", "PASSWORD", "create_accounts", "users"]

TABLES = {
    "servers": print_servers,
    "logins": print_logins,
    "acks": print_acks,
    "budget": print_budget,
    "crowd": print_crowd,
    "storm": lambda options: print_storm(options.people),
    "profile": print_profile,
    "archive": print_archive,
    "pages": print_pages,
}


def machine() -> str:
    """The machine in one line."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith(("model name", "Model"))
        ),
        platform.machine(),
    )
    release = platform.freedesktop_os_release()["PRETTY_NAME"]
    return f"{os.cpu_count()} x {model}, {release}, kernel {platform.release()}, Python {platform.python_version()}"


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", help=f"{', '.join(TABLES)}; all of them where none is named")
    parser.add_argument("--peer", choices=("ejabberd", "prosody"), help="only a comparison with this server")
    parser.add_argument("--rounds", type=int, default=3, help="how often each of both is measured (%(default)s)")
    parser.add_argument("--only", default="", help="of the comparison, only rows such as 'off,tcp', 'own', 'tls'")
    parser.add_argument("--sessions", type=int, default=4000, help="sessions online (%(default)s)")
    parser.add_argument("--rate", type=float, default=500, help="messages per second in all (%(default)s)")
    parser.add_argument("--seconds", type=float, default=12, help="length of the chat (%(default)s)")
    parser.add_argument("--occupants", type=int, default=100, help="people in the room (%(default)s)")
    parser.add_argument("--room-rate", type=float, default=20, help="messages per second in the room (%(default)s)")
    parser.add_argument("--acked", type=int, default=500, help="sessions with stream management (%(default)s)")
    parser.add_argument("--logins", type=int, default=1000, help="accounts for the table of log-ins (%(default)s)")
    parser.add_argument("--crowd", type=int, default=20_000, help="sessions of the crowd (%(default)s)")
    parser.add_argument("--people", type=int, default=4000, help="who come back at once (%(default)s)")
    parser.add_argument("--history", type=int, default=1_000_000, help="messages of which pages are read (%(default)s)")
    parser.add_argument("--minutes", type=float, default=4, help="for the pages (%(default)s)")
    options = parser.parse_args()
    unknown = set(options.tables) - set(TABLES)
    if unknown:
        parser.error(f"there is no table {', '.join(sorted(unknown))}")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < options.sessions + 200:
        raise SystemExit(f"bench: {options.sessions} sessions need ulimit -n {options.sessions + 200}, it is {hard}")
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)  # for what may not run in real time, such as the budget's servers
    print(
        f"# {machine()}\n\n{options.sessions} sessions, {options.rate:.0f} messages/s for {options.seconds:.0f} s, then flat "
        f"out for half as long; load average {os.getloadavg()[0]:.1f} before"
    )
    if options.peer:
        print_comparison(options)
        return
    for name in options.tables or TABLES:
        TABLES[name](options)


if __name__ == "__main__":
    main()

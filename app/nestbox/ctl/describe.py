"""nestboxctl doap and compliance: what this release implements."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from nestbox import compliance

__all__ = ["add_parsers"]


def add_parsers(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], add: Callable[..., argparse.ArgumentParser]
) -> None:
    """Declare the commands."""
    about = "Show how each requirement of XEP-0479 for servers is met; the exit status is 0 only when all are."
    parser = add(commands, "compliance", _compliance, about, "nestboxctl compliance")
    parser.add_argument("--markdown", action="store_true", help="with all XEPs and RFCs, as the README has it")
    add(commands, "doap", _doap, "Print the project's DOAP file.", "nestboxctl doap > doap.xml")


def _compliance(args: argparse.Namespace) -> int:
    found = compliance.declared()
    if args.markdown:
        print(compliance.markdown(found), end="")
    else:
        rows = compliance.table(found)
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (*row[:-1], row[-1] or "NOT MET")
            print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    return 0 if all(compliance.is_met(row, found) for row in compliance.ROWS) else 1


def _doap(args: argparse.Namespace) -> None:
    print(compliance.doap(compliance.declared()), end="")

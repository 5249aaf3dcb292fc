"""ports.py ADDRESS --open PORT... --closed PORT... : how a host's TCP ports look from this machine, as JSON findings.

A PORT of --open is `PORT` or `PORT:AS`, where the host's PORT is reached as AS from here. A finding has the fields of
`nestboxctl status --json`. The exit status is 0 whatever is found.
"""

from __future__ import annotations

import argparse
import json
import socket
from concurrent.futures import ThreadPoolExecutor

SECONDS = 3.0


def state(address: str, port: int) -> str:
    """Return "open", "closed" (refused) or "filtered" (no answer)."""
    try:
        socket.create_connection((address, port), timeout=SECONDS).close()
    except ConnectionRefusedError:
        return "closed"
    except OSError:  # no answer in time, or a router says that there is no way
        return "filtered"
    return "open"


def finding(kind: str, what: str, cure: str = "") -> dict[str, str]:
    return {"check": "ports", "state": kind, "what": what, "cure": cure}


def findings(address: str, wanted: dict[int, int], unwanted: list[int]) -> list[dict[str, str]]:
    """``wanted`` maps the host's ports to those they are reached as."""
    try:
        socket.getaddrinfo(address, None)
    except OSError as error:
        cure = "Set status_address of this host to a name or an address that this machine reaches."
        return [
            finding("warning", f"Nothing is seen from outside: {address} has no address here ({error.strerror}).", cure)
        ]
    with ThreadPoolExecutor(32) as pool:
        seen = dict(zip(wanted, pool.map(lambda port: state(address, port), wanted.values()), strict=True))
        leaks = dict(zip(unwanted, pool.map(lambda port: state(address, port), unwanted), strict=True))
    found = []
    for port, how in seen.items():
        if how != "open":
            cure = f"See 'sudo ufw status' and 'systemctl status haproxy' on it, and what is between it and here ({address})."
            found.append(finding("fault", f"Port {port} is {how} from outside.", cure))
    for port, how in leaks.items():
        if how == "open":
            cure = "Run playbooks/site.yml --tags firewall; if you opened it yourself: 'sudo ufw status numbered'."
            found.append(finding("fault", f"Port {port} is open to the network and should not be.", cure))
    what = f"{', '.join(map(str, wanted))} are open from outside, {len(unwanted)} others that could leak are not"
    return found or [finding("ok", what)]


def main() -> None:
    parser = argparse.ArgumentParser(description="How a host's TCP ports look from this machine.")
    parser.add_argument("address")
    parser.add_argument("--open", nargs="*", default=[], metavar="PORT[:AS]")
    parser.add_argument("--closed", nargs="*", default=[], type=int, metavar="PORT")
    args = parser.parse_args()
    pairs = (one.partition(":") for one in args.open)
    wanted = {int(port): int(seen or port) for port, _, seen in pairs}
    print(json.dumps(findings(args.address, wanted, args.closed)))


if __name__ == "__main__":
    main()

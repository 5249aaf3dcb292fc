"""More containers beside the appliance, with scanners of the newest Ubuntu inside, for what must be seen from the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from security.target import ROOT, Target, run

IMAGE = "nestbox/pi:26.04"


@contextmanager
def scanner(
    target: Target, packages: str = "", *, network: str = "bridge", name: str = "scanner"
) -> Iterator[list[str]]:
    """Yield what to put before a command to run it beside the target, with packages of Ubuntu installed; removed at the end.

    `network` is Docker's: "bridge" gives an address of its own, "host" the one of the controller; `name` tells two containers
    apart. Raises ScannerError.
    """
    run(ROOT / "scripts" / "pi-image", IMAGE.split(":")[1], seconds=900)
    name = f"{target.container}-{name}"
    run("docker", "rm", "--force", name)
    names = f"--add-host={target.domain}:{target.address}"
    run(
        "docker",
        "run",
        "--detach",
        f"--name={name}",
        f"--network={network}",
        names,
        "--entrypoint=sleep",
        IMAGE,
        "infinity",
    )
    inside = ["docker", "exec", name]
    try:
        install = "apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends"
        if packages:
            run(*inside, "sh", "-c", f"{install} {packages}")
        yield inside
    finally:
        run("docker", "rm", "--force", name)

"""A machine of its own for each test of the scripts: a copy of what they need, and a network that holds nothing but loopback."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NETWORK = ["unshare", "--net"] if os.getuid() == 0 else ["unshare", "--map-root-user", "--net"]
# Listens on the ports that it is given, then becomes the command after "--".
INTRUDER = """
import os, socket, sys
split = sys.argv.index("--")
for port in map(int, sys.argv[1:split]):
    taken = socket.create_server(("127.0.0.1", port))
    os.set_inheritable(taken.fileno(), True)
    taken.detach()
os.execvp(sys.argv[split + 1], sys.argv[split + 1:])
"""


class Machine:
    """A copy of what `make` needs, and programs put before the machine's own."""

    def __init__(self, folder: Path) -> None:
        self.root, self.programs = folder / "nestbox", folder / "programs"
        self.programs.mkdir()
        self.root.mkdir()
        shutil.copytree(ROOT / "scripts", self.root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        for name in (
            "Makefile",
            "requirements.txt",
            "containers",
            "roles",
            "app/requirements.txt",
            "app/pyproject.toml",
        ):
            target = self.root / name
            target.parent.mkdir(exist_ok=True)
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, target)
        self.before = self.files()

    def files(self) -> set[Path]:
        return {path.relative_to(self.root) for path in self.root.rglob("*") if "__pycache__" not in path.parts}

    def program(self, name: str, script: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def refuses(self, *command: str, taken: tuple[int, ...] = (), **environment: str) -> str:
        """Run a command that must fail; return the last sentence, and fail when there are others beside it and progress lines."""
        intruder = ["python3", "-c", INTRUDER, *map(str, taken), "--"]
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("DOCKER_", "MAKE", "OS", "MFLAGS"))
        }
        done = subprocess.run(
            [*NETWORK, "sh", "-c", 'ip link set lo up; exec "$@"', "sh", *intruder, *command],
            cwd=self.root,
            env={**kept, "PATH": f"{self.programs}:{SYSTEM}", "PIP_RETRIES": "0", **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode, done.stdout
        progress = r"make(\[\d+\])?: \*\*\*|(Filling|Installing|Starting) |(Fetching|Building) .+\(about a minute\)$|\[ *\d+ s\] "
        said = [line for line in (done.stdout + done.stderr).splitlines() if not re.match(progress, line)]
        assert len(said) == 1, done.stdout + done.stderr
        return said[0]

    def unchanged(self) -> bool:
        return self.files() == self.before

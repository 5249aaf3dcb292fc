"""What goes wrong on the machine that one works on is said in one sentence, with a status that is not 0, before anything is changed.

Each case runs in a network of its own, which holds nothing but loopback: no mirror answers there, and every port is free.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.program("docker", "exit 1")  # as if no daemon answered
    return machine


def test_a_release_that_is_not_supported(machine):
    said = machine.refuses("make", "demo", "OS=22.04")
    assert said == "demo: Ubuntu 22.04 is not supported: choose OS=26.04 or OS=24.04."
    assert machine.unchanged()


@pytest.mark.parametrize("port", [8443, 8080, 5222, 5223])
def test_a_port_of_the_demo_is_taken(machine, port):
    said = machine.refuses("make", "demo", taken=(port,))
    assert said.startswith(f"demo: port {port} of this machine is taken (Address already in use): stop the program")
    assert machine.unchanged()


@pytest.mark.parametrize("port", [5222, 5280])
def test_a_port_of_serve_is_taken(machine, port):
    said = machine.refuses(sys.executable, "scripts/serve.py", taken=(port,))
    assert said.startswith(f"serve: port {port} is taken (Address already in use): stop the program")
    assert machine.unchanged()


def test_no_docker_for_somebody_who_may_not_install_it(machine):
    machine.program("id", "echo 1000")
    said = machine.refuses("make", "demo")
    assert said.startswith("No Docker daemon answers: start Docker (or run this as root on Debian or Ubuntu)")
    assert machine.unchanged()


def test_no_docker_where_the_environment_says_it_is(machine):
    said = machine.refuses("make", "demo", DOCKER_HOST="unix:///nowhere.sock")
    assert said.startswith(
        "No Docker daemon answers at DOCKER_HOST=unix:///nowhere.sock: start it or unset the variable."
    )
    assert machine.unchanged()


def test_no_network_for_a_package_of_this_machine(machine):
    machine.program("id", "echo 0")
    said = machine.refuses("scripts/apt-need", "This test", "nestbox-no-such-package")
    assert re.match(r"apt could not install nestbox-no-such-package \(E: .+\): mend that, then try again", said)


def test_a_package_that_only_root_may_install(machine):
    machine.program("id", "echo 1000")
    said = machine.refuses("scripts/apt-need", "This test", "nestbox-no-such-package")
    assert said.startswith("This test needs nestbox-no-such-package: install it with your system's package manager")


def test_no_network_for_the_python_packages(machine):
    said = machine.refuses("make", "venv")
    assert re.match(r"pip could not fill \.venv \(ERROR: .+\): .+ set PIP_INDEX_URL to your mirror\.$", said)
    assert not (machine.root / ".venv" / "stamp").exists()  # the next run begins again


def test_no_network_for_the_image(machine):
    machine.program("docker", '[ "$1" = version ]')  # the daemon answers, has no image and can fetch none
    machine.program("dpkg-query", "echo install ok installed")
    for name in ("debootstrap", "apt-get"):
        machine.program(name, "echo 'E: the mirror does not answer'; exit 1")
    said = machine.refuses("scripts/pi-image", "26.04", TMPDIR=str(machine.root.parent))
    assert re.match(
        r"Building nestbox/pi:26\.04 failed \(E: the mirror does not answer\): mend that, then try again; the whole log is ",
        said,
    )


@pytest.mark.parametrize("cpu", ["x86_64", "aarch64"])
def test_no_network_for_the_servers_wheels(machine, cpu):
    command = [sys.executable, str(ROOT / "roles/im_server/files/wheelhouse.py"), "--python=3.14", f"--cpu={cpu}"]
    said = machine.refuses(*command, f"--app={ROOT / 'app'}", f"--cache={machine.root.parent / 'cache'}")
    assert re.match(
        r"pip download failed on this machine \(.+\): .+ set PIP_INDEX_URL to your mirror, then run again\.$", said
    )
    assert not list((machine.root.parent / "cache").rglob("*.tar"))


@pytest.mark.parametrize("playbook", sorted(path.name for path in (ROOT / "playbooks").glob("*.yml")))
def test_every_playbook_is_explained_in_the_readme(playbook):
    assert f"`playbooks/{playbook}`" in (ROOT / "README.md").read_text()

"""What goes wrong on the machine that one works on is said in one sentence, with a status that is not 0, before anything is changed.

Each case runs in a network of its own, which holds nothing but loopback: no mirror answers there, and every port is free.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from machine import ROOT, Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.program("docker", "exit 1")  # as if no daemon answered
    return machine


def test_a_release_that_is_not_supported(machine):
    said = machine.refuses("make", "demo", "OS=22.04")
    assert said == "demo: Ubuntu 22.04 is not supported: choose OS=26.04 or OS=24.04."
    assert machine.unchanged()


def test_an_architecture_that_no_test_machine_has(machine):
    said = machine.refuses("make", "test-vm", "ARCH=riscv64")
    assert said.startswith(
        "test-vm: ARCH=riscv64 is not one that this machine can test: leave it out, or say ARCH=arm64."
    )
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

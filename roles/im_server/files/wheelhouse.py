"""Runs on the controller: packs the IM server and every wheel it needs, for one CPU and Python, into one archive.

Prints JSON: ``release`` (version and hash of the sources), ``archive`` (path of the tar file) and ``changed``. What was
packed before is not fetched again. The archive holds the wheels and ``release.txt``, a requirements file by hash.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE_FILES = ("pyproject.toml", "requirements.in", "requirements.txt", "README.md")
# Oldest C library first; Ubuntu 24.04 has 2.39.
MANYLINUX = ("manylinux2014", "manylinux_2_17", "manylinux_2_28", "manylinux_2_34")


def sources(app: Path) -> list[Path]:
    """Every file of the package, without what Python or tests leave behind."""
    found = [app / name for name in PACKAGE_FILES]
    found += [path for path in (app / "nestbox").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return sorted(found)


def digest(app: Path, files: list[Path]) -> str:
    """Twelve hex digits that change with any source or requirement."""
    total = hashlib.sha256()
    for path in files:
        total.update(f"{path.relative_to(app)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:12]


def pip(*arguments: str) -> None:
    """Run pip; ends the program in one sentence if it fails."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or "no message").splitlines()[-1].removeprefix("ERROR: ")
        sys.exit(
            f"pip {arguments[0]} failed on this machine ({reason}): where the package index cannot be reached, set PIP_INDEX_URL "
            "to your mirror, then run again."
        )


def download(requirements: Path, python: str, cpu: str, folder: Path) -> None:
    """Fetch the wheels of the requirements for the target, each checked by its hash."""
    tag = "cp" + python.replace(".", "")
    platforms = [f"--platform={name}_{cpu}" for name in MANYLINUX]
    pip(
        "download",
        "--require-hashes",
        "--only-binary=:all:",
        "--implementation=cp",
        f"--python-version={python}",
        f"--abi={tag}",
        "--abi=abi3",
        "--abi=none",
        *platforms,
        f"--requirement={requirements}",
        f"--dest={folder}",
    )


def build(app: Path, files: list[Path], folder: Path) -> Path:
    """Build the app's own wheel from a copy, so that nothing is left in the sources."""
    with tempfile.TemporaryDirectory() as copy:
        for path in files:
            target = Path(copy) / path.relative_to(app)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        pip("wheel", "--no-deps", f"--wheel-dir={folder}", copy)
    return next(folder.glob("nestbox-*.whl"))


def pack(app: Path, files: list[Path], python: str, cpu: str, wheels: Path, archive: Path) -> None:
    """Write the archive; it appears under its name only when it is whole."""
    requirements = app / "requirements.txt"
    stamp = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if not (wheels / stamp).exists():
        shutil.rmtree(wheels, ignore_errors=True)
        wheels.mkdir(parents=True)
        download(requirements, python, cpu, wheels)
        (wheels / stamp).touch()
    with tempfile.TemporaryDirectory(dir=archive.parent) as work:
        own = build(app, files, Path(work))
        release = Path(work) / "release.txt"
        checksum = hashlib.sha256(own.read_bytes()).hexdigest()
        release.write_text(f"{requirements.read_text()}\nnestbox=={own.name.split('-')[1]} --hash=sha256:{checksum}\n")
        unfinished = Path(work) / "archive"
        with tarfile.open(unfinished, "w") as tar:  # wheels are compressed already
            for path in [own, release, *sorted(wheels.glob("*.whl"))]:
                tar.add(path, path.name)
        unfinished.replace(archive)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--app", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--python", required=True, help="the target's, as 3.14")
    parser.add_argument("--cpu", required=True, choices=["x86_64", "aarch64"])
    options = parser.parse_args()
    app, key = options.app.resolve(), f"cp{options.python.replace('.', '')}-{options.cpu}"
    cache = options.cache.resolve() / "wheels"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{key}.lock").open("w") as lock:  # two hosts alike wait for one download
        fcntl.flock(lock, fcntl.LOCK_EX)
        files = sources(app)
        version = re.search(r'__version__ = "([^"]+)"', (app / "nestbox" / "__init__.py").read_text()).group(1)
        release = f"{version}-{digest(app, files)}"
        archive = cache / f"nestbox-{release}-{key}.tar"
        missing = not archive.exists()
        if missing:
            for old in cache.glob(f"nestbox-*-{key}.tar"):
                old.unlink()
            pack(app, files, options.python, options.cpu, cache / key, archive)
    print(json.dumps({"release": release, "archive": str(archive), "changed": missing}))


if __name__ == "__main__":
    main()

"""Builds the web chat into a folder as role web_client does: ``web_chat.py FOLDER DOMAIN``."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import jinja2
import yaml

ROOT = Path(__file__).resolve().parent.parent
ROLE = ROOT / "roles" / "web_client"
CACHE = ROOT / ".cache" / "nestbox" / "web"


def build(web: Path, domain: str) -> Path | None:
    """Returns the folder, or None when npm is not there. Ends the program when npm brings something else or nothing."""
    told = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text()) | {"web_client_domain": domain}
    version = told["web_client_version"]
    package = CACHE / f"converse.js-{version}.tgz"
    if not package.exists():
        if not shutil.which("npm"):
            print("No web chat: it comes from npm, which is not installed.", file=sys.stderr)
            return None
        CACHE.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", "--silent", "--pack-destination", CACHE, f"converse.js@{version}"]
        npm = subprocess.run(command, capture_output=True, text=True, check=False)
        if npm.returncode:
            sys.exit(f"The web chat comes from npm, which failed: {(npm.stderr or npm.stdout).strip()[-500:]}")
    if hashlib.sha512(package.read_bytes()).hexdigest() != told["web_client_sha512"]:
        package.unlink()
        sys.exit(f"npm brought another converse.js {version} than the one pinned in {ROLE}/defaults/main.yml.")
    web.mkdir(parents=True, exist_ok=True)
    if not (web / "dist").exists():
        with tempfile.TemporaryDirectory(dir=web.parent) as folder, tarfile.open(package) as archive:
            archive.extractall(folder, [m for m in archive if m.name.startswith("package/dist/")], filter="data")
            (Path(folder) / "package" / "dist").rename(web / "dist")
    pages = jinja2.Environment(loader=jinja2.FileSystemLoader(ROLE / "templates"))
    pages.filters["to_json"] = json.dumps
    for name in pages.list_templates():
        (web / name.removesuffix(".j2")).write_text(pages.get_template(name).render(told))
    return web


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1]), sys.argv[2]) is None)

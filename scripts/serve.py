"""Writes what one worker needs into .serve/ (certificate, configuration, web chat, an account), then becomes that worker."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import web_chat
import yaml

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".serve"
CONFIG = STATE / "nestbox.yml"
DOMAIN = "localhost"
USER = "ada"
HTTP, C2S = 5280, 5222


def run(*command: str | Path, stdin: str | None = None) -> str:
    """Run a command and return what it printed; ends the program with its last words when it fails."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"serve: {Path(command[0]).name} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def refuse_taken_ports() -> None:
    for port in (HTTP, C2S):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                sys.exit(
                    f"serve: port {port} is taken ({error.strerror}): stop the program that uses it, then try again."
                )


def certificate() -> None:
    if (STATE / "key.pem").exists():
        return
    if not shutil.which("openssl"):
        sys.exit("serve: openssl makes the certificate for STARTTLS: install it, then try again.")
    names = f"subjectAltName=DNS:{DOMAIN},IP:127.0.0.1"
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650"]
    run(
        "openssl",
        "req",
        *kind,
        "-subj",
        f"/CN={DOMAIN}",
        "-addext",
        names,
        "-keyout",
        STATE / "key.pem",
        "-out",
        STATE / "cert.pem",
    )


def configuration(web: Path | None) -> None:
    CONFIG.write_text(
        yaml.safe_dump(
            {
                "domain": DOMAIN,
                "admins": [USER],
                "state_dir": str(STATE),
                "listen": {
                    "http": f"127.0.0.1:{HTTP}",
                    "c2s": f"127.0.0.1:{C2S}",
                    "c2s_tls": "",
                    "metrics": "",
                    "proxy_protocol": False,
                },
                "database": {"url": f"sqlite:///{STATE}/nestbox.db"},
                # A browser on this machine speaks plain HTTP to it; nobody else can reach it.
                "tls": {"certificate": str(STATE / "cert.pem"), "key": str(STATE / "key.pem"), "require": False},
                "web": {"root": str(web) if web else None, "https_url": f"http://{DOMAIN}:{HTTP}"},
            }
        )
    )


def account(ctl: list[str | Path]) -> None:
    """Make the first account; its password stays in .serve/password."""
    names = [entry["username"] for entry in json.loads(run(*ctl, "user", "list", "--json"))]
    file = STATE / "password"
    if USER not in names:
        file.touch(0o600)
        file.write_text(secrets.token_urlsafe(12))
        run(*ctl, "user", "add", USER, "--password-stdin", stdin=file.read_text())
    print(
        f"Web chat:  http://{DOMAIN}:{HTTP}/\nXMPP apps: server 127.0.0.1, port {C2S}\nAccount:   {USER}@{DOMAIN}",
        flush=True,
    )
    print(
        f"Password:  {file.read_text()}\nAnother:   .venv/bin/nestboxctl --config .serve/nestbox.yml user add NAME",
        flush=True,
    )


def main() -> None:
    refuse_taken_ports()
    STATE.mkdir(mode=0o700, exist_ok=True)
    (STATE / ".gitignore").write_text("*\n")
    certificate()
    configuration(web_chat.build(STATE / "web", DOMAIN))
    ctl = [ROOT / ".venv" / "bin" / "nestboxctl", "--config", CONFIG]
    run(*ctl, "migrate")
    account(ctl)
    os.execv(sys.executable, [sys.executable, "-m", "nestbox", "--config", str(CONFIG)])


if __name__ == "__main__":
    main()

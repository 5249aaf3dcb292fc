"""sslyze (PyPI): what each TLS port offers, against Mozilla's guideline "intermediate"; the figure is the number of ports that comply."""

from __future__ import annotations

import fcntl
import hashlib
import sys
import tempfile
from pathlib import Path

from security.target import ROOT, Figure, Target, run

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
STARTTLS = ("--starttls=xmpp", "--xmpp_to={domain}")
PORTS = {443: (), 5223: (), 5222: STARTTLS}


def program() -> Path:
    """sslyze in a virtual environment that is made when it is missing or its pins changed. Raises ScannerError."""
    stamp = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = ROOT / ".cache" / "security" / stamp
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two hosts are scanned side by side
        if not (folder / "bin" / "sslyze").exists():
            run(sys.executable, "-m", "venv", "--clear", folder)
            pip = (folder / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check", "install")
            run(*pip, "--require-hashes", "-r", REQUIREMENTS, seconds=600)
    return folder / "bin" / "sslyze"


def figures(target: Target) -> list[Figure]:
    found, compliant = [], 0
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as ca:
        ca.write(target.run("cat /etc/nestbox/tls/ca.pem"))
        ca.flush()
        for port, options in PORTS.items():
            command = [
                program(),
                "--mozilla_config=intermediate",
                f"--certinfo_ca_file={ca.name}",
                f"--sni={target.domain}",
            ]
            command += [option.format(domain=target.domain) for option in options]
            # Its exit status is 1 for a port that does not comply, which its last lines explain.
            text = run(*command, f"{target.address}:{port}", accept=(0, 1))
            verdict = text.split("COMPLIANCE AGAINST TLS CONFIGURATION")[-1]
            if "OK - Compliant" in verdict:
                compliant += 1
            else:
                found += [
                    f"{port}: {line.strip(' *')}" for line in verdict.splitlines() if line.strip().startswith("*")
                ]
    return [Figure("sslyze ports", compliant, tuple(found))]

"""How long the certificate is good, and whether HAProxy shows the one that is on the disk."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta

from nestbox.config import Config
from nestbox.ctl.checks import host
from nestbox.ctl.checks.finding import Finding, fault, fine, warning

__all__ = ["check", "judge"]

_NAME = "certificate"
_RENEW = (
    "Run 'sudo systemctl start nestbox-tls-renew' and read 'journalctl -u nestbox-tls-renew'; your own: replace it."
)


async def check(config: Config) -> list[Finding]:
    """Nothing when the server has no certificate."""
    path = config.tls.certificate
    if not path:
        return []
    said = await host.command("openssl", "x509", "-in", path, "-noout", "-startdate", "-enddate")
    if said is None:
        return [warning(_NAME, f"{path} cannot be read as a certificate from here.", f"See 'openssl x509 -in {path}'.")]
    start, end = (_date(line) for line in said.splitlines()[:2])
    found = [judge(start, end, datetime.now(UTC))]
    if host.appliance(config):
        found += await asyncio.to_thread(_served, path, 443)
    return found


def _date(line: str) -> datetime:
    return datetime.strptime(line.partition("=")[2], "%b %d %H:%M:%S %Y %Z").replace(tzinfo=UTC)


def judge(start: datetime, end: datetime, now: datetime) -> Finding:
    """A certificate is renewed with a third of its life left; one that is much older shows that nobody does."""
    life, left = end - start, end - now
    until = f"until {end:%Y-%m-%d}"
    if left <= timedelta(0):
        return fault(_NAME, f"It ended on {end:%Y-%m-%d %H:%M} UTC: nobody can log in.", _RENEW)
    if start > now:
        return fault(
            _NAME, f"It is not valid before {start:%Y-%m-%d %H:%M} UTC.", "Set the clock right, or replace it."
        )
    if left < min(timedelta(days=3), life / 20):
        return fault(_NAME, f"It is good {until} only and was not renewed.", _RENEW)
    if left < min(timedelta(days=14), life / 5):
        return warning(_NAME, f"It is good {until} only and was not renewed.", _RENEW)
    return fine(_NAME, f"good {until}, {left.days} days")


def _served(path: str, port: int) -> list[Finding]:
    """A fault when clients are shown another certificate than the file's; nothing where nobody listens."""
    try:
        shown = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port), timeout=5))
        with open(path) as file:
            first = file.read().partition("-----END CERTIFICATE-----")
    except OSError:
        return []  # whether HAProxy runs is another check
    if shown == ssl.PEM_cert_to_DER_cert("".join(first[:2])):
        return []
    return [fault(_NAME, f"Port {port} shows another certificate than {path}.", "Run 'sudo systemctl reload haproxy'.")]

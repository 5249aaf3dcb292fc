"""Lynis of the host's own release: hardening index and warnings, without the tests that lynis.prf leaves out."""

from __future__ import annotations

from pathlib import Path

from security.target import Figure, Target

PROFILE = Path(__file__).with_name("lynis.prf")
# Unpacked, not installed: the scanner shall not change what it measures. It wants all of itself in the working folder.
FETCH = """
set -eu
mkdir -p /run/nestbox-lynis && cd /run/nestbox-lynis
[ -e lynis ] || {
    apt-get -qq download lynis >/dev/null 2>&1 || { apt-get -qq update && apt-get -qq download lynis >/dev/null; }
    dpkg-deb -x lynis_*.deb package && rm lynis_*.deb
    mv package/usr/share/lynis/* package/etc/lynis/* package/usr/sbin/lynis . && rm -r package
}
"""
AUDIT = """
cd /run/nestbox-lynis && rm -f report
sh ./lynis audit system --quick --quiet --no-colors --logfile /run/nestbox-lynis/log --report-file /run/nestbox-lynis/report >/dev/null
cat report
"""


def report(target: Target) -> dict[str, list[str]]:
    """Every value of Lynis's report by its key. Raises ScannerError when Lynis could not be fetched or did not end."""
    target.run(FETCH)
    target.run(f"cat >/run/nestbox-lynis/custom.prf <<'END'\n{PROFILE.read_text()}END")
    text = target.run(AUDIT, seconds=900)  # half a minute on an idle machine
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, separator, value = line.partition("=")
        if separator:
            values.setdefault(key, []).append(value)
    return values


def figures(target: Target) -> list[Figure]:
    values = report(target)
    advice = tuple(values.get("suggestion[]", []))
    warnings = tuple(values.get("warning[]", []))
    return [
        Figure("lynis index", int(values["hardening_index"][0]), advice),
        Figure("lynis warnings", len(warnings), warnings),
    ]

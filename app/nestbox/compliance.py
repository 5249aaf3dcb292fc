"""What Nestbox implements, as its modules declare it: the rows of XEP-0479 and the DOAP file (XEP-0453).

Nothing here is claimed by hand: a row counts as met when every specification that it asks for is declared in ``XEPS``
or ``RFCS`` of a module that is there.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import walk_packages
from typing import NamedTuple
from xml.sax.saxutils import escape

import nestbox
from nestbox import Xep

__all__ = ["MARKERS", "ROWS", "Declared", "Row", "declared", "doap", "is_met", "markdown", "table"]

# Between them stand the tables of the README.
MARKERS = ("<!-- compliance: made by scripts/compliance.py -->", "<!-- /compliance -->")
_LAYERS = ("protocol", "core", "modules", "net", "http", "ctl")


class Row(NamedTuple):
    """A row of XEP-0479 0.1.0 that asks something of a server; ``level`` (Core, Advanced) is the first to need it."""

    category: str
    feature: str
    level: str
    providers: tuple[str, ...]


ROWS = (
    Row("Core", "Core features", "Core", ("RFC 6120",)),
    Row("Core", "TLS", "Core", ("RFC 7590",)),
    Row("Core", "Direct TLS", "Advanced", ("XEP-0368",)),
    Row("Core", "Feature discovery", "Core", ("XEP-0030",)),
    Row("Core", "Feature broadcasts", "Advanced", ("XEP-0115",)),
    Row("Core", "Server Extensibility", "Core", ("XEP-0114",)),
    Row("Core", "Event publishing", "Advanced", ("XEP-0163",)),
    Row("Web", "Web Connection Mechanisms", "Core", ("RFC 7395", "XEP-0206", "XEP-0124")),
    Row("IM", "Core features", "Core", ("RFC 6121",)),
    Row("IM", "User Avatar Compatibility", "Advanced", ("XEP-0398", "XEP-0153")),
    Row("IM", "vcard-temp", "Core", ("XEP-0054",)),
    Row("IM", "Outbound Message Synchronization", "Core", ("XEP-0280",)),
    Row("IM", "User Blocking", "Advanced", ("XEP-0191",)),
    Row("IM", "Group Chat", "Core", ("XEP-0045", "XEP-0249")),
    Row("IM", "Advanced Group Chat", "Advanced", ("XEP-0045", "XEP-0048", "XEP-0313", "XEP-0402", "XEP-0410")),
    Row("IM", "Persistent Storage of Private Data via PubSub", "Advanced", ("XEP-0223",)),
    Row("IM", "Private XML Storage", "Advanced", ("XEP-0049",)),
    Row("IM", "Stream Management", "Advanced", ("XEP-0198",)),
    Row("IM", "History Storage / Retrieval", "Advanced", ("XEP-0313",)),
    Row("IM", "File Upload", "Core", ("XEP-0363",)),
    Row("Mobile", "Stream Management", "Core", ("XEP-0198",)),
    Row("Mobile", "Client State Indication", "Core", ("XEP-0352",)),
    Row("Mobile", "Third Party Push Notifications", "Advanced", ("XEP-0357",)),
    Row("A/V Calling", "STUN/TURN server discovery", "Core", ("XEP-0215",)),
)


class Declared(NamedTuple):
    """What the modules declare: XEPs and RFCs in order, each with the files that implement it."""

    xeps: dict[Xep, list[str]]
    rfcs: dict[str, list[str]]

    def places(self, provider: str) -> list[str]:
        """The files that implement ``XEP-0030`` or ``RFC 6120``, none where nobody does."""
        if provider.startswith("RFC"):
            return [file for rfc, files in self.rfcs.items() if rfc.split(",")[0] == provider for file in files]
        number = int(provider.removeprefix("XEP-"))
        return [file for xep, files in self.xeps.items() if xep.number == number for file in files]


def declared() -> Declared:
    """Ask every module of the server. Imports them all."""
    xeps: dict[Xep, list[str]] = {}
    rfcs: dict[str, list[str]] = {}
    for layer in _LAYERS:
        package = import_module(f"nestbox.{layer}")
        found = [f"nestbox.{layer}", *(each.name for each in walk_packages(package.__path__, f"nestbox.{layer}."))]
        for name in found:
            module = import_module(name)
            file = module.__file__.removeprefix(f"{nestbox.__path__[0]}/")
            for place, key in (
                *((xeps, Xep(*each)) for each in getattr(module, "XEPS", ())),
                *((rfcs, each) for each in getattr(module, "RFCS", ())),
            ):
                place.setdefault(key, []).append(file)
    return Declared(dict(sorted(xeps.items())), dict(sorted(rfcs.items())))


def is_met(row: Row, found: Declared) -> bool:
    """Whether everything that a row asks for is there."""
    return all(found.places(provider) for provider in row.providers)


def table(found: Declared) -> list[tuple[str, ...]]:
    """The rows of XEP-0479 as (category, feature, level, specifications, met by which files; '' when it is not)."""
    rows = []
    for row in ROWS:
        files = sorted({file for provider in row.providers for file in found.places(provider)})
        met = ", ".join(files) if is_met(row, found) else ""
        rows.append((row.category, row.feature, row.level, ", ".join(row.providers), met))
    return rows


def markdown(found: Declared) -> str:
    """Both tables for the README."""
    lines = [
        "| category | feature | level | specifications | met by (`app/nestbox/`) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for *cells, met in table(found):
        lines.append(f"| {' | '.join(cells)} | {met or '**not met**'} |")
    lines += ["", "| specification | version | status | where (`app/nestbox/`) |", "| --- | --- | --- | --- |"]
    lines += [f"| {rfc} | | complete | {', '.join(files)} |" for rfc, files in found.rfcs.items()]
    for xep, files in found.xeps.items():
        status = f"partial: {xep.note}" if xep.note else "complete"
        lines.append(f"| XEP-{xep.number:04} | {xep.version} | {status} | {', '.join(files)} |")
    return "\n".join(lines) + "\n"


def doap(found: Declared) -> str:
    """The description of the project as software directories read it."""
    supported = [
        f'    <implements rdf:resource="https://www.rfc-editor.org/info/rfc{number}"/>'
        for number in sorted({int(rfc.split(",")[0].removeprefix("RFC ")) for rfc in found.rfcs})
    ]
    for xep in found.xeps:
        note = f"\n        <xmpp:note>{escape(xep.note)}</xmpp:note>" if xep.note else ""
        supported.append(
            "    <implements>\n      <xmpp:SupportedXep>\n"
            f'        <xmpp:xep rdf:resource="https://xmpp.org/extensions/xep-{xep.number:04}.html"/>\n'
            f"        <xmpp:version>{escape(xep.version)}</xmpp:version>\n"
            f"        <xmpp:status>{'partial' if xep.note else 'complete'}</xmpp:status>{note}\n"
            "      </xmpp:SupportedXep>\n    </implements>"
        )
    return _DOAP + "\n".join(supported) + "\n  </Project>\n</rdf:RDF>\n"


_DOAP = """<?xml version="1.0" encoding="UTF-8"?>
<!-- What `nestboxctl doap` prints; written by scripts/compliance.py. -->
<rdf:RDF xmlns="http://usefulinc.com/ns/doap#"
         xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
         xmlns:xmpp="https://linkmauve.fr/ns/xmpp-doap#">
  <Project>
    <name>Nestbox</name>
    <shortdesc xml:lang="en">An instant-messaging appliance for small computers</shortdesc>
    <description xml:lang="en">An XMPP server on Tornado, with the roles that make an appliance of it.</description>
    <license rdf:resource="https://spdx.org/licenses/Apache-2.0"/>
    <programming-language>Python</programming-language>
    <os>Linux</os>
    <category rdf:resource="https://linkmauve.fr/ns/xmpp-doap#category-server"/>
"""

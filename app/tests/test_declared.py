"""What the README and the DOAP file say is what the modules declare."""

from pathlib import Path
from xml.etree.ElementTree import parse

from nestbox import compliance

APP = Path(compliance.__file__).parents[1]
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}resource"
XMPP = "{https://linkmauve.fr/ns/xmpp-doap#}"
CURE = "run scripts/compliance.py"


def test_the_readme_is_up_to_date():
    _, _, rest = (APP.parent / "README.md").read_text().partition(compliance.MARKERS[0])
    assert rest.partition(compliance.MARKERS[1])[0].lstrip("\n") == compliance.markdown(compliance.declared()), CURE


def test_the_doap_file_is_up_to_date_and_says_each_xep_once():
    found = compliance.declared()
    assert (APP / "doap.xml").read_text() == compliance.doap(found), CURE
    xeps = [each.get(RDF) for each in parse(APP / "doap.xml").iter(f"{XMPP}xep")]
    assert xeps == sorted(set(xeps)) and len(xeps) == len(found.xeps)


def test_no_xep_is_declared_in_two_versions():
    numbers = [xep.number for xep in compliance.declared().xeps]
    assert numbers == sorted(set(numbers))


def test_every_row_asks_for_something_known():
    assert {row.level for row in compliance.ROWS} == {"Core", "Advanced"}
    assert len({row[:2] for row in compliance.ROWS}) == len(compliance.ROWS)
    assert not compliance.is_met(compliance.ROWS[0], compliance.Declared({}, {}))

"""Addresses are prepared as RFC 7622 says: one spelling of each, and nothing that is none."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from nestbox.core.jid import JID, parse_jid, prepare_domain, prepare_localpart, prepare_resource

# Of everything, but often of what can be in an address, else hypothesis seldom finds one.
CHARACTERS = st.one_of(
    st.characters(min_codepoint=33, max_codepoint=126),
    st.characters(categories=["Lu", "Ll", "Lt", "Lo", "Lm", "Mn", "Nd"]),
    st.characters(min_codepoint=0xFF01, max_codepoint=0xFFEE),
    st.characters(exclude_categories=["Cs"]),
)
TEXT = st.text(CHARACTERS, min_size=1, max_size=8)
WORDS = st.text("abcxyz0189.-_+", min_size=1, max_size=20)
LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
DOMAINS = st.lists(LABELS, min_size=1, max_size=4).map(".".join)


def prepared(text: str) -> JID | None:
    try:
        return parse_jid(text)
    except ValueError:
        return None


# One spelling


@given(TEXT, TEXT, TEXT)
@example("Ａlice", "NESTBOX。test.", "the\u3000phone")
@example("ΑΣ", "ΑΣ.test", "x")
@example("Å", "Å.test", "Å")
def test_what_is_prepared_stays_as_it_is(local, domain, resource):
    """Each part by itself too, since one that is refused hides the others."""
    for text in (f"{local}@nestbox.test", domain, f"nestbox.test/{resource}", f"{local}@{domain}/{resource}"):
        jid = prepared(text)
        if jid is not None:
            again = parse_jid(str(jid))
            assert (again, str(again)) == (jid, str(jid))
            assert (again.local, again.domain, again.resource) == (jid.local, jid.domain, jid.resource)
            assert len(jid.local.encode()) <= 1023 and len(jid.domain.encode()) <= 1023


@given(WORDS, DOMAINS, st.randoms())
def test_case_is_nothing_in_a_localpart_and_a_domain(local, domain, random):
    shouted = "".join(random.choice((each, each.upper())) for each in f"{local}@{domain}")
    assert str(parse_jid(shouted)) == f"{local}@{domain}"


@given(TEXT)
def test_no_upper_case_is_left(text):
    for prepare in (prepare_localpart, prepare_domain):
        try:
            name = prepare(text)
        except ValueError:
            continue
        assert name == name.lower()


@given(st.text("abcXYZ0189.-_+:/@&<>\"' éÉßΣ", min_size=1, max_size=300))
def test_a_resource_keeps_its_case_and_everything_else(resource):
    jid = parse_jid(f"alice@nestbox.test/{resource}")
    assert (jid.resource, jid.bare, jid.is_full) == (resource, "alice@nestbox.test", True)
    assert jid.bare_jid == parse_jid("alice@nestbox.test") != jid


@given(st.text("abcxyz0189", min_size=1, max_size=20))
def test_wide_letters_are_the_narrow_ones(word):
    wide = "".join(chr(ord(each) + 0xFEE0) for each in word)
    assert str(parse_jid(f"{wide}@{wide}.test")) == f"{word}@{word}.test"
    assert parse_jid(f"{word}@{word}.test/{wide}").resource == wide  # OpaqueString leaves width alone


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("STRAẞE.test", "straße.test"),
        ("Bücher.Test", "bücher.test"),
        ("bu\u0308cher.test", "bücher.test"),  # composed (NFC)
        ("例え。テスト", "例え.テスト"),
        ("ﾃｽﾄ.test", "テスト.test"),
        ("xn--bcher-kva.test", "bücher.test"),
        ("XN--BCHER-KVA.test", "bücher.test"),
        ("xn--strae-oqa.test", "straße.test"),
        ("nestbox.test.", "nestbox.test"),
        ("localhost", "localhost"),
        ("192.0.2.7", "192.0.2.7"),
        ("[2001:DB8:0:0::7]", "[2001:db8::7]"),
        ("[::1]", "[::1]"),
    ],
)
def test_domains(written, expected):
    assert parse_jid(f"alice@{written}/Phone") == JID("alice", expected, "Phone")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("ΑΣ", "ας"),  # lower case of a word's last letter (RFC 8265: toLowerCase, not folding)
        ("ﾊﾟ", "パ"),
        ("e\u0301ve", "éve"),
        ("שלום", "שלום"),
    ],
)
def test_localparts(written, expected):
    assert prepare_localpart(written) == expected


# What is no address


@given(WORDS, st.sampled_from("\"&':<> \t\0\x7f\u00a0\u3000\u200b"), WORDS)
@example("a", "/", "b")
@example("a", "@", "b")
def test_what_is_forbidden_in_a_localpart(before, forbidden, after):
    for local in (before + forbidden + after, forbidden + after, before + forbidden):
        with pytest.raises(ValueError):
            prepare_localpart(local)


@pytest.mark.parametrize("wide", "＂＆＇／：＜＞＠")
def test_what_is_forbidden_does_not_get_in_wide(wide):
    for text in (f"a{wide}b@nestbox.test", f"a{wide}b.test"):
        with pytest.raises(ValueError):
            parse_jid(text)


@given(st.characters(exclude_categories=["Cs"]), WORDS)
def test_parts_are_divided_as_the_rfc_says(character, word):
    """The first slash ends the address, the first at sign before it the localpart (section 3.2)."""
    assume(prepared(f"nestbox.test/{character}"))
    jid = parse_jid(f"{word}@nestbox.test/{character}@other.test/more")
    assert (jid.local, jid.domain) == (word, "nestbox.test")
    assert jid.resource.endswith("@other.test/more")


@pytest.mark.parametrize("letter", ["a", "ü", "好", "\U00010437"])
@pytest.mark.parametrize("prepare", [prepare_localpart, prepare_resource])
def test_a_part_has_at_most_1023_bytes(prepare, letter):
    count, rest = divmod(1023, len(letter.encode()))
    longest = letter * count + "a" * rest
    assert len(longest.encode()) == 1023 and prepare(longest) == longest
    with pytest.raises(ValueError):
        prepare(longest + "a")


def test_a_domain_is_as_long_as_one_of_dns():
    longest = ".".join(["a" * 63] * 3 + ["a" * 61])
    assert len(longest) == 253 and prepare_domain(longest) == longest
    for text in (longest + "a", "a" * 64 + ".test", "ü" * 63 + ".test"):
        with pytest.raises(ValueError):
            prepare_domain(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "@", "/", "@nestbox.test", "alice@", "alice@/phone", "nestbox.test/", "alice@nestbox.test/", "a@b@c"),
        *("/phone", ".", "..", "a..b", ".a", "-a.test", "a-.test", "a b.test", "a&b.test", "a_<b.test", "a:5222"),
        *("[::1", "[::1a", "[::1]a", "[::1]]", "[]", "[", "[192.0.2.7]", "[1::2::3]", "[fe80::1%eth0]"),
        *("xn--nestbox-.test", "xn--.test", "xn--\u00fc.test", "xn--xn---epa.test", "xn--999999999.test"),
        *("::1", "[::1", "alice@[::1a/phone", "nestbox.test/\0", "nestbox.test/\x7f", "שa@nestbox.test"),
    ],
)
def test_what_is_no_address(text):
    with pytest.raises(ValueError):
        parse_jid(text)

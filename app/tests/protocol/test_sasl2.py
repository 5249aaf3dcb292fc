"""Logins by XEP-0388, right and wrong."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest
from scramp import ScramClient

from nestbox.core.jid import JID
from nestbox.protocol.events import (
    Authenticated,
    Closed,
    Establish,
    Established,
    LoginFailed,
    Lookup,
    StanzaReceived,
)
from nestbox.protocol.fast import Token
from tests.protocol.driver import DOMAIN, HEADER, NONE, SASL, Driver
from tests.protocol.login import (
    BIND,
    ENABLE,
    SASL2,
    USER_AGENT,
    authenticate,
    b64,
    condition,
    opened,
    payload,
    plain,
    respond,
    scram,
)

# the login alone


def test_login_without_a_new_stream_then_bind_by_iq() -> None:
    driver = opened()
    answer = scram(driver)
    assert re.fullmatch(
        f"<success xmlns='{SASL2}'><additional-data>[^<]+</additional-data>"
        f"<authorization-identifier>romeo@{DOMAIN}</authorization-identifier></success>"
        "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/><sm xmlns='urn:xmpp:sm:3'/>"
        ".*</stream:features>",
        answer,
    )
    assert "<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>262144</max-bytes>" in answer  # XEP-0478
    assert driver.events == [Lookup("romeo"), Establish("romeo", None), Authenticated("romeo")]
    assert not driver.stream.ready
    bind = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"
    assert f"<jid>romeo@{DOMAIN}/made-up</jid>" in driver.feed(bind)
    driver.feed("<presence/>")
    assert isinstance(driver.events[-1], StanzaReceived)


def test_success_of_plain_has_no_data() -> None:
    assert plain(opened()).startswith(f"<success xmlns='{SASL2}'><authorization-identifier>romeo@{DOMAIN}<")


def test_websocket_sends_success_and_features_as_frames() -> None:
    driver = opened("websocket", NONE)
    plain(driver, BIND)
    assert driver.sent[-2].startswith(b"<success ")
    assert driver.sent[-1].startswith(b"<stream:features xmlns:stream=")
    driver.feed("<presence xmlns='jabber:client'/>")
    assert isinstance(driver.events[-1], StanzaReceived)


def test_everything_in_one_packet() -> None:
    driver = Driver()
    answer = driver.feed(
        f"{HEADER}<authenticate xmlns='{SASL2}' mechanism='PLAIN'><initial-response>{b64(chr(0) + 'romeo' + chr(0))}"
        f"</initial-response></authenticate><authenticate xmlns='{SASL2}' mechanism='PLAIN'>"
        f"<initial-response>AHJvbWVvAHNlY3JldA==</initial-response>{BIND}</authenticate><presence/>"
    )
    assert "<malformed-request" in answer
    assert "<bound xmlns='urn:xmpp:bind:0'></bound></success>" in answer
    assert isinstance(driver.events[-1], StanzaReceived)


def test_without_initial_response_an_empty_challenge_asks_for_it() -> None:
    driver = opened()
    assert authenticate(driver, "PLAIN", None) == f"<challenge xmlns='{SASL2}'/>"
    assert respond(driver, "\0romeo\0secret").startswith("<success")


def test_larger_stanzas_are_taken_afterwards() -> None:
    driver = opened()
    plain(driver, BIND)
    driver.feed(f"<message><body>{'x' * 100_000}</body></message>")
    assert isinstance(driver.events[-1], StanzaReceived)


# wrong input


@pytest.mark.parametrize(
    ("mechanism", "initial", "inline", "expected"),
    [
        ("EXTERNAL", "", "", "invalid-mechanism"),
        ("", "", "", "invalid-mechanism"),
        ("HT-SHA-512-NONE", "", "", "invalid-mechanism"),
        ("PLAIN", "", "", "malformed-request"),
        ("PLAIN", b"\xff", "", "malformed-request"),
        ("PLAIN", "juliet\0romeo\0secret", "", "invalid-authzid"),
        ("PLAIN", "\0romeo\0wrong", "", "not-authorized"),
        ("PLAIN", "\0nobody\0secret", "", "not-authorized"),
        ("PLAIN", "\0tybalt\0secret", "", "account-disabled"),
        ("SCRAM-SHA-256", "y,,n=romeo,r=abc", "", "not-authorized"),
        ("SCRAM-SHA-256", "n,a=juliet,n=romeo,r=abc", "", "invalid-authzid"),
        ("SCRAM-SHA-256", "nonsense", "", "malformed-request"),
        ("PLAIN", "\0romeo\0secret", f"<user-agent id='{'x' * 257}'/>", "malformed-request"),
        (
            "PLAIN",
            "\0romeo\0secret",
            "<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-1</upgrade>",
            "malformed-request",
        ),
    ],
)
def test_failures(mechanism: str, initial: bytes | str, inline: str, expected: str) -> None:
    driver = opened()
    assert condition(authenticate(driver, mechanism, initial, inline + BIND)) == expected
    assert driver.events[-1] == LoginFailed(expected)
    assert not any(isinstance(event, Establish) for event in driver.events)
    assert plain(driver).startswith("<success")  # and may try again


def test_not_base64() -> None:
    wrong = f"<authenticate xmlns='{SASL2}' mechanism='PLAIN'><initial-response>=</initial-response></authenticate>"
    assert condition(opened().feed(wrong)) == "incorrect-encoding"  # "=" is of the older profile


def test_wrong_password() -> None:
    assert condition(scram(opened(), password="wrong")) == "not-authorized"
    assert condition(scram(opened(), name="nobody")) == "not-authorized"


def test_before_tls() -> None:
    driver = opened(secure=False, starttls=True, bindings=NONE)
    assert condition(plain(driver)) == "encryption-required"
    assert "urn:xmpp:sasl:2" not in Driver(secure=False, starttls=True).feed(HEADER)


def test_plain_is_off_by_default() -> None:
    assert condition(plain(opened(plain_allowed=False))) == "invalid-mechanism"


def test_abort() -> None:
    driver = opened()
    authenticate(driver, "SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,n=romeo,r=abc")
    assert condition(driver.feed(f"<abort xmlns='{SASL2}'><text>no</text></abort>")) == "aborted"
    assert plain(driver).startswith("<success")


def test_response_to_nothing() -> None:
    assert condition(respond(opened(), "x")) == "malformed-request"


def test_three_failures_are_the_end() -> None:
    driver = opened()
    for _ in range(3):
        answer = plain(driver, password="wrong")
    assert "<stream:error><policy-violation" in answer
    assert isinstance(driver.events[-1], Closed)
    assert [type(event) for event in driver.events].count(LoginFailed) == 3


@pytest.mark.parametrize(
    "other",
    [
        f"<authenticate xmlns='{SASL2}' mechanism='PLAIN'/>",
        f"<next xmlns='{SASL2}' task='UPGR-SCRAM-SHA-256'/>",
        f"<auth xmlns='{SASL}' mechanism='PLAIN'>AHJvbWVvAHNlY3JldA==</auth>",
        "<presence/>",
        "<iq type='get' id='1'><query xmlns='jabber:iq:register'/></iq>",
        "<r xmlns='urn:xmpp:sm:3'/>",
        " ",
    ],
)
def test_anything_else_during_a_login_ends_the_stream(other: str) -> None:
    driver = opened()
    authenticate(driver, "SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,n=romeo,r=abc")
    assert "<stream:error>" in driver.feed(other)
    assert isinstance(driver.events[-1], Closed)
    assert driver.stream.username is None


def test_white_space_around_a_login_is_harmless() -> None:
    driver = opened()
    driver.feed("\n")
    assert plain(driver, BIND).startswith("<success")
    driver.feed("\n \n")
    assert not isinstance(driver.events[-1], Closed)


@pytest.mark.parametrize("profile", [SASL, SASL2])
def test_a_second_login_ends_the_stream(profile: str) -> None:
    driver = opened()
    plain(driver, BIND)
    name = "auth" if profile == SASL else "authenticate"
    assert "<unsupported-stanza-type" in driver.feed(f"<{name} xmlns='{profile}' mechanism='PLAIN'/>")


def test_the_stream_header_and_the_authzid_name_the_same() -> None:
    header = HEADER.replace("to=", "from='juliet@nestbox.test' to=")
    assert condition(plain(opened(header=header), authzid="romeo")) == "invalid-authzid"
    assert plain(opened(header=header)).startswith("<success")  # nothing was said about whom to act for
    header = HEADER.replace("to=", "from='romeo@nestbox.test' to=")
    for authzid in (f"romeo@{DOMAIN}", f"Romeo@{DOMAIN.upper()}"):  # section 4.4
        assert plain(opened(header=header), authzid=authzid).startswith("<success")
    assert condition(plain(opened(header=header), authzid=f"romeo@{DOMAIN}/x")) == "invalid-authzid"


# downgrades (XEP-0474)


def test_what_was_offered_is_signed() -> None:
    """The attribute h of the example in XEP-0474, section 5.3: sorted names, and the types of channel binding."""
    driver = opened(plain_allowed=False, mechanisms=("SCRAM-SHA-1",))
    challenge = payload(authenticate(driver, "SCRAM-SHA-1-PLUS", "p=tls-server-end-point,,n=romeo,r=abc"))
    text = "SCRAM-SHA-1\x1eSCRAM-SHA-1-PLUS\x1ftls-server-end-point"
    assert challenge.endswith(",h=" + b64(hashlib.sha1(text.encode()).digest()))


@pytest.mark.parametrize("profile", [SASL, SASL2])
def test_every_mechanism_signs_the_offer_of_its_profile(profile: str) -> None:
    driver = Driver(bindings=NONE)
    offer = driver.feed(HEADER)
    name = "mechanisms" if profile == SASL else "authentication"
    names = re.findall(
        "<mechanism>([^<]*)", re.search(f"<{name} xmlns='{profile}'>.*?(</mechanisms>|<inline>)", offer)[0]
    )
    first = b64("n,,n=romeo,r=abc")
    if profile == SASL:
        answer = driver.feed(f"<auth xmlns='{SASL}' mechanism='SCRAM-SHA-512'>{first}</auth>")
        challenge = base64.b64decode(re.search(">([^<]*)<", answer)[1]).decode()
    else:
        challenge = payload(authenticate(driver, "SCRAM-SHA-512", "n,,n=romeo,r=abc"))
    signed = hashlib.sha512("\x1e".join(sorted(names)).encode()).digest()  # no channel binding is offered
    assert challenge.endswith(",h=" + b64(signed))


def test_a_changed_signature_of_the_offer_is_found_out() -> None:
    """Somebody in between took mechanisms out of the offer, and puts the hash of the rest into the challenge."""
    driver = opened(bindings=NONE)
    client = ScramClient(["SCRAM-SHA-1"], "romeo", "secret")
    challenge = payload(authenticate(driver, "SCRAM-SHA-1", client.get_client_first()))
    forged = re.sub("h=[^,]*$", "h=" + b64(hashlib.sha1(b"SCRAM-SHA-1").digest()), challenge)
    assert forged != challenge
    client.set_server_first(forged)
    assert condition(respond(driver, client.get_client_final())) == "not-authorized"


# the driver


def test_late_answers_are_dropped() -> None:
    driver = opened()
    driver.hold = Establish
    plain(driver, BIND)
    driver.stream.close(None)
    driver.stream.established(Established(JID("romeo", DOMAIN, "x")))
    driver.stream.tokens([Token("HT-SHA-256-NONE", b"", b"a token", 2**33, 0, True)])
    driver.run()
    assert driver.stream.username is None


def test_nothing_of_the_login_is_left() -> None:
    driver = opened()
    scram(driver, ENABLE + USER_AGENT)
    assert driver.stream._login is None
    assert driver.stream.peer is None

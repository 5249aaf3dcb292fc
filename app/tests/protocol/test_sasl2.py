"""Logins by XEP-0388 with all that can go with them: bind, resumption, tokens, more keys; right and wrong."""

from __future__ import annotations

import base64
import hashlib
import hmac
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
    StoreKeys,
)
from nestbox.protocol.fast import Token
from tests.protocol.driver import AGENT, CERTIFICATE_HASH, DOMAIN, HEADER, OPEN, SASL, TOKENS, Driver

SASL2 = "urn:xmpp:sasl:2"
BINDING = ("tls-server-end-point", CERTIFICATE_HASH)
USER_AGENT = f"<user-agent id='{AGENT}'><software>Test</software><device>Phone</device></user-agent>"
BIND = "<bind xmlns='urn:xmpp:bind:0'><tag>Test</tag></bind>"
ENABLE = BIND.replace("</bind>", "<enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>")
NO_BIND = "<stream:features><sm xmlns='urn:xmpp:sm:3'/><limits xmlns='urn:xmpp:stream-limits:0'>"


def b64(data: bytes | str) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def opened(framing: str = "tcp", binding: bytes | None = CERTIFICATE_HASH, header: str = "", **options) -> Driver:
    driver = Driver(framing=framing, binding=binding, secret=b"of all workers", **options)
    driver.feed(header or (HEADER if framing == "tcp" else OPEN))
    return driver


def authenticate(driver: Driver, mechanism: str, initial: bytes | str | None, inline: str = "") -> str:
    first = f"<initial-response>{b64(initial)}</initial-response>" if initial is not None else ""
    return driver.feed(f"<authenticate xmlns='{SASL2}' mechanism='{mechanism}'>{first}{inline}</authenticate>")


def respond(driver: Driver, message: bytes | str) -> str:
    return driver.feed(f"<response xmlns='{SASL2}'>{b64(message)}</response>")


def payload(answer: str, name: str = "challenge") -> str:
    found = re.search(f"<{name}(?: xmlns='{SASL2}')?>([^<]*)</{name}>", answer)
    assert found, answer
    return base64.b64decode(found[1]).decode()


def condition(answer: str) -> str:
    found = re.match(rf"<failure xmlns='{SASL2}'><([a-z-]+) xmlns='{SASL}'/>(<text>[^<]*</text>)?</failure>", answer)
    assert found, answer
    return found[1]


def scram(
    driver: Driver,
    inline: str = "",
    name: str = "romeo",
    password: str = "secret",
    mechanism: str = "SCRAM-SHA-256-PLUS",
) -> str:
    """Run the whole exchange; returns the last answer, having checked the server's signature."""
    client = ScramClient([mechanism], name, password, channel_binding=BINDING if "PLUS" in mechanism else None)
    client.set_server_first(payload(authenticate(driver, mechanism, client.get_client_first(), inline)))
    answer = respond(driver, client.get_client_final())
    if "<additional-data>" in answer:
        client.set_server_final(payload(answer, "additional-data"))
    return answer


def plain(driver: Driver, inline: str = "", authzid: str = "", password: str = "secret") -> str:
    return authenticate(driver, "PLAIN", f"{authzid}\0romeo\0{password}", inline)


def with_token(driver: Driver, token: bytes, inline: str = USER_AGENT, fast: str = "", bound: bool = False) -> str:
    mechanism, data = ("HT-SHA-256-ENDP", CERTIFICATE_HASH) if bound else ("HT-SHA-256-NONE", b"")
    proof = hmac.digest(token, b"Initiator" + data, "sha256")
    return authenticate(driver, mechanism, b"romeo\0" + proof, f"<fast xmlns='urn:xmpp:fast:0'{fast}/>{inline}")


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
    driver = opened("websocket", None)
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
    driver = opened(secure=False, starttls=True, binding=None)
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
    ],
)
def test_anything_else_during_a_login_ends_the_stream(other: str) -> None:
    driver = opened()
    authenticate(driver, "SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,n=romeo,r=abc")
    assert "<stream:error>" in driver.feed(other)
    assert isinstance(driver.events[-1], Closed)
    assert driver.stream.username is None


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
    assert plain(opened(header=header), authzid=f"romeo@{DOMAIN}").startswith("<success")


# downgrades (XEP-0474)


def test_what_was_offered_is_signed() -> None:
    """The attribute h of the example in XEP-0474, section 5.3: sorted names, and the types of channel binding."""
    driver = opened(plain_allowed=False, mechanisms=("SCRAM-SHA-1",))
    challenge = payload(authenticate(driver, "SCRAM-SHA-1-PLUS", "p=tls-server-end-point,,n=romeo,r=abc"))
    text = "SCRAM-SHA-1\x1eSCRAM-SHA-1-PLUS\x1ftls-server-end-point"
    assert challenge.endswith(",h=" + b64(hashlib.sha1(text.encode()).digest()))


@pytest.mark.parametrize("profile", [SASL, SASL2])
def test_every_mechanism_signs_the_offer_of_its_profile(profile: str) -> None:
    driver = Driver(binding=None)
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
    driver = opened(binding=None)
    client = ScramClient(["SCRAM-SHA-1"], "romeo", "secret")
    challenge = payload(authenticate(driver, "SCRAM-SHA-1", client.get_client_first()))
    forged = re.sub("h=[^,]*$", "h=" + b64(hashlib.sha1(b"SCRAM-SHA-1").digest()), challenge)
    assert forged != challenge
    client.set_server_first(forged)
    assert condition(respond(driver, client.get_client_final())) == "not-authorized"


# Bind 2 (XEP-0386)


def test_bind() -> None:
    driver = opened()
    answer = scram(driver, BIND + USER_AGENT)
    found = re.search(rf"<authorization-identifier>romeo@{DOMAIN}/(Test/[\w-]+)</authorization-identifier>", answer)
    assert found, answer
    assert "<bound xmlns='urn:xmpp:bind:0'></bound></success>" + NO_BIND in answer
    assert driver.stream.ready
    assert not driver.stream.sm
    assert AGENT[:8] not in found[1]
    again = re.search("romeo@[^<]*", scram(opened(), BIND + USER_AGENT))[0]
    assert again == f"romeo@{DOMAIN}/{found[1]}"  # stable
    other = re.search("romeo@[^<]*", scram(opened(), BIND + USER_AGENT.replace("d4565", "e4565")))[0]
    assert other != again
    assert (
        driver.feed("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>") == ""
    )  # for the router


def test_without_a_client_id_resources_differ() -> None:
    resources = {re.search("romeo@[^<]*", scram(opened(), BIND))[0] for _ in range(2)}
    assert len(resources) == 2


@pytest.mark.parametrize("tag", ["x" * 65, "a&#x9;b", ""])
def test_a_tag_that_cannot_be_is_left_out(tag: str) -> None:
    answer = scram(opened(), BIND.replace("Test", tag))
    assert re.search(rf"<authorization-identifier>romeo@{DOMAIN}/[\w-]{{12}}</authorization-identifier>", answer)


def test_stream_management_inline() -> None:
    driver = opened()
    answer = scram(driver, ENABLE)
    assert '<enabled xmlns=\'urn:xmpp:sm:3\' id="sm-1" resume="true" max="60"/></bound></success>' in answer
    assert "<sm xmlns" not in answer  # is on already
    assert driver.stream.sm


# resumption (XEP-0198, section 9)


def resume(previd: str = "sm-old", h: str = " h='7'") -> str:
    return f"<resume xmlns='urn:xmpp:sm:3' previd='{previd}'{h}/>"


def test_resume_inline() -> None:
    driver = opened()
    answer = scram(driver, resume() + BIND)
    assert f"<authorization-identifier>romeo@{DOMAIN}/old</authorization-identifier>" in answer
    assert answer.endswith("<resumed xmlns='urn:xmpp:sm:3' previd=\"sm-old\" h='8'/></success>")  # no features follow
    assert driver.stream.ready
    assert driver.stream.sm


def test_resumption_fails_then_bind() -> None:
    driver = opened()
    answer = scram(driver, resume("never") + BIND)
    failed = "<failed xmlns='urn:xmpp:sm:3'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"
    assert failed + "<bound xmlns='urn:xmpp:bind:0'></bound></success>" + NO_BIND in answer
    assert driver.stream.ready


def test_resumption_fails_without_bind() -> None:
    driver = opened()
    assert "<item-not-found" in scram(driver, resume("never"))
    assert not driver.stream.ready
    assert "<resumed" in driver.feed(resume())  # by the usual way


def test_resume_without_h() -> None:
    answer = scram(opened(), resume(h="") + BIND)
    assert "<failed xmlns='urn:xmpp:sm:3'><bad-request" in answer
    assert "<bound" in answer


# tokens (XEP-0484)


def test_token_instead_of_a_password() -> None:
    driver = opened()
    answer = with_token(driver, b"a token", USER_AGENT + BIND, " count='5'")
    expected = b64(hmac.digest(b"a token", b"Responder", "sha256"))
    assert f"<additional-data>{expected}</additional-data>" in answer
    assert "<bound" in answer
    establish = driver.events[-2]
    assert establish.token is TOKENS["romeo", AGENT][0]
    assert (establish.count, establish.invalidate, establish.new_token) == (5, False, None)


def test_token_with_channel_binding() -> None:
    driver = opened()
    assert with_token(driver, b"a bound token", fast=" count='8'", bound=True).startswith("<success")
    assert condition(with_token(opened(), b"a bound token", fast=" count='8'")) == "not-authorized"
    proof = b"romeo\0" + hmac.digest(b"a bound token", b"Initiator" + b"x" * 32, "sha256")
    fast = "<fast xmlns='urn:xmpp:fast:0' count='8'/>"
    assert condition(authenticate(opened(), "HT-SHA-256-ENDP", proof, fast + USER_AGENT)) == "not-authorized"
    assert condition(authenticate(opened(binding=None), "HT-SHA-256-ENDP", proof, fast)) == "invalid-mechanism"


@pytest.mark.parametrize("fast", [" count='7'", " count='1'", ""])
def test_a_replayed_count_is_refused(fast: str) -> None:
    assert condition(with_token(opened(), b"a bound token", fast=fast, bound=True)) == "not-authorized"


def test_a_count_that_another_worker_was_quicker_with() -> None:
    driver = opened()
    assert condition(with_token(driver, b"a token", USER_AGENT + BIND, " count='13'")) == "not-authorized"
    assert driver.stream.username is None
    assert plain(driver).startswith("<success")


@pytest.mark.parametrize(
    ("initial", "inline", "expected"),
    [
        (b"romeo\0" + b"x" * 32, "<fast xmlns='urn:xmpp:fast:0'/>" + USER_AGENT, "not-authorized"),
        (b"nobody\0" + b"x" * 32, "<fast xmlns='urn:xmpp:fast:0'/>" + USER_AGENT, "not-authorized"),
        (b"romeo\0" + b"x" * 31, "<fast xmlns='urn:xmpp:fast:0'/>" + USER_AGENT, "malformed-request"),
        (b"\0" + b"x" * 32, "<fast xmlns='urn:xmpp:fast:0'/>" + USER_AGENT, "malformed-request"),
        (b"\xff\0" + b"x" * 32, "<fast xmlns='urn:xmpp:fast:0'/>" + USER_AGENT, "malformed-request"),
        (b"romeo\0" + b"x" * 32, USER_AGENT, "malformed-request"),
        (b"romeo\0" + b"x" * 32, "<fast xmlns='urn:xmpp:fast:0'/>", "malformed-request"),
        (b"romeo\0" + b"x" * 32, "<fast xmlns='urn:xmpp:fast:0' count='-1'/>" + USER_AGENT, "malformed-request"),
        (b"romeo\0" + b"x" * 32, "<fast xmlns='urn:xmpp:fast:0' count='0'/>" + USER_AGENT, "malformed-request"),
        (None, "<fast xmlns='urn:xmpp:fast:0'/>" + USER_AGENT, "malformed-request"),
    ],
)
def test_wrong_tokens(initial: bytes | None, inline: str, expected: str) -> None:
    assert condition(authenticate(opened(), "HT-SHA-256-NONE", initial, inline)) == expected


def test_expired_token() -> None:
    assert condition(with_token(opened(), b"an old token")) == "credentials-expired"


def test_tokens_are_of_one_client() -> None:
    assert condition(with_token(opened(), b"a token", "<user-agent id='another'/>")) == "not-authorized"


def test_tokens_are_not_for_the_older_profile() -> None:
    proof = b64(b"romeo\0" + hmac.digest(b"a token", b"Initiator", "sha256"))
    answer = opened().feed(f"<auth xmlns='{SASL}' mechanism='HT-SHA-256-NONE'>{proof}</auth>")
    assert "<invalid-mechanism/>" in answer


def test_a_token_is_asked_for() -> None:
    request = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-ENDP'/>"
    answer = scram(opened(), request + USER_AGENT)
    token = "<token xmlns='urn:xmpp:fast:0' token='new-HT-SHA-256-ENDP' expiry='2026-12-24T00:00:00Z'/></success>"
    assert token in answer
    assert "<token" not in scram(opened(), request)  # of no client
    assert "<token" not in scram(opened(), request.replace("ENDP", "EXPR") + USER_AGENT)  # not offered
    assert "<token" not in scram(opened(), USER_AGENT)  # not asked for


def test_invalidate() -> None:
    driver = opened()
    assert with_token(driver, b"a token", fast=" invalidate='true'").startswith("<success")
    assert driver.events[-2].invalidate


# more keys (XEP-0480)


def task(name: str) -> str:
    return f"<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-{name}</upgrade>"


def salted(question: str, digest: str) -> bytes:
    found = re.fullmatch(
        f"<task-data xmlns='{SASL2}'><salt xmlns='urn:xmpp:scram-upgrade:0' iterations='(\\d+)'>([^<]+)</salt>"
        "</task-data>",
        question,
    )
    assert found, question
    return hashlib.pbkdf2_hmac(digest, b"secret", base64.b64decode(found[2]), int(found[1]))


def hash_data(data: bytes) -> str:
    return f"<task-data xmlns='{SASL2}'><hash xmlns='urn:xmpp:scram-upgrade:0'>{b64(data)}</hash></task-data>"


def upgrading() -> Driver:
    driver = opened()
    answer = scram(driver, task("SHA-256") + task("SHA-512") + BIND, "old", mechanism="SCRAM-SHA-1-PLUS")
    assert re.fullmatch(
        f"<continue xmlns='{SASL2}'><additional-data>[^<]+</additional-data>"
        "<tasks><task>UPGR-SCRAM-SHA-256</task></tasks></continue>",
        answer,
    )
    assert driver.stream.username is None
    return driver


def test_upgrade() -> None:
    driver = upgrading()
    first = hash_data(salted(driver.feed(f"<next xmlns='{SASL2}' task='UPGR-SCRAM-SHA-256'/>"), "sha256"))
    second = "<tasks><task>UPGR-SCRAM-SHA-512</task></tasks>"
    assert driver.feed(first) == f"<continue xmlns='{SASL2}'>{second}</continue>"
    data = salted(driver.feed(f"<next xmlns='{SASL2}' task='UPGR-SCRAM-SHA-512'/>"), "sha512")
    answer = driver.feed(hash_data(data))
    assert answer.startswith(f"<success xmlns='{SASL2}'><authorization-identifier>old@{DOMAIN}/")
    stored = [event for event in driver.events if isinstance(event, StoreKeys)]
    assert [(event.username, event.hash) for event in stored] == [("old", "SHA-256"), ("old", "SHA-512")]
    client_key = hmac.digest(data, b"Client Key", "sha512")
    assert stored[1].keys.stored_key == hashlib.sha512(client_key).digest()
    assert stored[1].keys.iterations == driver.options.iterations["SHA-512"]


def test_who_has_the_keys_has_no_task() -> None:
    assert scram(opened(), task("SHA-256") + BIND).startswith("<success")


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (f"<next xmlns='{SASL2}' task='UPGR-SCRAM-SHA-512'/>", "malformed-request"),
        (f"<next xmlns='{SASL2}'/>", "malformed-request"),
        (f"<abort xmlns='{SASL2}'/>", "aborted"),
    ],
)
def test_wrong_task(wrong: str, expected: str) -> None:
    driver = upgrading()
    assert condition(driver.feed(wrong)) == expected
    assert driver.stream.username is None


@pytest.mark.parametrize("data", ["", b64(b"x" * 31), b64(b"x" * 33)])
def test_wrong_task_data(data: str) -> None:
    driver = upgrading()
    driver.feed(f"<next xmlns='{SASL2}' task='UPGR-SCRAM-SHA-256'/>")
    wrong = f"<task-data xmlns='{SASL2}'><hash xmlns='urn:xmpp:scram-upgrade:0'>{data}</hash></task-data>"
    assert condition(driver.feed(wrong)) == "malformed-request"
    assert not any(isinstance(event, StoreKeys) for event in driver.events)


def test_task_data_without_next_ends_the_stream() -> None:
    driver = upgrading()
    assert "<policy-violation" in driver.feed(hash_data(b"x" * 32))


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

"""Logins with tokens (XEP-0484)."""

from __future__ import annotations

import hmac

import pytest

from tests.protocol.driver import AGENT, HEADER, NONE, SASL, TOKENS, Driver
from tests.protocol.login import BIND, USER_AGENT, authenticate, b64, condition, opened, plain, scram, with_token


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
    assert condition(authenticate(opened(bindings=NONE), "HT-SHA-256-ENDP", proof, fast)) == "invalid-mechanism"


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


def test_a_token_is_that_of_who_opened_the_stream() -> None:
    for name, begins in (("juliet", "<failure"), ("romeo", "<success")):
        header = HEADER.replace("to=", f"from='{name}@nestbox.test' to=")
        assert with_token(opened(header=header), b"a token").startswith(begins)


def test_there_are_no_tokens_where_others_read_them() -> None:
    """XEP-0484, section 6; where logins without TLS are allowed."""
    options = {"secure": False, "starttls": True, "require_tls": False, "bindings": NONE}
    assert "urn:xmpp:fast:0" not in Driver(secure=False, starttls=True, require_tls=False).feed(HEADER)
    assert condition(with_token(opened(**options), b"a token")) == "invalid-mechanism"
    request = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>"
    assert condition(plain(opened(**options), request + USER_AGENT)) == "invalid-mechanism"


def test_tokens_are_not_for_the_older_profile() -> None:
    proof = b64(b"romeo\0" + hmac.digest(b"a token", b"Initiator", "sha256"))
    answer = opened().feed(f"<auth xmlns='{SASL}' mechanism='HT-SHA-256-NONE'>{proof}</auth>")
    assert "<invalid-mechanism/>" in answer


def test_a_token_is_asked_for() -> None:
    request = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-ENDP'/>"
    answer = scram(opened(), request + USER_AGENT)
    token = "<token xmlns='urn:xmpp:fast:0' token='new-HT-SHA-256-ENDP' expiry='2026-12-24T00:00:00Z'/></success>"
    assert token in answer
    assert condition(plain(opened(), request)) == "malformed-request"  # of no client
    assert condition(plain(opened(), request.replace("ENDP", "EXPR") + USER_AGENT)) == "invalid-mechanism"
    assert "<token" not in scram(opened(), USER_AGENT)  # not asked for


def test_invalidate() -> None:
    driver = opened()
    assert with_token(driver, b"a token", fast=" invalidate='true'").startswith("<success")
    assert driver.events[-2].invalidate

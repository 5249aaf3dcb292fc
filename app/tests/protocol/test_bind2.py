"""Bind 2 (XEP-0386) and resumption (XEP-0198, section 9) within a login."""

from __future__ import annotations

import re

import pytest

from tests.protocol.driver import AGENT, DOMAIN
from tests.protocol.login import BIND, ENABLE, NO_BIND, USER_AGENT, opened, scram

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

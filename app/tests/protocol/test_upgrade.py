"""More keys for an account at its login (XEP-0480)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

import pytest

from nestbox.protocol.events import (
    StoreKeys,
)
from tests.protocol.driver import DOMAIN, Driver
from tests.protocol.login import BIND, SASL2, b64, condition, opened, scram


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

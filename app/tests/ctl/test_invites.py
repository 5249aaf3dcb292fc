"""nestboxctl invite."""

from __future__ import annotations

import json
import time

import pytest

from tests.ctl.conftest import Ctl


async def made(ctl: Ctl, *arguments: str) -> dict:
    return json.loads(await ctl.ok("invite", "create", "--json", *arguments))


async def links(ctl: Ctl) -> list[str]:
    return [invite["link"] for invite in json.loads(await ctl.ok("invite", "list", "--json"))]


async def test_a_link_is_made_listed_and_taken_back(ctl: Ctl) -> None:
    out = await ctl.ok("invite", "create")
    [link] = await links(ctl)
    token = link.rpartition("/")[2]
    assert link == f"https://nestbox.test/invite/{token}"
    assert f"Link:   {link}\n" in out and f"xmpp:nestbox.test?register;preauth={token}\n" in out
    code = out.splitlines()[4:]
    assert len(code) > 15 and len({len(line) for line in code}) == 1 and "█" in out  # a square for a camera
    assert f"{link}  1 use  until 20" in await ctl.ok("invite", "list")
    assert await ctl.fails("invite", "revoke", "nonsense") == "There is no such link."
    await ctl.ok("invite", "revoke", link)
    assert await links(ctl) == [] and await ctl.fails("invite", "revoke", token)


async def test_uses_days_name_and_contact(ctl: Ctl) -> None:
    await ctl.ok("user", "add", "alice")
    one = await made(ctl, "--uses", "30", "--days", "14")
    assert one["uses_left"] == 30 and abs(one["expires"] - time.time() - 14 * 86400) < 30
    named = await made(ctl, "--name", "Juliet")
    assert named["name"] == "juliet" and named["uri"].startswith("xmpp:juliet@nestbox.test?register;preauth=")
    hers = await made(ctl, "--contact", "alice")
    assert hers["inviter"] == "alice" and hers["uri"].startswith("xmpp:alice@nestbox.test?roster;preauth=")
    shown = await ctl.ok("invite", "list")
    assert "30 uses" in shown and "for juliet" in shown and "by alice" in shown


async def test_a_link_is_shown_again_where_that_is_asked(ctl: Ctl) -> None:
    first = await made(ctl, "--reuse")
    assert (await made(ctl, "--reuse"))["link"] == first["link"]
    assert (await made(ctl))["link"] != first["link"]
    named = await made(ctl, "--reuse", "--name", "juliet")
    assert named["link"] != first["link"]
    for link in await links(ctl):
        await ctl.ok("invite", "revoke", link)
    assert (await made(ctl, "--reuse"))["link"] != first["link"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--name", "alice"), "The name alice is taken."),
        (("--name", "a b"), "cannot be a username"),
        (("--contact", "nobody"), "There is no user nobody."),
        (("--name", "bob", "--uses", "2"), "good for one account"),
    ],
)
async def test_what_cannot_be_is_one_sentence(ctl: Ctl, arguments: tuple[str, ...], said: str) -> None:
    await ctl.ok("user", "add", "alice")
    assert said in await ctl.fails("invite", "create", *arguments)
    assert await links(ctl) == []


@pytest.mark.parametrize("number", ["0", "-1", "x", "100000"])
async def test_wrong_numbers_are_refused(ctl: Ctl, number: str) -> None:
    done = await ctl.run("invite", "create", "--uses", number)
    assert done.status == 2 and "choose a number" in done.err

"""People get accounts from people: an invitation taken in a browser and in an app (XEP-0401, XEP-0445)."""

from __future__ import annotations

import asyncio

from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatcherId

from tests.clients.node import XmppClient
from tests.clients.site import DOMAIN, PASSWORD, both_databases
from tests.live.conftest import Person

FIELD = "{jabber:x:data}field"


async def invite(client: XmppClient) -> dict[str, str]:
    """Ask the server for an invitation by its command (XEP-0401, section 3.1): uri, landing-url."""
    command = (
        "<command xmlns='http://jabber.org/protocol/commands' node='urn:xmpp:invite#invite' action='{}'{}</command>"
    )
    answer = await client.ask(command.format("execute", ">"), DOMAIN, kind="set")
    stage = answer.find("{http://jabber.org/protocol/commands}command")
    if stage.get("status") == "executing":
        form = "<x xmlns='jabber:x:data' type='submit'/>"
        session = f" sessionid='{stage.get('sessionid')}'>{form}"
        answer = await client.ask(command.format("complete", session), DOMAIN, kind="set")
    return {field.get("var"): field.findtext("{jabber:x:data}value") for field in answer.iter(FIELD)}


@both_databases
async def test_an_invitation_is_taken_in_the_browser(site, names, node, web_chat):
    """The newcomer makes an account on the page, logs in to the web chat, and has the inviter as a contact there."""
    dora = names[0].replace("anna", "dora")
    anna = node(XmppClient, names[0])
    await anna.come(anna.worker(1))
    browser = await web_chat.visit(dora)
    await browser.page.goto((await invite(anna))["landing-url"])
    await browser.page.fill("input[name=username]", dora)
    for field in ("password", "again"):
        await browser.page.fill(f"input[name={field}]", PASSWORD)
    await browser.leave_traces("clients-invitation")
    await browser.page.click("button")
    await browser.page.wait_for_selector(f"text={dora}@{DOMAIN}")
    await browser.log_in()
    await browser.open_chat(anna.jid)
    await browser.say("thank you for inviting me")
    assert await anna.body() == "thank you for inviting me"


class Newcomer(Person):
    """slixmpp that makes its account with the token of an invitation before it logs in."""

    def __init__(self, name: str, site: object, token: str) -> None:
        super().__init__(name, "phone", site)
        self._token = token
        self.register_plugin("xep_0077", {"force_registration": True})
        self._ask = self["xep_0077"].get_registration
        self["xep_0077"].get_registration = self._present_token
        self.add_event_handler("register", self._register)

    async def _present_token(self) -> object:
        answer = asyncio.get_running_loop().create_future()
        self.register_handler(Callback("preauth", MatcherId("preauth"), answer.set_result))
        # In raw form, as slixmpp holds back the iqs that it does not know before log-in.
        self.send_raw(
            f"<iq type='set' id='preauth' to='{DOMAIN}'><preauth xmlns='urn:xmpp:pars:0' token='{self._token}'/></iq>"
        )
        assert (await asyncio.wait_for(answer, 10))["type"] == "result"
        return await self._ask()

    async def _register(self, form: object) -> None:
        iq = self.Iq(stype="set")
        iq["register"]["username"] = self.boundjid.user
        iq["register"]["password"] = self.password
        await iq.send()


async def test_an_invitation_is_taken_in_an_app(site, names, node):
    anna = node(XmppClient, names[0])
    await anna.come(anna.worker(1))
    told = await invite(anna)
    token = told["landing-url"].rpartition("/")[2]
    assert f"preauth={token}" in told["uri"]

    dora = Newcomer(names[0].replace("anna", "dora"), site, token)
    try:
        await dora.come(3)
        await dora.await_presence(f"{anna.jid}", "available")
        await anna.say(dora.boundjid.local, "welcome")
        assert (await dora.next_message())["body"] == "welcome"
    finally:
        await dora.leave()

"""The page behind an invitation's link."""

import time
from html.parser import HTMLParser
from urllib.parse import urlencode

import pytest

from nestbox.store import StoreError
from nestbox.store.invites import Invite, new_token

ANDROID = "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 Chrome/130 Mobile Safari/537.36"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Version/18.0 Mobile/15E148"


class Page(HTMLParser):
    """What a browser sees: ``text``, ``links``, the ``fields`` of the form, all ``tags``."""

    def __init__(self, answer):
        super().__init__()
        self.text, self.links, self.fields, self.tags = "", [], {}, []
        self.feed(answer.body.decode())

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag == "a":
            self.links.append(attributes["href"])
        if tag == "input":
            self.fields[attributes["name"]] = attributes.get("value", "")

    def handle_data(self, data):
        self.text += data


class Browser:
    """Follows one invitation, keeping its cookies."""

    def __init__(self, site, token):
        self.site, self.path, self.cookies = site, f"/invite/{token}", {}

    def _headers(self):
        held = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return {"Cookie": held} if held else {}

    def _keep(self, answer):
        cookie = answer.headers.get("set-cookie")
        if cookie:
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer

    async def open(self, **headers):
        answer = self._keep(await self.site.get(self.path, **self._headers(), **headers))
        self.fields = Page(answer).fields
        return answer

    async def send(self, username="carol", password="correct-horse-7", again=None, **fields):
        data = {**self.fields, "username": username, "password": password, "again": again or password, **fields}
        body = urlencode(data).encode()
        headers = {"Content_Type": "application/x-www-form-urlencoded", "Content_Length": len(body)}
        answer = await self.site.get(self.path, method="POST", body=body, **headers, **self._headers())
        self._keep(answer)
        self.fields = Page(answer).fields
        return answer


async def invited(site, inviter=None, **given):
    store = site.server.store
    account = await store.accounts.get(inviter) or await store.accounts.create(inviter, "x") if inviter else None
    now = int(time.time())
    fields = {"username": "", "registers": True, "contact": account is not None, "uses_left": 1}
    fields |= {"created": now, "expires": now + 3600, **given}
    invite = Invite(new_token(), account.id if account else None, **fields)
    await store.invites.create(invite)
    return invite.token


async def test_the_page_says_who_invites_to_what(site):
    token = await invited(site, "alice")
    answer = await site.get(f"/invite/{token}")
    assert answer.status == 200 and answer.headers["content-type"] == "text/html; charset=utf-8"
    page = Page(answer)
    assert "alice@nestbox.test" in page.text and "Nestbox" in page.text
    assert f"xmpp:alice@nestbox.test?roster;preauth={token};ibr=y" in page.links
    for app in ("conversations.im", "monal-im.org", "siskin.im", "dino.im", "gajim.org"):
        assert any(app in link for link in page.links)
    assert "/" in page.links  # the web chat
    assert set(page.fields) == {"form", "username", "password", "again"}
    assert ("svg" in [tag for tag, _ in page.tags]) and answer.body.count(b"<path") >= 1
    assert len(answer.body) < 20_000
    assert (await site.get(f"/invite/{token}", method="HEAD")).body == b""
    assert (await site.get(f"/invite/{token}/")).status == 200


async def test_the_apps_of_ones_device_come_first(site):
    token = await invited(site)
    for agent, first in ((ANDROID, "conversations"), (IPHONE, "monal"), ("X11; Linux x86_64", "dino"), ("", "conv")):
        links = Page(await site.get(f"/invite/{token}", User_Agent=agent)).links
        assert first in next(link for link in links if link.startswith("https:"))


async def test_the_page_runs_nothing_and_tells_nobody(site):
    token = await invited(site, "alice")
    for answer in (await site.get(f"/invite/{token}"), await site.get("/invite/" + "x" * 24)):
        headers = answer.headers
        policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'" and policy["form-action"] == "'self'"
        assert policy["base-uri"] == "'none'" and policy["frame-ancestors"] == "'none'"
        assert "script-src" not in policy and "unsafe" not in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer" and headers["cache-control"] == "no-store"
        page = Page(answer)
        assert not any(tag in ("script", "iframe", "object") for tag, _ in page.tags)
        assert not any(name.startswith("on") or name == "style" for _, attributes in page.tags for name in attributes)


async def test_an_account_is_made_in_the_browser(site):
    browser = Browser(site, await invited(site, "alice"))
    await browser.open()
    [name] = browser.cookies
    assert name == "__Host-nestbox-invite"
    answer = await browser.send("Carol", "pass word")
    assert answer.status == 201 and "carol@nestbox.test" in Page(answer).text and "/" in Page(answer).links
    account = await site.server.store.accounts.get("carol")
    assert set(account.keys) == {"SHA-1", "SHA-256", "SHA-512"}
    alice = await site.server.store.accounts.get("alice")
    for one, other in ((account, "alice"), (alice, "carol")):
        [item] = await site.server.store.roster.items(one.id)
        assert (item.jid, item.subscription) == (f"{other}@nestbox.test", "both")
    again = await site.get(browser.path)
    assert again.status == 410 and "used already" in Page(again).text


async def test_the_cookie_is_for_us_alone(site):
    answer = await site.get(f"/invite/{await invited(site)}")
    parts = {part.strip().lower() for part in answer.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "secure", "samesite=strict", "path=/"} <= parts


async def test_what_is_wrong_is_told_and_can_be_mended(site):
    await site.server.store.accounts.create("bob", "x")
    browser = Browser(site, await invited(site))
    await browser.open()
    for wrong, status, said in (
        ({"username": "bob"}, 409, "taken"),
        ({"username": "a b"}, 422, "cannot be a name"),
        ({"username": ""}, 422, "cannot be a name"),
        ({"password": "one", "again": "two"}, 422, "differ"),
        ({"password": "\u200e"}, 422, "password"),
        ({"password": "x" * 2000}, 422, "longer"),
        ({"password": "short"}, 422, "at least 8"),
        ({"password": "password"}, 422, "leaked"),
    ):
        answer = await browser.send(**wrong)
        assert answer.status == status and said in Page(answer).text, wrong
        assert browser.fields["username"] == wrong.get("username", "carol").strip()
        assert browser.fields["password"] == ""
    assert (await browser.send()).status == 201


async def test_a_promised_name_is_filled_in(site):
    browser = Browser(site, await invited(site, username="juliet"))
    answer = await browser.open()
    assert browser.fields["username"] == "juliet"
    assert f"xmpp:juliet@nestbox.test?register;preauth={browser.path[8:]}" in Page(answer).links
    assert (await browser.send("romeo")).status == 422
    assert (await browser.send("juliet")).status == 201


async def test_a_form_is_good_once_for_one_browser_and_one_invitation(site):
    token, other = await invited(site, uses_left=9), await invited(site, uses_left=9)
    browser, elsewhere, thief = Browser(site, token), Browser(site, other), Browser(site, token)
    for one in (browser, elsewhere, thief):
        await one.open()
    first = dict(browser.fields)
    assert (await browser.send("one")).status == 201
    browser.fields = first
    assert (await browser.send("two")).status == 403  # sent again
    thief_form = dict(thief.fields)
    await browser.open()
    assert (await thief.send("three", form=browser.fields["form"])).status == 403  # without its cookie
    thief.fields = thief_form
    assert (await browser.send("four", form=elsewhere.fields["form"])).status == 403  # of another invitation
    for form in ("", "x" * 22, "x" * 5000, "é"):
        await browser.open()
        assert (await browser.send("five", form=form)).status == 403
    bare = Browser(site, token)
    bare.fields = {}
    assert (await bare.send("six")).status == 403
    names = ["one", "two", "three", "four", "five", "six"]
    assert await site.server.store.accounts.existing(names) == ["one"]
    await browser.open()
    assert (await browser.send("seven")).status == 201


async def test_two_tabs_of_one_browser(site):
    browser = Browser(site, await invited(site, uses_left=2))
    await browser.open()
    first = dict(browser.fields)
    await browser.open()
    assert (await browser.send("one")).status == 201
    browser.fields = first
    assert (await browser.send("two")).status == 201


async def test_an_invitation_for_contacts_has_no_form(site):
    token = await invited(site, "alice", registers=False)
    browser = Browser(site, token)
    page = Page(await browser.open())
    assert browser.fields == {} and f"xmpp:alice@nestbox.test?roster;preauth={token}" in page.links
    assert (await browser.send()).status == 403
    assert await site.server.store.accounts.get("carol") is None


@pytest.mark.parametrize(("given", "said"), [({"expires": 1}, "has ended"), ({"uses_left": 0}, "was used already")])
async def test_an_invitation_that_is_over(site, given, said):
    browser = Browser(site, await invited(site, **given))
    for answer in (await browser.open(), await browser.send()):
        page = Page(answer)
        assert answer.status == 410 and said in page.text and page.fields == {}


@pytest.mark.parametrize(
    "path", ["", "x", "x" * 24, "x" * 300, "%27%20OR%201=1--", "%3Cscript%3E", "..%2f..%2fetc", "%00", "%ff", "a/b"]
)
async def test_an_unknown_invitation(site, path):
    await invited(site)
    answer = await site.get(f"/invite/{path}")
    assert answer.status in (400, 404) and b"<script" not in answer.body and b"Traceback" not in answer.body
    if answer.status == 404 and "html" in answer.headers["content-type"]:
        assert "There is no such invitation" in Page(answer).text
    post = await site.get(f"/invite/{path}", method="POST", Content_Length=0)
    assert post.status in (400, 404)


async def test_names_are_shown_as_they_are(site):
    site.server.config.name = "<b>Tom & Co</b>"
    browser = Browser(site, await invited(site))
    assert b"<b>Tom" not in (await browser.open()).body
    answer = await browser.send('"><script>alert(1)</script>')
    assert answer.status == 422 and b"<script" not in answer.body
    assert 'value="&quot;&gt;&lt;script&gt;' in answer.body.decode()


async def test_too_many_requests(site):
    token = await invited(site)
    for _ in range(100):
        assert (await site.get("/invite/" + "x" * 24, X_Forwarded_For="192.0.2.1")).status == 404
    answer = await site.get("/invite/" + "x" * 24, X_Forwarded_For="192.0.2.1")
    assert answer.status == 429 and answer.headers["retry-after"] == "600"
    assert site.server.counts.limits_hit == {"invite_misses": 1}
    assert (await site.get("/invite/" + "x" * 24, X_Forwarded_For="192.0.2.2")).status == 404
    assert (await site.get(f"/invite/{token}", X_Forwarded_For="192.0.2.1")).status == 200


async def test_too_many_forms(site):
    browser = Browser(site, await invited(site))
    for _ in range(300):
        browser.fields = {}
        assert (await browser.send()).status == 403
    assert (await browser.send()).status == 429
    assert site.server.counts.limits_hit == {"invite_posts": 1}


async def test_a_database_that_is_away(site, monkeypatch):
    token = await invited(site)

    async def away(token):
        raise StoreError("gone")

    monkeypatch.setattr(site.server.store.invites, "get", away)
    answer = await site.get(f"/invite/{token}")
    assert answer.status == 503 and "try again in a minute" in Page(answer).text


async def test_other_methods_are_refused(site):
    token = await invited(site)
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH"):
        assert (await site.get(f"/invite/{token}", method=method, Content_Length=0)).status == 405

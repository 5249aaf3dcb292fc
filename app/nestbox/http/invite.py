"""The page behind an invitation's link (XEP-0401, section 4.2): apps, an xmpp: link, and a form that makes the account.

It has no script. The form is good once and only in the browser that was given it, and is kept on the bus, since the
next request may reach another worker.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import segno
from tornado.template import Loader
from tornado.web import HTTPError

from nestbox.bus import BusError
from nestbox.core.errors import StanzaError
from nestbox.core.invite_links import landing_url, xmpp_uri
from nestbox.core.throttle import Throttle
from nestbox.http.page import Page
from nestbox.modules.registration import Registrar
from nestbox.net.websocket import client_address
from nestbox.store.errors import StoreError

if TYPE_CHECKING:
    from nestbox.core.server import Server
    from nestbox.store.invites import Invite

__all__ = ["PATH", "Invitations", "InviteHandler"]

PATH = r"/invite/([^/]*)/?"
FORM_SECONDS = 3600
_FOLDER = Path(__file__).parent
_STYLE = (_FOLDER / "invite.css").read_text()
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
_TOKEN = re.compile(r"[A-Za-z0-9]{16,64}").fullmatch
_NONCE = re.compile(r"[A-Za-z0-9_-]{22}").fullmatch
_STATUS = {"not-acceptable": 422, "conflict": 409, "item-not-found": 410}


@dataclass(frozen=True, slots=True)
class _App:
    name: str
    url: str
    platforms: str
    agents: tuple[str, ...]  # parts of the User-Agent of its devices
    fits: bool = False


_APPS = (
    _App("Conversations", "https://conversations.im/", "Android", ("Android",)),
    _App("Monal", "https://monal-im.org/", "iPhone, iPad and Mac", ("iPhone", "iPad", "Macintosh")),
    _App("Siskin", "https://siskin.im/", "iPhone and iPad", ("iPhone", "iPad")),
    _App("Dino", "https://dino.im/", "Linux", ("X11",)),
    _App("Gajim", "https://gajim.org/", "Linux, Windows and Mac", ("X11", "Windows", "Macintosh")),
)


def _apps_for(agent: str) -> list[_App]:
    """All apps, those for the visitor's device first."""
    marked = [
        _App(app.name, app.url, app.platforms, app.agents, any(part in agent for part in app.agents)) for app in _APPS
    ]
    return sorted(marked, key=lambda app: not app.fits)


@lru_cache(maxsize=256)
def _code(link: str) -> str:
    """The link as a QR code in SVG; making one takes 20 ms."""
    return segno.make(link, error="m", micro=False).svg_inline(scale=4, border=3, light="#fff")


class Invitations:
    """What the pages of a worker share. ``trusted`` says that our proxy tells the client's address."""

    def __init__(self, server: Server, trusted: bool) -> None:
        self.server = server
        self.trusted = trusted
        self.registrar = Registrar(server)
        self.page = Loader(str(_FOLDER)).load("invite.html")
        # A school's pupils come from one address, all at once; guesses of tokens are hopeless anyway.
        self.posts = Throttle(300, 600)
        self.misses = Throttle(100, 600)


class InviteHandler(Page):
    """GET, HEAD and POST /invite/TOKEN."""

    def initialize(self, invitations: Invitations) -> None:
        """Tornado's constructor."""
        self._shared = invitations
        self._server = invitations.server

    def set_default_headers(self) -> None:
        """See Page."""
        super().set_default_headers()
        self.set_header("Content-Security-Policy", _POLICY)
        self.set_header("X-Robots-Tag", "noindex")

    async def get(self, token: str) -> None:
        """The page of an invitation."""
        invite = await self._find(token)
        if invite is not None:
            await self._show(invite)

    async def head(self, token: str) -> None:
        """As GET; Tornado leaves the page out."""
        await self.get(token)

    async def post(self, token: str) -> None:
        """Make the account that the form asks for."""
        if not self._shared.posts.allows(self._address()):
            self._limit("invite_posts")
            return
        invite = await self._find(token)
        if invite is None:
            return
        username = self.get_body_argument("username", "").strip()
        if not invite.registers:
            await self._show(invite, 403, "This invitation is for people who have an account.")
        elif not await self._form_is_ours(token):
            await self._show(
                invite, 403, "This form was used already, or is too old: please fill it in again.", username
            )
        elif self.get_body_argument("password", "", strip=False) != self.get_body_argument("again", "", strip=False):
            await self._show(invite, 422, "The two passwords differ.", username)
        else:
            await self._register(invite, username)

    async def _register(self, invite: Invite, username: str) -> None:
        try:
            password = self.get_body_argument("password", "", strip=False)
            user = await self._shared.registrar.register(username, password, invite)
        except StanzaError as error:
            if error.condition == "item-not-found":
                self._render(410, "Invitation", problem=error.text)
            else:
                await self._show(invite, _STATUS[error.condition], error.text, username)
            return
        self._render(201, f"Welcome to {self._server.config.name}", jid=user.jid, apps=self._apps())

    async def _find(self, token: str) -> Invite | None:
        """The open invitation of a token, or None once the reason was answered."""
        invite = await self._server.store.invites.get(token) if _TOKEN(token) else None
        if invite is None:
            if self._shared.misses.allows(self._address()):
                self._render(
                    404, "Invitation", problem="There is no such invitation. Look whether the link is complete."
                )
            else:
                self._limit("invite_misses")
            return None
        if not invite.is_open(time.time()):
            why = "has ended" if invite.uses_left > 0 else "was used already"
            self._render(410, "Invitation", problem=f"This invitation {why}. Ask for a new one.")
            return None
        return invite

    async def _show(self, invite: Invite, status: int = 200, problem: str = "", username: str = "") -> None:
        config = self._server.config
        title = f"{invite.inviter} invites you" if invite.inviter else f"You are invited to {config.name}"
        self._render(
            status,
            title,
            problem=problem,
            invite=invite,
            uri=xmpp_uri(config.domain, invite),
            until=datetime.fromtimestamp(invite.expires, UTC).strftime("%d %B %Y, %H:%M UTC"),
            apps=self._apps(),
            form=await self._new_form(invite.token) if invite.registers else "",
            username=invite.username or username,
            code=_code(landing_url(config, invite.token)),
        )

    def _render(self, status: int, title: str, **values: object) -> None:
        config = self._server.config
        known = {"problem": "", "jid": "", "invite": None, "apps": (), "form": "", "code": "", "username": ""}
        known |= {"title": title, "style": _STYLE, "domain": config.domain, "name": config.name, **values}
        self.set_status(status)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(self._shared.page.generate(**known))

    def _apps(self) -> list[_App]:
        return _apps_for(self.request.headers.get("User-Agent", ""))

    # the form

    @property
    def _cookie(self) -> str:
        return "__Host-nestbox-invite" if self._secure else "nestbox-invite"

    @property
    def _secure(self) -> bool:
        return self._server.config.https_url.startswith("https:")

    async def _new_form(self, token: str) -> str:
        """The secret of a new form, bound to this browser by a cookie. Raises BusError."""
        nonce = self.get_cookie(self._cookie, "")
        if not _NONCE(nonce):
            nonce = secrets.token_urlsafe(16)
            options = {"httponly": True, "samesite": "Strict", "secure": self._secure, "max_age": FORM_SECONDS}
            self.set_cookie(self._cookie, nonce, **options)
        form = secrets.token_urlsafe(16)
        await self._server.bus.set(f"invite-form:{form}", f"{nonce}:{token}".encode(), FORM_SECONDS)
        return form

    async def _form_is_ours(self, token: str) -> bool:
        """Whether this browser was given the form for this invitation and has not sent it before. Raises BusError."""
        form, nonce = self.get_body_argument("form", ""), self.get_cookie(self._cookie, "")
        if not _NONCE(form) or not _NONCE(nonce):
            return False
        given = await self._server.bus.take(f"invite-form:{form}")
        return given is not None and hmac.compare_digest(given, f"{nonce}:{token}".encode())

    # refusals

    def _address(self) -> str:
        """What the client's address counts as, '' where nothing is counted; all that are not known count as one."""
        address = client_address(self.request, self._shared.trusted)
        return self._server.sources.key(address) if address else "unknown"

    def _limit(self, name: str) -> None:
        self._server.counts.limits_hit[name] += 1
        self.set_header("Retry-After", "600")
        self._render(429, "Invitation", problem="Too many requests came from your address; try again in ten minutes.")

    def write_error(self, status_code: int, **kwargs: object) -> None:
        """See Page; a store or bus that is away is told as such."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, StoreError | BusError):
            self._render(503, "Invitation", problem="The server cannot do this now; try again in a minute.")
        elif isinstance(error, HTTPError) and status_code == 400:
            self._render(400, "Invitation", problem="The server does not understand this form.")
        else:
            super().write_error(status_code, **kwargs)

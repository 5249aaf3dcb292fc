"""Where web clients learn the addresses of WebSocket and BOSH (XEP-0156, section 3; RFC 6415)."""

from __future__ import annotations

from xml.sax.saxutils import quoteattr

from nestbox import Xep
from nestbox.http.page import Page

__all__ = ["HostMetaHandler"]

XEPS = (Xep(156, "1.4.0"),)

_RELATION = "urn:xmpp:alt-connections:"


class HostMetaHandler(Page):
    """GET /.well-known/host-meta and host-meta.json. ``https_url`` is the address of this server for clients."""

    def initialize(self, https_url: str) -> None:
        """Tornado's constructor."""
        scheme, _, rest = https_url.partition("://")
        self._links = {
            "websocket": f"{'ws' if scheme == 'http' else 'wss'}://{rest}/xmpp-websocket",
            "xbosh": f"{https_url}/http-bind",
        }

    def get(self, json: str | None) -> None:
        """As XRD, or as JSON for the path that ends so."""
        self.set_header("Access-Control-Allow-Origin", "*")  # XEP-0156, section 3.1
        self.set_header("Cache-Control", "max-age=3600")
        if json:
            self.finish({"links": [{"rel": _RELATION + name, "href": href} for name, href in self._links.items()]})
            return
        self.set_header("Content-Type", "application/xrd+xml; charset=utf-8")
        self.finish(
            '<?xml version="1.0" encoding="utf-8"?>\n'
            '<XRD xmlns="http://docs.oasis-open.org/ns/xri/xrd-1.0">\n'
            + "".join(
                f'  <Link rel="{_RELATION}{name}" href={quoteattr(href)}/>\n' for name, href in self._links.items()
            )
            + "</XRD>\n"
        )

    head = get

"""Where web clients learn the address of the WebSocket (XEP-0156, section 3; RFC 6415)."""

from __future__ import annotations

from xml.sax.saxutils import quoteattr

from nestbox.http.page import Page

__all__ = ["HostMetaHandler"]

_WEBSOCKET = "urn:xmpp:alt-connections:websocket"


class HostMetaHandler(Page):
    """GET /.well-known/host-meta and host-meta.json. ``https_url`` is the address of this server for clients."""

    def initialize(self, https_url: str) -> None:
        """Tornado's constructor."""
        scheme, _, rest = https_url.partition("://")
        self._websocket = f"{'ws' if scheme == 'http' else 'wss'}://{rest}/xmpp-websocket"

    def get(self, json: str | None) -> None:
        """As XRD, or as JSON for the path that ends so."""
        self.set_header("Access-Control-Allow-Origin", "*")  # XEP-0156, section 3.1
        self.set_header("Cache-Control", "max-age=3600")
        if json:
            self.finish({"links": [{"rel": _WEBSOCKET, "href": self._websocket}]})
            return
        self.set_header("Content-Type", "application/xrd+xml; charset=utf-8")
        self.finish(
            '<?xml version="1.0" encoding="utf-8"?>\n'
            '<XRD xmlns="http://docs.oasis-open.org/ns/xri/xrd-1.0">\n'
            f'  <Link rel="{_WEBSOCKET}" href={quoteattr(self._websocket)}/>\n'
            "</XRD>\n"
        )

    head = get

"""Stream headers, the client's and ours (RFC 6120, section 4.7; over WebSocket RFC 7395, section 3.4)."""

from __future__ import annotations

import re
import secrets
from contextlib import suppress

from nestbox.core.errors import StreamError
from nestbox.core.jid import JID, parse_jid, prepare_domain
from nestbox.protocol.features import StreamOptions
from nestbox.wire import ns
from nestbox.wire.element import escape_attribute, local_name
from nestbox.wire.reader import StreamOpen

__all__ = ["LANG", "check", "is_here", "lang_of", "peer_of", "write"]

LANG = f"{{{ns.XML}}}lang"
_STREAM = f"{{{ns.STREAMS}}}stream"
_LANGUAGE = re.compile(r"[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8}){0,4}").fullmatch
_VERSION = re.compile(r"0*[1-9][0-9]*\.[0-9]+").fullmatch


def check(header: StreamOpen, domain: str, *, tcp: bool) -> None:
    """Raise StreamError unless this opens a client's stream to us."""
    if tcp:
        if local_name(header.tag) != "stream":
            raise StreamError("bad-format", "a stream begins with <stream/>")
        if header.tag != _STREAM or header.default_ns not in (None, ns.CLIENT, ns.STREAMS):
            raise StreamError("invalid-namespace", "only clients are served here")
    to = header.attributes.get("to")
    if not to:
        raise StreamError("improper-addressing", "the stream header lacks 'to'")
    if not is_here(to, domain):
        raise StreamError("host-unknown", "that domain is not served here")
    if not _VERSION(header.attributes.get("version", "")):
        raise StreamError("unsupported-version", "version 1.0 is needed")


def is_here(to: str, domain: str) -> bool:
    """Whether an address is our host's."""
    try:
        return len(to) < 256 and prepare_domain(to) == domain
    except ValueError:
        return False


def peer_of(header: StreamOpen) -> JID | None:
    """Who the client says it is, None where it does not, or cannot be."""
    peer = header.attributes.get("from")
    if peer and len(peer) < 256:
        with suppress(ValueError):
            return parse_jid(peer)
    return None


def lang_of(header: StreamOpen) -> str | None:
    """The language of what the client says from now on (section 4.7.4), None where that is no language tag."""
    lang = header.attributes.get(LANG, "")
    return lang if _LANGUAGE(lang) else None


def write(options: StreamOptions, peer: JID | None, *, tcp: bool) -> bytes:
    """Our stream header, to the bare JID of ``peer`` where known (section 4.7.2)."""
    to = f' to="{escape_attribute(peer.bare)}"' if peer is not None else ""
    attributes = f"from='{options.domain}' id='{secrets.token_hex(8)}' version='1.0' xml:lang='{options.lang}'{to}"
    if tcp:
        names = f"xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAMS}'"
        return f"<?xml version='1.0'?><stream:stream {names} {attributes}>".encode()
    return f"<open xmlns='{ns.FRAMING}' {attributes}/>".encode()

"""Entity capabilities of the server (XEP-0115): a hash of its disco answer in the stream features.

Clients that know the hash need not ask. It is set up last, when all features are known.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

from nestbox.modules import Xep
from nestbox.modules.disco import FEATURE, IDENTITY, host_info
from nestbox.wire import ns
from nestbox.wire.element import Element, el, to_bytes

if TYPE_CHECKING:
    from nestbox.core.server import Server

__all__ = ["XEPS", "setup", "verification"]

XEPS = (Xep(115, "1.6.0", "the server's own capabilities"),)
_LANG = f"{{{ns.XML}}}lang"


def verification(info: Element) -> str:
    """The verification string of a disco#info answer without forms: SHA-1 in base64 (XEP-0115, section 5.1)."""
    identities = sorted(
        "/".join((each.get("category", ""), each.get("type", ""), each.get(_LANG, ""), each.get("name", "")))
        for each in info.iter(IDENTITY)
    )
    features = sorted(each.get("var", "") for each in info.iter(FEATURE))
    text = "".join(part + "<" for part in identities + features)
    return base64.b64encode(hashlib.sha1(text.encode()).digest()).decode()


def setup(server: Server) -> None:
    """Advertise the hash and answer disco for its node."""
    server.host_features.add(ns.CAPS)
    node = server.config.https_url
    ver = verification(host_info(server))
    server.host_nodes.add(f"{node}#{ver}")
    server.stream_features.append(to_bytes(el(f"{{{ns.CAPS}}}c", {"hash": "sha-1", "node": node, "ver": ver})))

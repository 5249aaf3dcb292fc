"""Names of the portable format for accounts (XEP-0227), which `export_xml` writes and `import_xml` reads."""

from __future__ import annotations

from nestbox import Xep
from nestbox.wire import ns

__all__ = ["XEPS", "names"]

XEPS = (Xep(227, "1.1", "one file without XInclude; of PEP no subscriptions"),)

PIE = "urn:xmpp:pie:0"
SCRAM = "urn:xmpp:pie:0#scram"
ARCHIVE = "urn:xmpp:pie:0#mam"
DISABLED = "{urn:nestbox:account}disabled"  # what the format has no word for
PRIVACY = "jabber:iq:privacy"


def names(namespace: str, *locals: str) -> tuple[str, ...]:
    """Tags of a namespace."""
    return tuple(f"{{{namespace}}}{local}" for local in locals)


SERVER_DATA, HOST, USER, OFFLINE = names(PIE, "server-data", "host", "user", "offline-messages")
CREDENTIALS, ITERATIONS, SALT, SERVER_KEY, STORED_KEY = names(
    SCRAM, "scram-credentials", "iter-count", "salt", "server-key", "stored-key"
)
(MAM_ARCHIVE,) = names(ARCHIVE, "archive")
RESULT, PREFS = names(ns.MAM, "result", "prefs")
(FORWARDED,) = names(ns.FORWARD, "forwarded")
(DELAY,) = names(ns.DELAY, "delay")
(PRIVATE,) = names(ns.PRIVATE, "query")
(VCARD,) = names(ns.VCARD, "vCard")
PRIVACY_QUERY, PRIVACY_DEFAULT, PRIVACY_LIST, PRIVACY_ITEM = names(PRIVACY, "query", "default", "list", "item")
BLOCKLIST, BLOCK_ITEM = names(ns.BLOCKING, "blocklist", "item")
PUBSUB, ITEMS, ITEM = names(ns.PUBSUB, "pubsub", "items", "item")
OWNER, CONFIGURE, AFFILIATIONS, AFFILIATION = names(
    ns.PUBSUB_OWNER, "pubsub", "configure", "affiliations", "affiliation"
)

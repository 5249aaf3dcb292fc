"""What a message carries: the one place that says which messages are worth keeping, copying or waking a phone for.

Archive (XEP-0313, section 5.1.1), offline messages (XEP-0160), carbons (XEP-0280, section 6) and client states
(XEP-0352) ask the same questions. They sit on every message's way, so each is one look at the children's tags.
"""

from __future__ import annotations

from nestbox.modules import Xep
from nestbox.wire import ns
from nestbox.wire.element import Element

__all__ = [
    "MUC_INVITE",
    "MUC_USER",
    "ONE_TO_ONE",
    "PUBSUB_EVENT",
    "XEPS",
    "archivable",
    "is_chat_state_only",
    "keepable",
    "meaningful",
    "wakes",
]

XEPS = (Xep(334, "1.0.0"),)

ONE_TO_ONE = frozenset((None, "normal", "chat"))
NO_STORE = f"{{{ns.HINTS}}}no-store"
NO_PERMANENT_STORE = f"{{{ns.HINTS}}}no-permanent-store"
PUBSUB_EVENT = f"{{{ns.PUBSUB_EVENT}}}event"
_CHAT_STATES = f"{{{ns.CHAT_STATES}}}"
# What accompanies something else and means nothing alone.
_NOTHING_ALONE = (f"{{{ns.HINTS}}}", f"{{{ns.STANZA_ID}}}", "{jabber:client}thread", f"{{{ns.CARBONS}}}private")


def _tags(namespace: str, *names: str) -> set[str]:
    return {f"{{{namespace}}}{name}" for name in names}


# One of these makes a message part of a conversation, with or without a body.
_MEANINGFUL = frozenset(
    _tags("jabber:client", "body", "subject")
    | _tags(ns.RECEIPTS, "received")  # XEP-0184
    | _tags("urn:xmpp:chat-markers:0", "received", "displayed", "acknowledged")  # XEP-0333
    | _tags("urn:xmpp:message-correct:0", "replace")  # XEP-0308
    | _tags("urn:xmpp:reactions:0", "reactions")  # XEP-0444
    | _tags("urn:xmpp:message-retract:1", "retract")  # XEP-0424
    | _tags("urn:xmpp:message-retract:0", "retract")
    | _tags("urn:xmpp:fasten:0", "apply-to")  # XEP-0422, under older retractions
    | _tags("urn:xmpp:jingle-message:0", "propose", "ringing", "proceed", "accept", "reject", "retract", "finish")
    | _tags("urn:xmpp:omemo:2", "encrypted")  # XEP-0384
    | _tags("eu.siacs.conversations.axolotl", "encrypted")
    | _tags("urn:xmpp:openpgp:0", "openpgp")  # XEP-0373
    | _tags("jabber:x:encrypted", "x")  # XEP-0027
    | _tags("jabber:x:oob", "x")  # XEP-0066
    | _tags("jabber:x:conference", "x")  # XEP-0249
    | _tags(ns.HINTS, "store")
)
_WAKING = frozenset(
    _tags("jabber:client", "body")
    | _tags("urn:xmpp:jingle-message:0", "propose")
    | _tags("urn:xmpp:omemo:2", "encrypted")
    | _tags("eu.siacs.conversations.axolotl", "encrypted")
    | _tags("urn:xmpp:openpgp:0", "openpgp")
    | _tags("jabber:x:encrypted", "x")
    | _tags("jabber:x:conference", "x")
)
_NOT_KEPT = frozenset((NO_STORE, PUBSUB_EVENT))
MUC_USER = f"{{{ns.MUC_USER}}}x"
MUC_INVITE = f"{{{ns.MUC_USER}}}invite"


def meaningful(message: Element) -> bool:
    """Whether a message says something to people or their clients beyond the moment."""
    for child in message:
        tag = child.tag
        if tag in _MEANINGFUL or (tag == MUC_USER and child.find(MUC_INVITE) is not None):
            return True
    return False


def keepable(message: Element) -> bool:
    """Whether a message may wait in the server for its recipient (XEP-0160, section 3; XEP-0334, section 4.2)."""
    found = False
    for child in message:
        tag = child.tag
        if tag in _NOT_KEPT:
            return False
        if tag in _MEANINGFUL or (tag == MUC_USER and child.find(MUC_INVITE) is not None):
            found = True
    return found


def archivable(message: Element) -> bool:
    """Whether a message belongs into archives, as far as its content goes (XEP-0334, sections 4.1 and 4.2)."""
    return keepable(message) and message.find(NO_PERMANENT_STORE) is None


def wakes(message: Element) -> bool:
    """Whether a person should hear of a message at once, whatever the phone does (XEP-0357)."""
    found = False
    for child in message:
        tag = child.tag
        if tag in _NOT_KEPT:
            return False
        if tag in _WAKING or (tag == MUC_USER and child.find(MUC_INVITE) is not None):
            found = True
    return found


def is_chat_state_only(message: Element) -> bool:
    """Whether a message only says that someone is typing, or the like (XEP-0085, section 5.5)."""
    found = False
    for child in message:
        if child.tag.startswith(_CHAT_STATES):
            found = True
        elif not child.tag.startswith(_NOTHING_ALONE):
            return False
    return found

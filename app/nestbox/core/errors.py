"""The errors of XMPP: of streams, of stanzas and of SASL."""

from __future__ import annotations

from xml.etree.ElementTree import Element

__all__ = ["SaslError", "StanzaError", "StreamError"]

_STANZA_ERRORS = "urn:ietf:params:xml:ns:xmpp-stanzas"

# RFC 6120, section 8.3.3: the type that goes with each defined condition.
_TYPES = {
    "bad-request": "modify",
    "conflict": "cancel",
    "feature-not-implemented": "cancel",
    "forbidden": "auth",
    "gone": "cancel",
    "internal-server-error": "cancel",
    "item-not-found": "cancel",
    "jid-malformed": "modify",
    "not-acceptable": "modify",
    "not-allowed": "cancel",
    "not-authorized": "auth",
    "policy-violation": "modify",
    "recipient-unavailable": "wait",
    "redirect": "modify",
    "registration-required": "auth",
    "remote-server-not-found": "cancel",
    "remote-server-timeout": "wait",
    "resource-constraint": "wait",
    "service-unavailable": "cancel",
    "subscription-required": "auth",
    "undefined-condition": "cancel",
    "unexpected-request": "wait",
}


class StreamError(Exception):
    """Ends a stream (RFC 6120, section 4.9). ``condition`` is one of section 4.9.3, ``text`` is for people.

    ``limit`` is the name of the limit that was gone over, by which the metrics count it; '' for none.
    """

    def __init__(self, condition: str, text: str = "", *, limit: str = "") -> None:
        super().__init__(f"{condition}: {text}" if text else condition)
        self.condition = condition
        self.text = text
        self.limit = limit


class StanzaError(Exception):
    """Answers a stanza (RFC 6120, section 8.3). The type follows from the condition where not given.

    ``extra`` is an application-specific condition, put after the defined one (section 8.3.4). ``limit`` is the name of
    the limit that was gone over, by which the metrics count it; '' for none.
    """

    def __init__(
        self, condition: str, text: str = "", *, type: str | None = None, extra: Element | None = None, limit: str = ""
    ) -> None:
        super().__init__(f"{condition}: {text}" if text else condition)
        self.condition = condition
        self.type = type or _TYPES[condition]
        self.text = text
        self.extra = extra
        self.limit = limit

    def element(self) -> Element:
        """The ``<error/>`` child for the answer."""
        error = Element("{jabber:client}error", {"type": self.type})
        error.append(Element(f"{{{_STANZA_ERRORS}}}{self.condition}"))
        if self.text:
            text = Element(f"{{{_STANZA_ERRORS}}}text", {"{http://www.w3.org/XML/1998/namespace}lang": "en"})
            text.text = self.text
            error.append(text)
        if self.extra is not None:
            error.append(self.extra)
        return error


class SaslError(Exception):
    """Fails an authentication (RFC 6120, section 6.5). ``condition`` is one of section 6.5.

    ``counts``: whether it is a whole attempt of those that a stream has; not where the client only tries a mechanism.
    """

    def __init__(self, condition: str, text: str = "", counts: bool = True) -> None:
        super().__init__(f"{condition}: {text}" if text else condition)
        self.condition = condition
        self.text = text
        self.counts = counts

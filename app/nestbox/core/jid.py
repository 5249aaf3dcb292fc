"""XMPP addresses (RFC 7622)."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from functools import lru_cache

from precis_i18n import get_profile

__all__ = ["JID", "parse_jid", "prepare_domain", "prepare_localpart", "prepare_resource"]

RFCS = ("RFC 7622",)

_USERNAME = get_profile("UsernameCaseMapped")
_OPAQUE = get_profile("OpaqueString")
_width_map = _USERNAME.width_mapping_rule
_FORBIDDEN_LOCAL = frozenset("\"&'/:<>@")  # RFC 7622, section 3.3.1
_PLAIN_LOCAL = re.compile(r"[a-z0-9._\-+]{1,255}").fullmatch
_PLAIN_RESOURCE = re.compile(r"[A-Za-z0-9._\-+:/@=~]{1,255}").fullmatch
_LABEL = re.compile(r"(?!-)[a-z0-9\-_]{1,63}(?<!-)").fullmatch


def prepare_localpart(text: str) -> str:
    """Prepare a localpart (RFC 7622, section 3.3). Raises ValueError for what no account can be called."""
    if _PLAIN_LOCAL(text):
        return text
    prepared = _USERNAME.enforce(text)
    if not prepared or _FORBIDDEN_LOCAL.intersection(prepared) or len(prepared.encode()) > 1023:
        raise ValueError(f"{text!r} is no localpart")
    return prepared


def prepare_domain(text: str) -> str:
    """Prepare a domainpart: a host name or an address literal (RFC 7622, section 3.2). Raises ValueError."""
    if not text.isascii():
        text = _width_map(text).replace("\u3002", ".")  # the full stop of Chinese and Japanese, as in RFC 5895
    text = text.removesuffix(".")
    if text.startswith("["):
        literal = ipaddress.IPv6Address(text[1:-1])
        if not text.endswith("]") or literal.scope_id is not None:
            raise ValueError(f"{text!r} is no domain")
        return f"[{literal}]"
    text = unicodedata.normalize("NFC", ".".join(map(_u_label, text.lower().split("."))))
    labels = text if text.isascii() else text.encode("idna").decode()
    if len(labels) > 253 or not all(_LABEL(label) for label in labels.split(".")):
        raise ValueError(f"{text!r} is no domain")
    return text


def _u_label(label: str) -> str:
    """An A-label as the U-label that it stands for (RFC 7622, section 3.2.1). Raises ValueError."""
    if not label.startswith("xn--"):
        return label
    unicode = label[4:].encode("ascii").decode("punycode")
    if unicode.isascii():
        raise ValueError(f"{label!r} stands for no other label")
    return unicode.lower()


def prepare_resource(text: str) -> str:
    """Prepare a resourcepart (RFC 7622, section 3.4). Raises ValueError."""
    if _PLAIN_RESOURCE(text):
        return text
    prepared = _OPAQUE.enforce(text)
    if not prepared or len(prepared.encode()) > 1023:
        raise ValueError(f"{text!r} is no resource")
    return prepared


class JID:
    """A prepared address, not to be changed: ``local`` and ``resource`` may be '', ``domain`` never is."""

    __slots__ = ("_full", "bare", "domain", "local", "resource")

    def __init__(self, local: str, domain: str, resource: str = "") -> None:
        self.local = local
        self.domain = domain
        self.resource = resource
        self.bare = f"{local}@{domain}" if local else domain
        self._full = f"{self.bare}/{resource}" if resource else self.bare

    @property
    def bare_jid(self) -> JID:
        """This address without its resource."""
        return JID(self.local, self.domain) if self.resource else self

    @property
    def is_full(self) -> bool:
        """Whether it has a resource."""
        return bool(self.resource)

    def __str__(self) -> str:
        return self._full

    def __repr__(self) -> str:
        return f"JID({self._full!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JID) and self._full == other._full

    def __hash__(self) -> int:
        return hash(self._full)


@lru_cache(maxsize=16384)
def parse_jid(text: str) -> JID:
    """Parse and prepare an address (RFC 7622, section 3.5). Raises ValueError when it is none."""
    rest, slash, resource = text.partition("/")
    local, at, domain = rest.partition("@")
    if not at:
        local, domain = "", rest
    elif not local:
        raise ValueError(f"{text!r} has an empty localpart")
    if slash and not resource:
        raise ValueError(f"{text!r} has an empty resource")
    try:
        return JID(
            prepare_localpart(local) if local else "",
            prepare_domain(domain),
            prepare_resource(resource) if resource else "",
        )
    except UnicodeError as error:  # precis and idna raise this family
        raise ValueError(f"{text!r} is no address: {error}") from error

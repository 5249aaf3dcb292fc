"""By what clients' addresses limits count: one host of IPv4, one network of IPv6, nothing for whom we trust."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

__all__ = ["Sources"]

_HOST_BITS = 64  # of an IPv6 address, which whoever has one may choose freely (RFC 7421)


class Sources:
    """``trusted`` are addresses and networks, such as an office's behind one address: no limit counts for them."""

    def __init__(self, trusted: Iterable[str]) -> None:
        self._trusted = [ipaddress.ip_network(text, strict=False) for text in trusted]
        self.key = lru_cache(maxsize=4096)(self._key)

    def _key(self, address: str) -> str:
        """What ``address`` counts as; '' where nothing is counted, as for one that is not known."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return ""
        parsed = getattr(parsed, "ipv4_mapped", None) or parsed
        if any(parsed in network for network in self._trusted if network.version == parsed.version):
            return ""
        if parsed.version == 4:
            return str(parsed)
        return str(ipaddress.ip_network((int(parsed) >> _HOST_BITS << _HOST_BITS, 128 - _HOST_BITS)))

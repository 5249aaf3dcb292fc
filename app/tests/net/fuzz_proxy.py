"""Mutates PROXY headers and parses them whole and piece by piece: a header or a ProxyError, and the same either way.

Run it for longer than the tests do with ``python -m tests.net.fuzz_proxy SECONDS [SEED]`` in ``app/``.
"""

from __future__ import annotations

import random
import struct
import sys
import time

from nestbox.net.proxy import MAX_V2, ProxyError, ProxyHeader, parse
from tests.wire.fuzz_reader import mutate

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_INET = bytes((192, 0, 2, 7, 192, 0, 2, 1)) + struct.pack("!HH", 40000, 5222)
_SSL = b"\x20\x00\x0f" + bytes((1, 0, 0, 0, 0)) + b"\x21\x00\x07TLSv1.3"
_AUTHORITY = b"\x02\x00\x0cnestbox.test"
LONGEST = 16 + MAX_V2


def _v2(body: bytes, command: int = 1, family: int = 0x11) -> bytes:
    return _SIGNATURE + bytes((0x20 | command, family)) + struct.pack("!H", len(body)) + body


HEADERS = [
    b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 5222\r\n",
    b"PROXY TCP6 2001:db8::7 ::1 40000 5222\r\n",
    b"PROXY UNKNOWN\r\n",
    _v2(_INET),
    _v2(_INET + _AUTHORITY + _SSL),
    _v2(bytes(36) + _SSL, family=0x21),
    _v2(bytes(216), family=0x31),
    _v2(_SSL, family=0),
    _v2(b"", command=0, family=0),
]


def outcome(data: bytes) -> tuple[ProxyHeader, int] | str | None:
    """What becomes of ``data``; an error that is no ProxyError gets through."""
    try:
        return parse(data)
    except ProxyError:
        return "refused"


def fuzz(seconds: float, seed: int) -> int:
    """Run for a while; returns the number of inputs. Raises what the parser should not have."""
    chance = random.Random(seed)
    until = time.monotonic() + seconds
    count = 0
    while time.monotonic() < until:
        count += 1
        data = bytearray(chance.choice(HEADERS) + chance.choice((b"", b"<stream", _SIGNATURE)))
        for _ in range(chance.randrange(1, 6)):
            mutate(data, chance)
        if chance.random() < 0.3 and len(data) > 16:
            data[14:16] = chance.randrange(2**16).to_bytes(2, "big")
        data = bytes(data)
        try:
            whole = outcome(data)
            # As the connection reads it: whatever has come is parsed anew until it is a header or refused.
            cut = next((found for end in range(len(data) + 1) if (found := outcome(data[:end])) is not None), None)
            assert whole == cut, f"{whole} is not {cut}"
            if whole is None:
                assert len(data) < LONGEST, "it waits for more than a header can be"
            elif whole != "refused":
                header, length = whole
                assert 0 < length <= min(len(data), LONGEST), length
                assert outcome(data[:length]) == (header, length), "what follows the header matters"
        except Exception:
            print(f"seed {seed}, input {count}: {data!r}", file=sys.stderr)
            raise
    return count


if __name__ == "__main__":
    start = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**32)
    print(fuzz(float(sys.argv[1]), start), "inputs, seed", start)

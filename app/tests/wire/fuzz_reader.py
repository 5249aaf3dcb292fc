"""Mutates streams and feeds them to the reader in random pieces: nothing but a StreamError may ever come out.

Run it for longer than the tests do with ``python -m tests.wire.fuzz_reader SECONDS [SEED]`` in ``app/``.
"""

from __future__ import annotations

import random
import sys
import time
from contextlib import suppress

from nestbox.core.errors import StreamError
from nestbox.wire.framing import FrameReader
from nestbox.wire.reader import ReaderLimits
from tests.wire.corpus import STREAMS, WRONG, describe, new_reader

_TOKENS = [
    b"<", b">", b"/>", b"</", b"'", b'"', b"&", b";", b"<!--", b"-->", b"<![CDATA[", b"]]>", b"<?", b"?>",
    b"<!DOCTYPE a", b" xmlns='", b" xmlns:a='u'", b"xml:", b"a:", b"}", b"\0", b"\xff", b"\xc3",
    b"\xed\xa0\x80", b"&#x10FFFF;", b"&#0;", b"</stream:stream>", b"<message>", b"</message>", b"jabber:client",
    b"\xef\xbb\xbf", b"\r\n", b"x" * 300, b">" * 1100,
]  # fmt: skip
LIMITS = {"max_stanza_bytes": 4000, "max_depth": 12, "max_attributes": 8}


def mutate(data: bytearray, chance: random.Random) -> None:
    """Change something somewhere."""
    at = chance.randrange(len(data) + 1)
    kind = chance.randrange(5)
    if kind == 0:
        data[at:at] = chance.choice(_TOKENS)
    elif kind == 1:
        del data[at : at + chance.randrange(1, 20)]
    elif kind == 2:
        data[at : at + 1] = bytes([chance.randrange(256)])
    elif kind == 3:
        other = chance.randrange(len(data) + 1)
        data[at:at] = data[other : other + chance.randrange(1, 200)]
    else:
        data[at:at] = bytes(chance.randrange(256) for _ in range(chance.randrange(4)))


def outcome(data: bytes, cuts: list[int], stepwise: bool) -> list[tuple]:
    """The events of ``data`` cut at ``cuts``; an error that is no StreamError gets through."""
    reader = new_reader(stepwise, **LIMITS)
    events: list[tuple] = []
    try:
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            reader.feed(data[start:end])
            while (event := reader.next()) is not None:
                if len(events) == 1:
                    reader.stepwise = False  # as after login
                events.append(describe(event))
    except StreamError as error:
        # What is wrong in two ways may show either first.
        wrong = "policy-violation" if error.condition == "policy-violation" else "wrong"
        events.append(("error", wrong))
    assert reader.pending <= LIMITS["max_stanza_bytes"] + 256 * 1024
    return events


def fuzz(seconds: float, seed: int) -> int:
    """Run for a while; returns the number of inputs. Raises what the reader should not have."""
    chance = random.Random(seed)
    seeds = [b"".join(parts) for parts in STREAMS] + [data for data, _ in WRONG.values()]
    frames = [part for parts in STREAMS for part in parts]
    until = time.monotonic() + seconds
    count = 0
    while time.monotonic() < until:
        count += 1
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(1, 6)):
            mutate(data, chance)
        data = bytes(data)
        try:
            cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(8)))
            whole, cut = outcome(data, [], False), outcome(data, cuts, False)
            # Cut or not, the same is read; only the size of what waits together differs, and when an error shows.
            same = min(len(whole), len(cut))
            if whole[:same] != cut[:same] and ("error", "policy-violation") not in (whole[-1], cut[-1]):
                raise AssertionError(f"{whole} is not {cut}")
            outcome(data, cuts, True)
            frame = bytearray(chance.choice(frames))
            mutate(frame, chance)
            data = bytes(frame)
            with suppress(StreamError):
                FrameReader(ReaderLimits(**LIMITS)).parse(data)
        except Exception:
            print(f"seed {seed}, input {count}: {data!r}", file=sys.stderr)
            raise
    return count


if __name__ == "__main__":
    start = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**32)
    print(fuzz(float(sys.argv[1]), start), "inputs, seed", start)

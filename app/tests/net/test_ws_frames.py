"""WebSocket frames from a client."""

import os
import random

import pytest

from nestbox.net.ws_frames import CLOSE, PING, PONG, TEXT, FrameDecoder, FrameError, close_payload, encode, unmask

MASK = bytes.fromhex("37fa213d")  # RFC 6455, section 5.7; not random, since it is part of the names of tests
LIMIT = 70_000


def client(payload, opcode=TEXT, *, fin=True, mask=None, masked=True):
    """A frame as a client sends it."""
    first = (0x80 if fin else 0) | opcode
    length = len(payload)
    flag = 0x80 if masked else 0
    if length < 126:
        head = bytes((first, flag | length))
    elif length < 65536:
        head = bytes((first, flag | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((first, flag | 127)) + length.to_bytes(8, "big")
    mask = MASK if mask is None else mask
    body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)) if masked else payload
    return head + (mask if masked else b"") + body


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 125, 126, 127, 65535, 65536, LIMIT])
def test_lengths(length):
    payload = os.urandom(length)
    assert FrameDecoder(LIMIT).feed(client(payload)) == [(TEXT, payload)]


@pytest.mark.parametrize("length", [0, 125, 126, 65535, 65536])
def test_our_frames_are_whole_and_unmasked(length):
    frame = encode(bytes(length))
    assert (
        frame[0] == 0x81
        and frame.endswith(bytes(length))
        and len(frame) == length + (2 if length < 126 else 4 if length < 65536 else 10)
    )


def test_unmask_matches_the_definition():
    payload, mask = os.urandom(1001), os.urandom(4)
    assert unmask(mask, payload) == bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def test_every_split_gives_the_same_messages():
    data = (
        client(b"one")
        + client(b"fr", fin=False)
        + client(b"are you there", PING)
        + client(b"ag", 0, fin=False)
        + client(b"", 0, fin=False)
        + client(b"ment", 0)
        + client(b"", PONG)
        + client(bytes(200))
        + client(close_payload(1000), CLOSE)
    )
    whole = FrameDecoder(LIMIT).feed(data)
    expected = [TEXT, PING, TEXT, PONG, TEXT, CLOSE]
    assert [opcode for opcode, _ in whole] == expected and whole[2][1] == b"fragment"
    for cut in range(len(data)):
        decoder = FrameDecoder(LIMIT)
        assert decoder.feed(data[:cut]) + decoder.feed(data[cut:]) == whole
    decoder = FrameDecoder(LIMIT)
    assert [event for at in range(len(data)) for event in decoder.feed(data[at : at + 1])] == whole


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (client(b"x", masked=False), 1002),
        (client(b"x", 2), 1003),
        (client(b"x", 3), 1002),
        (client(b"x", 11), 1002),
        (client(b"x", 0), 1002),  # a continuation of nothing
        (client(b"x", fin=False) + client(b"x"), 1002),  # a new message inside another
        (client(b"x", PING, fin=False), 1002),
        (client(bytes(126), PING), 1002),
        (bytes((0xC1, 0x80)), 1002),  # compressed, which nobody agreed on
        (client(bytes(LIMIT + 1)), 1009),
        (bytes((0x81, 0xFF)) + b"\xff" * 8, 1009),
        (client(bytes(LIMIT), fin=False) + client(b"x", 0), 1009),
    ],
)
def test_offences(data, code):
    with pytest.raises(FrameError) as caught:
        FrameDecoder(LIMIT).feed(data)
    assert caught.value.code == code


def test_a_message_over_the_limit_is_refused_before_it_has_come():
    with pytest.raises(FrameError):
        FrameDecoder(1000).feed(client(bytes(1001))[:8])


def test_control_frames_pass_in_a_message_at_the_limit():
    decoder = FrameDecoder(1000)
    decoder.feed(client(bytes(1000), fin=False))
    assert decoder.feed(client(b"ping", PING)) == [(PING, b"ping")]
    assert decoder.feed(client(b"", 0)) == [(TEXT, bytes(1000))]


def test_an_idle_decoder_keeps_nothing():
    decoder = FrameDecoder(LIMIT)
    data = client(bytes(60_000))
    decoder.feed(data[:30_000])
    decoder.feed(data[30_000:])
    assert decoder._buffer == b"" and isinstance(decoder._buffer, bytes)


def test_random_bytes_raise_frame_error_only():
    random.seed(7)
    for _ in range(3000):
        decoder = FrameDecoder(500)
        try:
            for _ in range(5):
                decoder.feed(random.randbytes(random.randint(0, 40)))
        except FrameError:
            pass

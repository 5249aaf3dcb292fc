"""WebSocket frames (RFC 6455, section 5): bytes to messages and back. Sans-I/O, for the server's side.

No extension is spoken. Whether text is UTF-8 is left to the XML reader, which must know it anyhow.
"""

from __future__ import annotations

__all__ = ["CLOSE", "PING", "PONG", "TEXT", "FrameDecoder", "FrameError", "close_payload", "encode", "header"]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

_TEXT_HEADERS = [bytes((0x80 | TEXT, length)) for length in range(126)]


class FrameError(Exception):
    """The peer broke the protocol; ``code`` is for the close frame (RFC 6455, section 7.4.1)."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def header(length: int, opcode: int = TEXT) -> bytes:
    """The header of an unfragmented, unmasked frame."""
    if length < 126:
        return _TEXT_HEADERS[length] if opcode == TEXT else bytes((0x80 | opcode, length))
    if length < 65536:
        return bytes((0x80 | opcode, 126)) + length.to_bytes(2, "big")
    return bytes((0x80 | opcode, 127)) + length.to_bytes(8, "big")


def encode(payload: bytes, opcode: int = TEXT) -> bytes:
    """One whole frame."""
    return header(len(payload), opcode) + payload


def close_payload(code: int, text: str = "") -> bytes:
    """What a close frame carries."""
    return code.to_bytes(2, "big") + text.encode()[:123]


def unmask(mask: bytes, payload: bytes) -> bytes:
    """XOR with the repeated mask (section 5.3), as one long integer: far faster than byte by byte."""
    length = len(payload)
    key = (mask * ((length + 3) // 4))[:length]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(length, "little")


class FrameDecoder:
    """Cuts a byte stream into messages. ``limit`` is the longest message in bytes, and may be changed at any time."""

    __slots__ = ("_buffer", "_message", "_need", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._buffer: bytes | bytearray = b""
        self._need = 0  # bytes that the frame at the front of the buffer needs before another look is worth it
        self._message: bytearray | None = None  # of a fragmented message

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take bytes and return the (opcode, payload) of each whole message or control frame.

        Raises FrameError; messages before the offence are lost, as the connection ends anyhow.
        """
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._need:
                return []
            data = self._buffer
        found: list[tuple[int, bytes]] = []
        at, size = 0, len(data)
        while size - at >= 2:
            first, second = data[at], data[at + 1]
            self._check(first, second)
            length = second & 0x7F
            start = at + 6
            if length == 126:
                start = at + 8
                if size < at + 4:
                    self._need = 8
                    break
                length = int.from_bytes(data[at + 2 : at + 4], "big")
            elif length == 127:
                start = at + 14
                if size < at + 10:
                    self._need = 14
                    break
                length = int.from_bytes(data[at + 2 : at + 10], "big")
            if length > self.limit - (len(self._message) if self._message and first & 0x08 == 0 else 0):
                raise FrameError(1009, f"a message may have {self.limit} bytes")
            end = start + length
            if size < end:
                self._need = end - at
                break
            payload = unmask(data[start - 4 : start], bytes(data[start:end])) if length else b""
            at = end
            self._take(first, payload, found)
        else:
            self._need = 2
        rest = data[at:]
        # The empty bytes object is shared, and an idle connection keeps nothing else.
        self._buffer = bytearray(rest) if rest else b""
        return found

    def _check(self, first: int, second: int) -> None:
        opcode = first & 0x0F
        if first & 0x70:
            raise FrameError(1002, "no extension was agreed on")
        if not second & 0x80:
            raise FrameError(1002, "frames of a client must be masked")
        if opcode >= CLOSE:
            if opcode > PONG:
                raise FrameError(1002, "unknown opcode")
            if not first & 0x80 or second & 0x7F > 125:
                raise FrameError(1002, "control frames must be short and whole")
        elif opcode == BINARY:
            raise FrameError(1003, "XMPP is text")
        elif opcode > BINARY:
            raise FrameError(1002, "unknown opcode")
        elif (opcode == CONTINUATION) != (self._message is not None):
            raise FrameError(1002, "a fragment is out of place")

    def _take(self, first: int, payload: bytes, found: list[tuple[int, bytes]]) -> None:
        opcode = first & 0x0F
        if opcode >= CLOSE:
            found.append((opcode, payload))
        elif first & 0x80 and self._message is None:
            found.append((TEXT, payload))
        else:
            if self._message is None:
                self._message = bytearray()
            self._message += payload
            if first & 0x80:
                found.append((TEXT, bytes(self._message)))
                self._message = None

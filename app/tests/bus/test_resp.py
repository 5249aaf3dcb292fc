"""Commands whose replies do not matter: several in a row are one, and all other replies find their way."""

import asyncio

import pytest

from nestbox.bus.resp import RespConnection


class Io:
    """The socket: keeps what was written."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data


@pytest.fixture
def connection():
    return RespConnection("unix:///nowhere", lambda: None)


def connect(connection: RespConnection) -> Io:
    io = Io()
    connection.connection_made(io)
    return io


async def test_replies_find_who_waits_behind_those_that_nobody_waits_for(connection):
    io, heard = connect(connection), []
    for number in range(3):
        connection.tell(("SET", f"k{number}", "v"))
    connection.send(("GET", "k0"), heard.append)
    connection.tell(("DEL", "k1"))
    connection.send(("GET", "k1"), heard.append)
    await asyncio.sleep(0)
    places = [io.written.index(word) for word in (b"k0", b"k1", b"k2", b"GET", b"DEL")]
    assert places == sorted(places)
    for reply in (b"+OK\r\n", b"-ERR full\r\n+OK\r\n", b"$1\r\nv\r\n:1\r\n", b"$-1\r\n"):
        connection.data_received(reply)
    assert heard == [b"v", None]
    assert connection._bytes == 0


async def test_what_was_answered_in_part_is_sent_again_as_a_whole(connection):
    connect(connection)
    heard = []
    for number in range(3):
        connection.tell(("SET", f"k{number}", "v"))
    connection.send(("GET", "k0"), heard.append)
    await asyncio.sleep(0)
    connection.data_received(b"+OK\r\n+OK\r\n")
    connection.connection_lost(None)
    connection.tell(("SET", "k3", "v"))
    io = connect(connection)
    assert all(word in io.written for word in (b"k0", b"k1", b"k2", b"GET", b"k3"))
    connection.data_received(b"+OK\r\n+OK\r\n+OK\r\n$1\r\nv\r\n+OK\r\n")
    assert heard == [b"v"] and connection._bytes == 0


async def test_what_is_too_much_is_dropped_and_counted(connection, monkeypatch):
    monkeypatch.setattr("nestbox.bus.resp.MAX_WAITING_BYTES", 100)
    io = connect(connection)
    for number in range(9):
        connection.tell(("SET", f"k{number}", "v" * 20))
    await asyncio.sleep(0)
    assert b"k0" in io.written and b"k8" not in io.written
    assert connection.limits_hit["bus_commands"] > 0 and connection._bytes <= 100

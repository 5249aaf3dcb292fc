"""WebSocket connections over real sockets, as Tornado hands them over."""

import asyncio
import base64
import contextlib
import hashlib
import os
import socket

import pytest
from tornado.httpserver import HTTPServer
from tornado.web import Application

from nestbox.net.listen import bind
from nestbox.net.transport import TransportOptions
from nestbox.net.websocket import XmppWebSocketHandler
from nestbox.net.ws_frames import FrameError, close_payload
from tests.net.conftest import Recorders
from tests.net.test_ws_frames import client

KEY = base64.b64encode(bytes(range(16))).decode()
ACCEPT = base64.b64encode(hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
HEADERS = {
    "Host": "nestbox.test:8443",
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Protocol": "xmpp",
}


class Server:
    """Tornado with the handler on a Unix socket; ``receivers`` are the drivers."""

    def __init__(self, path, *, trusted, **options):
        self.path = str(path)
        self.options = TransportOptions(**options)
        self.receivers = Recorders()
        arguments = {
            "make_receiver": self.receivers,
            "options": self.options,
            "max_message": 1000,
            "trusted": trusted,
            "origins": {"https://intranet.test"},
        }
        self.http = HTTPServer(Application([("/xmpp-websocket", XmppWebSocketHandler, arguments)]))
        self.http.add_socket(bind(f"unix:{path}"))

    async def request(self, headers, *, after=b"", version="1.1"):
        """Send a request; returns status, headers and the streams."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"GET /xmpp-websocket HTTP/{version}\r\n{lines}\r\n".encode() + after)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        answered = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:-2])}
        return int(head[0].split()[1]), answered, reader, writer

    async def connect(self, **headers):
        """Shake hands; returns the streams and the receiver."""
        self.receivers.clear()
        status, answered, reader, writer = await self.request(HEADERS | headers)
        assert status == 101 and answered["sec-websocket-accept"] == ACCEPT
        assert answered["sec-websocket-protocol"] == "xmpp" and "sec-websocket-extensions" not in answered
        return reader, writer, await self.receivers.first()


@pytest.fixture
def serve(tmp_path):
    @contextlib.asynccontextmanager
    async def start(*, trusted=True, **options):
        server = Server(tmp_path / "http.sock", trusted=trusted, **options)
        try:
            yield server
        finally:
            server.http.stop()
            for receiver in server.receivers:
                if not receiver.lost.done():
                    receiver.transport.abort()
                    await receiver.lost

    return start


def test_messages_both_ways(run, serve):
    async def scenario():
        async with serve() as server:
            reader, writer, one = await server.connect()
            writer.write(client(b"<open/>") + client(b"<me", fin=False) + client(b"ssage/>", 0))
            await one.until(lambda r: len(r.frames) == 2)
            assert one.frames == [b"<open/>", b"<message/>"] and one.transport.kind == "websocket"
            one.transport.write(b"<open/>")
            one.transport.write(bytes(200))
            assert await reader.readexactly(9 + 204) == b"\x81\x07<open/>\x81\x7e\x00\xc8" + bytes(200)
            assert (server.options.open, server.options.bytes_out) == (1, 213)
            writer.close()
            assert await one.lost is None and server.options.open == 0

    run(scenario())


def test_websocket_takes_over_early_frames(run, serve):
    """What arrives in one read with the request is in Tornado's buffer when the socket leaves it."""

    async def scenario():
        async with serve() as server:
            _, _, _, writer = await server.request(HEADERS, after=client(b"early") + client(b"too"))
            one = await server.receivers.first()
            await one.until(lambda r: r.frames == [b"early", b"too"])
            writer.write(client(b"later"))
            await one.until(lambda r: r.frames[2:] == [b"later"])
            writer.close()

    run(scenario())


def test_half_a_frame_with_the_request(run, serve):
    async def scenario():
        async with serve() as server:
            frame = client(b"<presence/>")
            for cut in (1, 5, 9):
                server.receivers.clear()
                _, _, _, writer = await server.request(HEADERS, after=frame[:cut])
                one = await server.receivers.first()
                writer.write(frame[cut:])
                await one.until(lambda r: r.frames == [b"<presence/>"])
                writer.close()
                await one.lost

    run(scenario())


def test_tornado_lets_go_of_the_connection(run, serve):
    async def scenario():
        async with serve() as server:
            _, writer, one = await server.connect()
            descriptors = len(os.listdir("/proc/self/fd"))
            assert not server.http._connections
            more = [await server.connect() for _ in range(10)]
            assert len(os.listdir("/proc/self/fd")) == descriptors + 20  # one at each end
            for _, other, receiver in more:
                other.close()
                await receiver.lost
            writer.close()
            await one.lost

    run(scenario())


def test_ping_is_answered(run, serve):
    async def scenario():
        async with serve() as server:
            reader, writer, one = await server.connect()
            writer.write(client(b"are you there?", 9))
            assert await reader.readexactly(16) == b"\x8a\x0eare you there?"
            assert one.frames == []
            writer.close()

    run(scenario())


def test_we_close_and_the_client_answers(run, serve):
    async def scenario():
        async with serve() as server:
            reader, writer, one = await server.connect()
            one.transport.write(b"<close/>")
            one.transport.close()
            one.transport.write(b"too late")
            assert await reader.readexactly(14) == b"\x81\x08<close/>\x88\x02\x03\xe8"
            writer.write(client(b"still on its way") + client(close_payload(1000), 8))
            assert await reader.read() == b""
            assert await one.lost is None and one.frames == []  # while the client's socket is still open
            writer.close()

    run(scenario())


def test_we_close_and_the_client_does_not_answer(run, serve):
    async def scenario():
        async with serve(close_timeout=0.1) as server:
            _, writer, one = await server.connect()
            one.transport.close()
            await one.lost
            writer.close()

    run(scenario())


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (close_payload(1000), close_payload(1000)),
        (close_payload(4999, "bye"), close_payload(4999)),
        (b"", b""),
        (b"\x03", close_payload(1002)),
        (close_payload(1005), close_payload(1002)),
        (close_payload(999), close_payload(1002)),
    ],
)
def test_the_client_closes(run, serve, sent, answer):
    async def scenario():
        async with serve(close_timeout=60) as server:
            reader, writer, one = await server.connect()
            writer.write(client(sent, 8) + client(b"after the end"))
            assert await reader.read() == bytes((0x88, len(answer))) + answer
            assert await one.lost is None and one.frames == []  # while the client's socket is still open
            writer.close()

    run(scenario())


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (client(b"binary", 2), 1003),
        (client(b"x", masked=False), 1002),
        (client(bytes(1001)), 1009),
        (client(bytes(1001))[:8], 1009),
        (b"GET / HTTP/1.1\r\n\r\n", 1002),
    ],
)
def test_offences_are_answered_with_their_code(run, serve, data, code):
    async def scenario():
        async with serve(close_timeout=60) as server:
            reader, writer, one = await server.connect()
            writer.write(data + bytes(100_000))  # unread input must not swallow the answer
            answer = await reader.read()
            assert answer[0] == 0x88 and answer[2:4] == code.to_bytes(2, "big")
            assert isinstance(await one.lost, FrameError) and one.frames == []
            writer.close()

    run(scenario())


def test_the_driver_may_allow_longer_messages(run, serve):
    async def scenario():
        async with serve() as server:
            _, writer, one = await server.connect()
            assert one.transport.max_message == 1000
            one.transport.max_message = 5000
            writer.write(client(bytes(5000)))
            await one.until(lambda r: r.frames == [bytes(5000)])
            writer.close()

    run(scenario())


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"Upgrade": "h2c"}, 426),
        ({"Connection": "close"}, 400),
        ({"Sec-WebSocket-Version": "8"}, 426),
        ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Sec-WebSocket-Key": "%%%"}, 400),
        ({"Sec-WebSocket-Protocol": "chat"}, 400),
        ({"Origin": "https://evil.test"}, 403),
        ({"Origin": "https://nestbox.test"}, 403),  # another port is another origin
        ({"Origin": "null"}, 403),
        ({"Origin": "https://evil.test/nestbox.test:8443"}, 403),
    ],
)
def test_requests_that_are_refused(run, serve, changed, status):
    async def scenario():
        async with serve() as server:
            got, headers, _, writer = await server.request(HEADERS | changed)
            assert got == status and not server.receivers
            assert status != 426 or headers["sec-websocket-version"] == "13"
            writer.close()
            without = {name: value for name, value in HEADERS.items() if name not in changed}
            if "Origin" not in changed:
                got, _, _, writer = await server.request(without)
                assert got == status
                writer.close()

    run(scenario())


@pytest.mark.parametrize("origin", ["https://nestbox.test:8443", "https://NESTBOX.test:8443", "https://intranet.test"])
def test_origins_that_may_connect(run, serve, origin):
    async def scenario():
        async with serve() as server:
            _, writer, _ = await server.connect(Origin=origin)
            writer.close()

    run(scenario())


def test_old_http_cannot_upgrade(run, serve):
    async def scenario():
        async with serve() as server:
            status, _, _, writer = await server.request(HEADERS, version="1.0")
            assert status == 426
            writer.close()

    run(scenario())


@pytest.mark.parametrize(
    ("trusted", "headers", "peer", "secure"),
    [
        (True, {"X-Forwarded-For": "6.6.6.6, 192.0.2.7", "X-Forwarded-Proto": "https"}, "192.0.2.7", True),
        (True, {"X-Forwarded-For": "2001:db8::7"}, "2001:db8::7", False),
        (True, {"X-Forwarded-For": "<script>", "X-Real-Ip": "6.6.6.6"}, "", False),
        (True, {}, "", False),
        (False, {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https"}, "", False),
    ],
)
def test_the_address_comes_from_the_proxy_only(run, serve, trusted, headers, peer, secure):
    async def scenario():
        async with serve(trusted=trusted) as server:
            _, writer, one = await server.connect(**headers)
            assert (one.transport.peer, one.transport.secure) == (peer, secure)
            writer.close()

    run(scenario())


def test_a_client_that_leaves_during_the_handshake(run, serve):
    async def scenario():
        async with serve() as server:
            lines = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
            for _ in range(20):
                with socket.socket(socket.AF_UNIX) as gone:
                    gone.connect(server.path)
                    gone.send(f"GET /xmpp-websocket HTTP/1.1\r\n{lines}\r\n".encode())
            _, writer, _ = await server.connect()
            writer.close()

    run(scenario())


def test_tcp_gives_the_address_of_the_socket(run):
    async def scenario():
        receivers = Recorders()
        arguments = {
            "make_receiver": receivers,
            "options": TransportOptions(),
            "max_message": 1000,
            "trusted": False,
            "origins": (),
        }
        http = HTTPServer(Application([("/xmpp-websocket", XmppWebSocketHandler, arguments)]))
        sock = bind("127.0.0.1:0")
        http.add_socket(sock)
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        lines = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        writer.write(f"GET /xmpp-websocket HTTP/1.1\r\n{lines}\r\n".encode() + client(b"x"))
        await reader.readuntil(b"\r\n\r\n")
        one = await receivers.first()
        await one.until(lambda r: r.frames == [b"x"])
        assert one.transport.peer == "127.0.0.1"
        writer.close()
        await one.lost
        http.stop()

    run(scenario())

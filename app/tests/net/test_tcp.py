"""TCP connections over real sockets."""

import asyncio
import contextlib
import os
import socket
import ssl
import stat
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from nestbox.net import pace
from nestbox.net.tcp import listen
from nestbox.net.tls import TlsContext
from nestbox.net.transport import SlowConsumer, TransportOptions
from tests.net.conftest import Recorders

V1 = b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 5222\r\n"


@contextlib.asynccontextmanager
async def serve(address="127.0.0.1:0", *, proxy=False, secure=False, **settings):
    receivers = Recorders()
    listener = await listen(address, receivers, proxy=proxy, secure=secure, options=TransportOptions(**settings))
    try:
        yield listener, receivers
    finally:
        listener.close()
        for receiver in receivers:
            if not receiver.lost.done():
                receiver.transport.abort()
                await receiver.lost


async def connect(listener):
    return await asyncio.open_connection("127.0.0.1", listener.port)


def test_data_both_ways_and_a_clean_end(run):
    async def scenario():
        async with serve() as (listener, receivers):
            reader, writer = await connect(listener)
            writer.write(b"hello")
            one = await receivers.first()
            await one.until(lambda r: r.data == b"hello")
            transport = one.transport
            assert (transport.peer, transport.kind, transport.secure, transport.tls) == (
                "127.0.0.1",
                "tcp",
                False,
                None,
            )
            transport.write(b"answer")
            transport.write(b" in two parts")
            transport.close()
            transport.write(b"too late")
            assert await reader.read() == b"answer in two parts"
            writer.close()
            assert await one.lost is None
            assert (listener.options.open, listener.options.opened) == (0, 1)
            assert (listener.options.bytes_in, listener.options.bytes_out) == (5, 19)

    run(scenario())


def test_writes_of_a_turn_and_what_follows_are_one_write(run):
    async def scenario():
        async with serve() as (listener, receivers):
            reader, writer = await connect(listener)
            one = await receivers.first()
            one.transport._io = io = Mock(wraps=one.transport._io)
            for number in range(100):
                one.transport.write(b"%d," % number)
            # As a session asks for an acknowledgement.
            asyncio.get_running_loop().call_soon(one.transport.write, b"and what follows")
            assert await reader.readuntil(b"99,and what follows")
            assert io.write.call_count == 1
            writer.close()

    run(scenario())


def test_last_words_arrive_although_the_client_is_still_sending(run):
    async def scenario():
        async with serve() as (listener, receivers):
            reader, writer = await connect(listener)
            one = await receivers.first()
            one.transport.pause_reading()
            writer.write(bytes(5_000_000))  # unread when we close: closing at once would reset the connection
            await asyncio.sleep(0)
            one.transport.write(b"<stream:error/>")
            one.transport.close()
            assert await reader.read() == b"<stream:error/>"
            await writer.drain()
            assert one.data == b""
            writer.close()
            await one.lost

    run(scenario())


def test_a_client_that_never_closes_is_cut(run):
    async def scenario():
        async with serve(close_timeout=0.1) as (listener, receivers):
            _, writer = await connect(listener)
            one = await receivers.first()
            one.transport.close()
            await one.lost
            writer.close()

    run(scenario())


def test_a_client_that_does_not_read_is_cut_at_the_limit(run):
    async def scenario():
        async with serve(max_buffer=300_000) as (listener, receivers):
            reader, writer = await connect(listener)
            one = await receivers.first()
            assert not one.transport.congested
            reader._transport.pause_reading()
            written = 0
            while not one.lost.done():
                one.transport.write(bytes(10_000))
                written += 10_000
                await asyncio.sleep(0)
                assert written < 50_000_000
            assert isinstance(await one.lost, SlowConsumer)
            assert listener.options.slow_consumers == 1
            writer.close()

    run(scenario())


def test_too_much_in_one_turn_is_cut_too(run):
    async def scenario():
        async with serve(max_buffer=300_000) as (listener, receivers):
            _, writer = await connect(listener)
            one = await receivers.first()
            for _ in range(50):
                one.transport.write(bytes(10_000))
            assert isinstance(await one.lost, SlowConsumer)
            writer.close()

    run(scenario())


def test_congestion_is_told_and_ends(run):
    async def scenario():
        async with serve() as (listener, receivers):
            reader, writer = await connect(listener)
            one = await receivers.first()
            reader._transport.pause_reading()
            sent = 0
            while not one.transport.congested:
                one.transport.write(bytes(100_000))
                sent += 100_000
                await asyncio.sleep(0)
            reader._transport.resume_reading()
            received = asyncio.create_task(reader.readexactly(sent))
            await one.until(lambda r: r.drained)
            assert not one.transport.congested
            await received
            writer.close()

    run(scenario())


def test_reading_can_be_paused(run):
    async def scenario():
        async with serve() as (listener, receivers):
            _, writer = await connect(listener)
            one = await receivers.first()
            one.transport.pause_reading()
            one.transport.pause_reading()
            writer.write(b"x" * 100)
            await writer.drain()
            await asyncio.sleep(0.05)
            assert one.data == b""
            one.transport.resume_reading()
            await one.until(lambda r: len(r.data) == 100)
            writer.close()

    run(scenario())


def test_a_receiver_that_fails_loses_its_connection_only(run, caplog):
    async def scenario():
        async with serve() as (listener, receivers):
            _, writer = await connect(listener)
            one = await receivers.first()
            one.data_received = lambda data: 1 / 0
            writer.write(b"x")
            await one.lost
            writer.close()
            receivers.clear()
            _, writer = await connect(listener)
            writer.write(b"x")
            await (await receivers.first()).until(lambda r: r.data)
            writer.close()

    run(scenario())


# PROXY


@pytest.mark.parametrize("pieces", [[V1 + b"<stream"], [V1, b"<stream"], [bytes([b]) for b in V1 + b"<stream"]])
def test_proxy_header_gives_the_address(run, pieces):
    async def scenario():
        async with serve(proxy=True, secure=True) as (listener, receivers):
            _, writer = await connect(listener)
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0)
            one = await receivers.first()
            await one.until(lambda r: r.data == b"<stream")
            assert one.transport.peer == "192.0.2.7" and one.transport.secure
            writer.close()

    run(scenario())


@pytest.mark.parametrize(
    "data", [b"<stream:stream to='x'>", b"PROXY TCP4 999.1.1.1 1.1.1.1 1 1\r\n", b"\r\n\r\n\0\r\nQUIT\nX" * 9]
)
def test_no_or_wrong_proxy_header_is_refused_without_a_word(run, data):
    async def scenario():
        async with serve(proxy=True) as (listener, receivers):
            reader, writer = await connect(listener)
            writer.write(data)
            assert await reader.read() == b"" and not receivers
            writer.close()

    run(scenario())


def test_a_proxy_header_that_does_not_come_in_time_is_refused(run):
    async def scenario():
        async with serve(proxy=True, proxy_timeout=0.1) as (listener, receivers):
            reader, writer = await connect(listener)
            writer.write(V1[:20])
            assert await reader.read() == b"" and not receivers
            writer.close()

    run(scenario())


def test_a_proxy_header_is_plain_data_where_none_is_due(run):
    async def scenario():
        async with serve() as (listener, receivers):
            _, writer = await connect(listener)
            writer.write(V1)
            one = await receivers.first()
            await one.until(lambda r: r.data == V1)  # the XML reader refuses it
            assert one.transport.peer == "127.0.0.1"
            writer.close()

    run(scenario())


def test_a_port_open_to_the_network_does_not_trust_proxy_headers(run):
    async def scenario():
        with pytest.raises(ValueError, match="loopback"):
            await listen("0.0.0.0:0", Recorders(), proxy=True, secure=False)

    run(scenario())


# addresses


def test_unix_socket_has_its_mode_and_replaces_a_dead_one(run, tmp_path):
    path = tmp_path / "c2s.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async def scenario():
        old = os.umask(0o077)
        try:
            async with serve(f"unix:{path}", proxy=True) as (listener, receivers):
                assert stat.S_IMODE(path.stat().st_mode) == 0o660 and listener.port == 0
                reader, writer = await asyncio.open_unix_connection(str(path))
                writer.write(V1 + b"x")
                one = await receivers.first()
                one.transport.write(b"y")
                one.transport.close()
                assert await reader.read() == b"y" and one.transport.peer == "192.0.2.7"
                writer.close()
                await one.lost
                with pytest.raises(OSError, match=r"cannot listen on unix:.*in use"):
                    await listen(f"unix:{path}", Recorders(), proxy=True, secure=False)
        finally:
            os.umask(old)

    run(scenario())


def test_wrong_and_taken_addresses_are_refused(run, tmp_path):
    (tmp_path / "file").write_text("precious")

    async def scenario():
        async with serve() as (listener, _):
            for address, error in (
                (f"127.0.0.1:{listener.port}", "in use"),
                (f"unix:{tmp_path}/file", "exists"),
                (f"unix:{tmp_path}/no/such", "No such file"),
            ):
                with pytest.raises(OSError, match=f"cannot listen on {address}: .*{error}"):
                    await listen(address, Recorders(), proxy=False, secure=False)
            for address in ("5222", "localhost", "127.0.0.1:x", "127.0.0.1:70000", "nowhere.invalid:1"):
                with pytest.raises(ValueError, match=address):
                    await listen(address, Recorders(), proxy=False, secure=False)

    run(scenario())
    assert (tmp_path / "file").read_text() == "precious"


def test_the_backlog_is_what_we_ask_for(run):
    async def scenario():
        async with serve() as (listener, _):
            info = listener._server.sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            return int.from_bytes(info[28:32], sys.byteorder)  # tcpi_sacked is the backlog of a listening socket

    limit = int(Path("/proc/sys/net/core/somaxconn").read_text())
    assert run(scenario()) == min(4096, limit)


# STARTTLS


async def start_tls(certificate, listener, receivers, **settings):
    """Speak a little in plain, then TLS; returns the client's streams and the receiver."""
    reader, writer = await connect(listener)
    writer.write(b"<starttls/>")
    one = await receivers.first()
    await one.until(lambda r: r.data == b"<starttls/>")
    one.frames.clear()
    one.transport.write(b"<proceed/>")
    one.transport.start_tls(TlsContext(*certificate).context)
    assert await reader.readexactly(10) == b"<proceed/>"
    assert not one.transport.secure
    client = ssl.create_default_context(cafile=certificate[0])
    for name, value in settings.items():
        setattr(client, name, value)
    await writer.start_tls(client, server_hostname="xmpp.test")
    return reader, writer, one


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_starttls(run, certificate, version):
    async def scenario():
        async with serve() as (listener, receivers):
            reader, writer, one = await start_tls(certificate, listener, receivers, maximum_version=version)
            payload = os.urandom(400_000)
            writer.write(payload)
            await one.until(lambda r: len(r.data) == len(payload))
            assert one.data == payload and one.transport.secure
            assert one.transport.tls["version"] == version.name.replace("_", ".") and one.transport.tls["cipher"]
            kind, binding = one.transport.binding
            if version == ssl.TLSVersion.TLSv1_2:
                unique = writer.get_extra_info("ssl_object").get_channel_binding("tls-unique")
                assert (kind, binding) == ("tls-unique", unique)
            else:
                assert (kind, len(binding)) == ("tls-exporter", 32)  # what it holds: test_exporter.py
            one.transport.write(payload)
            one.transport.close()
            assert await reader.read() == payload  # its end came with a close_notify, or this would raise
            writer.close()
            await one.lost

    run(scenario())


def test_the_handshakes_of_many_take_turns(run, certificate, monkeypatch):
    monkeypatch.setattr(pace, "SLICE", 1e-9)  # one step in a turn of the loop

    async def scenario():
        async with serve(handshake_timeout=30) as (listener, receivers):

            async def one():
                reader, writer = await connect(listener)
                writer.write(b"<starttls/>")
                assert await reader.readexactly(10) == b"<proceed/>"
                await writer.start_tls(ssl.create_default_context(cafile=certificate[0]), server_hostname="xmpp.test")
                writer.write(b"safe")
                assert await reader.readexactly(4) == b"safe"
                writer.close()

            async def serve_all():
                context = TlsContext(*certificate).context
                for number in range(8):
                    while len(receivers) <= number:  # noqa: ASYNC110
                        await asyncio.sleep(0.001)
                    receiver = receivers[number]
                    await receiver.until(lambda r: r.data == b"<starttls/>")
                    receiver.frames.clear()
                    receiver.transport.write(b"<proceed/>")
                    receiver.transport.start_tls(context)
                for receiver in receivers:
                    await receiver.until(lambda r: r.data == b"safe")
                    receiver.transport.write(b"safe")

            await asyncio.gather(serve_all(), *(one() for _ in range(8)))
            assert listener.options.pace.waited and not listener.options.pace.waiting

    run(scenario())


def test_what_is_written_during_the_handshake_waits_for_it(run, certificate):
    async def scenario():
        async with serve() as (listener, receivers):
            reader, writer = await connect(listener)
            one = await receivers.first()
            one.transport.start_tls(TlsContext(*certificate).context)
            one.transport.write(b"early")
            await asyncio.sleep(0.01)
            await writer.start_tls(ssl.create_default_context(cafile=certificate[0]), server_hostname="xmpp.test")
            assert await reader.readexactly(5) == b"early"
            writer.close()

    run(scenario())


def test_rubbish_instead_of_a_handshake_ends_the_connection(run, certificate):
    async def scenario():
        async with serve() as (listener, receivers):
            reader, writer = await connect(listener)
            one = await receivers.first()
            one.transport.start_tls(TlsContext(*certificate).context)
            writer.write(b"<auth>plain text</auth>")
            assert (await reader.read())[:1] in (b"", b"\x15")  # some releases of OpenSSL answer with an alert
            writer.close()
            assert isinstance(await one.lost, ssl.SSLError) and one.data == b""

    run(scenario())


def test_a_handshake_that_takes_too_long_is_cut(run, certificate):
    async def scenario():
        async with serve(handshake_timeout=0.1) as (listener, receivers):
            reader, writer = await connect(listener)
            one = await receivers.first()
            one.transport.start_tls(TlsContext(*certificate).context)
            writer.write(b"\x16\x03\x01")
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            assert isinstance(await one.lost, TimeoutError)
            writer.close()

    run(scenario())


def test_the_client_says_goodbye_first(run, certificate):
    async def scenario():
        async with serve() as (listener, receivers):
            _, writer, one = await start_tls(certificate, listener, receivers)
            writer.write(b"last")
            writer.close()  # asyncio sends close_notify
            await one.lost
            assert one.data == b"last"

    run(scenario())


def test_the_driver_learns_of_a_goodbye_while_the_socket_is_still_open(run, certificate):
    def client(port):
        plain = socket.create_connection(("127.0.0.1", port), 10)
        plain.sendall(b"<starttls/>")
        assert plain.recv(10) == b"<proceed/>"
        context = ssl.create_default_context(cafile=certificate[0])
        return context.wrap_socket(plain, server_hostname="xmpp.test").unwrap()

    async def scenario():
        async with serve(close_timeout=60) as (listener, receivers):
            going = asyncio.get_running_loop().run_in_executor(None, client, listener.port)
            one = await receivers.first()
            await one.until(lambda r: r.data == b"<starttls/>")
            one.frames.clear()
            one.transport.write(b"<proceed/>")
            one.transport.start_tls(TlsContext(*certificate).context)
            with await going:
                await one.lost

    run(scenario())

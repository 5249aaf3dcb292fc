#!/usr/bin/python3
"""Stands for a worker of the IM server: `worker.py N` says on its three sockets what HAProxy told it, then echoes lines.

/healthz answers 503 while the file /run/nestbox/N/sick exists.
"""

import asyncio
import base64
import hashlib
import json
import os
import sys

NUMBER = int(sys.argv[1])
DIRECTORY = f"/run/nestbox/{NUMBER}"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


async def read_proxy_header(reader: asyncio.StreamReader) -> dict:
    """Return what a PROXY v2 header says (the PROXY protocol, section 2.2); EOFError or ValueError without one."""
    head = await reader.readexactly(16)
    if head[:12] != SIGNATURE or head[12] != 0x21 or head[13] != 0x11:
        raise ValueError(f"no PROXY v2 header of a TCP connection over IPv4: {head!r}")
    body = await reader.readexactly(int.from_bytes(head[14:16], "big"))
    said = {"source": ".".join(map(str, body[0:4])), "port": int.from_bytes(body[8:10], "big"), "tls": False}
    rest = body[12:]
    while rest:
        kind, length = rest[0], int.from_bytes(rest[1:3], "big")
        value, rest = rest[3 : 3 + length], rest[3 + length :]
        if kind == 0x02:
            said["authority"] = value.decode()
        elif kind == 0x05:
            said["unique"] = value.decode().lower()
        elif kind == 0x20:
            said["tls"] = bool(value[0] & 1)
    return said


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()


async def serve_xmpp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    said = await read_proxy_header(reader)
    writer.write(json.dumps({"worker": NUMBER, **said}).encode() + b"\n")
    await echo(reader, writer)


async def serve_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return writer.close()
        request, *lines = head.decode().splitlines()
        path = request.split()[1]
        headers = [line.split(": ", 1) for line in lines if line]
        await reader.readexactly(sum(int(value) for name, value in headers if name.lower() == "content-length"))
        if path != "/healthz" and os.path.exists(f"{DIRECTORY}/dying"):
            return writer.close()  # as a process does that is killed with a request in its hands
        if path == "/xmpp-websocket":
            key = next(value for name, value in headers if name.lower() == "sec-websocket-key")
            accept = base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest())
            writer.write(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
            writer.write(b"Sec-WebSocket-Accept: %s\r\nX-Worker: %d\r\n\r\n" % (accept, NUMBER))
            return await echo(reader, writer)
        if path == "/http-bind" and request.startswith("GET"):  # stands for BOSH that has nothing to say
            await asyncio.sleep(35)
        sick = path == "/healthz" and os.path.exists(f"{DIRECTORY}/sick")
        body = json.dumps({"worker": NUMBER, "path": path, "headers": headers}).encode()
        writer.write(
            b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (b"503 Sick" if sick else b"200 OK", len(body)) + body
        )
        await writer.drain()


async def main() -> None:
    for name, serve in [
        ("http", serve_http),
        ("c2s", serve_xmpp),
        ("c2s-tls", serve_xmpp),
        ("component", echo),
    ]:
        await asyncio.start_unix_server(serve, f"{DIRECTORY}/{name}.sock", backlog=1024)
    await asyncio.Event().wait()


asyncio.run(main())

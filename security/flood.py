"""flood.py ADDRESS: holds 500 bad connections of five kinds to the appliance until it is killed, and opens one anew when it is closed.

Runs in a container of its own, with nothing but Python. Prints how many of each kind are open, twice a second.
"""

import asyncio
import base64
import contextlib
import json
import ssl
import sys

KINDS = {"idle": 5222, "half a stream header": 5222, "slow request": 443, "TLS and silence": 5223, "login": 5223}
OF_EACH = 100
STREAM = b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='nestbox.test' version='1.0'>"
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
AUTH = (
    f"<auth xmlns='{SASL}' mechanism='SCRAM-SHA-256'>{base64.b64encode(b'n,,n=ada,r=guess').decode()}</auth>".encode()
)
GUESS = f"<response xmlns='{SASL}'>{base64.b64encode(b'c=biws,r=guess,p=AAAA').decode()}</response>".encode()

tls = ssl.create_default_context()
tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
open_now = dict.fromkeys(KINDS, 0)


async def be_bad(kind: str) -> None:
    port = KINDS[kind]
    reader, writer = await asyncio.open_connection(sys.argv[1], port, ssl=None if port == 5222 else tls)
    open_now[kind] += 1
    try:
        if kind == "half a stream header":
            writer.write(STREAM[:60])
        elif kind == "slow request":
            writer.write(b"GET / HTTP/1.1\r\nHost: nestbox.test\r\nX-Slow: ")
        elif kind == "login":
            writer.write(STREAM + AUTH + GUESS)
        while data := await reader.read(4096):
            if kind == "login" and b"failure" in data:
                return  # and tries the next password at once
    finally:
        open_now[kind] -= 1
        writer.close()


async def go_on(kind: str) -> None:
    while True:
        with contextlib.suppress(OSError):
            await be_bad(kind)
        await asyncio.sleep(0.2)


async def main() -> None:
    tasks = [asyncio.create_task(go_on(kind)) for kind in KINDS for _ in range(OF_EACH)]
    while tasks:
        print(json.dumps(open_now), flush=True)
        await asyncio.sleep(0.5)


asyncio.run(main())

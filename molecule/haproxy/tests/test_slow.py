"""Role haproxy: what takes longer than an ordinary page. On one release, as it takes long and both read the same line."""

import time
from concurrent.futures import ThreadPoolExecutor

from clients import Client, tls_context

testinfra_hosts = ["ansible://*-2604-*"]
SECONDS = 35  # longer than the 30 s that HAProxy gives everything else


def test_a_held_request_and_a_slow_upload_are_waited_for(host, address):
    context = tls_context(host, "http/1.1")

    def poll() -> int:
        with Client(address, 443, context) as client:
            client.socket.settimeout(SECONDS + 20)
            return client.request("/http-bind")[0]

    def upload() -> int:
        pieces = 8
        with Client(address, 443, context) as client:
            head = (
                f"PUT /upload/token/film HTTP/1.1\r\nHost: nestbox.test\r\nContent-Length: {pieces * 100_000}\r\n\r\n"
            )
            client.socket.sendall(head.encode())
            for _ in range(pieces):
                client.socket.sendall(bytes(100_000))
                time.sleep(SECONDS / pieces)
            return int(client.file.readline().split()[1])

    with ThreadPoolExecutor() as pool:
        answers = [pool.submit(poll), pool.submit(upload)]
        assert [answer.result() for answer in answers] == [200, 200]


def test_half_a_request_is_not_waited_for(host, address):
    """A client that sends its header slowly holds a connection for 10 s, not for ever."""
    with Client(address, 443, tls_context(host, "http/1.1")) as client:
        client.socket.settimeout(SECONDS)
        begin = time.monotonic()
        client.socket.sendall(b"GET / HTTP/1.1\r\nHost: nest")
        assert client.answer()[0] == 408
        assert 5 < time.monotonic() - begin < 20

"""What a worker answers over HTTP."""

import asyncio
import gzip
import json
from xml.etree import ElementTree

import pytest

from nestbox.core.errors import StanzaError
from nestbox.http import health as health_module
from nestbox.store import StoreError

SAFE = (
    "x-content-type-options",
    "x-frame-options",
    "referrer-policy",
    "content-security-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "permissions-policy",
)


async def test_healthy(site):
    answer = await site.get("/healthz")
    assert answer.status == 200 and json.loads(answer.body) == {"status": "ok", "worker": 3}
    assert answer.headers["cache-control"] == "no-store" and answer.headers["server"] == "Nestbox"
    assert (await site.get("/healthz", method="HEAD")).status == 200
    assert (await site.get("/healthz", socket=site.metrics_socket)).status == 200


async def test_draining(site):
    site.server.draining = True
    answer = await site.get("/healthz")
    assert answer.status == 503 and json.loads(answer.body) == {"status": "draining", "worker": 3}


async def test_a_database_that_stays_away_and_comes_back(site, monkeypatch, tmp_path):
    monkeypatch.setattr(health_module, "PING_EVERY", 0.01)
    monkeypatch.setattr(health_module, "STORE_GRACE", 0.2)
    away = True

    async def ping():
        if away:
            raise StoreError("gone")

    monkeypatch.setattr(site.server.store, "ping", ping)
    watched = health_module.Health(site.server)
    task = asyncio.create_task(watched.watch_store())
    await asyncio.sleep(0.05)
    assert watched.problem() is None  # a restart of the database sends nobody away
    while watched.problem() is None:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert watched.problem() == "database down"
    away = False
    while watched.problem() is not None:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    task.cancel()


async def test_a_database_that_takes_too_long_is_named_so(site, monkeypatch, caplog):
    monkeypatch.setattr(health_module, "PING_SECONDS", 0.01)
    monkeypatch.setattr(site.server.store, "ping", asyncio.Event().wait)
    task = asyncio.create_task(health_module.Health(site.server).watch_store())
    while not caplog.messages:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    task.cancel()
    assert caplog.messages == ["the database does not answer: TimeoutError"]


async def test_host_meta(site):
    answer = await site.get("/.well-known/host-meta")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["content-type"].startswith("application/xrd+xml")
    links = list(ElementTree.fromstring(answer.body))
    assert {link.tag for link in links} == {"{http://docs.oasis-open.org/ns/xri/xrd-1.0}Link"}
    expected = [
        {"rel": "urn:xmpp:alt-connections:websocket", "href": "wss://nestbox.test:8443/xmpp-websocket"},
        {"rel": "urn:xmpp:alt-connections:xbosh", "href": "https://nestbox.test:8443/http-bind"},
    ]
    assert [link.attrib for link in links] == expected
    answer = await site.get("/.well-known/host-meta.json")
    assert json.loads(answer.body) == {"links": expected}
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["content-type"].startswith("application/json")


async def test_pages(site):
    for path in ("/", "/index.html"):
        answer = await site.get(path)
        assert answer.status == 200 and b"<title>chat" in answer.body
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache"
        assert "'wasm-unsafe-eval'" in answer.headers["content-security-policy"]
    assert (await site.get("/nestbox.js")).headers["content-type"] == "text/javascript; charset=utf-8"
    assert (await site.get("/dist/omemo.wasm")).headers["content-type"] == "application/wasm"
    for path in ("/dist/app.0123abcdef.js", "/nestbox.js?v=7"):
        assert "immutable" in (await site.get(path)).headers["cache-control"]
    assert len((await site.get("/big.bin")).body) == 3_000_000
    assert (await site.get("/big.bin", Range="bytes=5-14")).status == 206
    assert (await site.get("/", method="HEAD")).body == b""


async def test_an_upgrade_is_seen_at_once(site):
    first = await site.get("/nestbox.js")
    again = await site.get("/nestbox.js", If_None_Match=first.headers["etag"])
    assert again.status == 304 and again.body == b""
    new = site.web.resolve().parent / "2"
    new.mkdir()
    (new / "nestbox.js").write_text("let two = 2;")  # as long as before
    site.web.unlink()
    site.web.symlink_to(new)
    answer = await site.get("/nestbox.js", If_None_Match=first.headers["etag"])
    assert answer.status == 200 and answer.body == b"let two = 2;"
    assert (await site.get("/nestbox.js", If_Modified_Since="Fri, 01 Jan 2100 00:00:00 GMT")).status == 200


async def test_compressed_form_is_chosen(site):
    plain = b"let one = 1;" * 100
    (site.web / "app.js").write_bytes(plain)
    (site.web / "app.js.gz").write_bytes(gzip.compress(plain))
    answer = await site.get("/app.js", Accept_Encoding="br, gzip")
    assert answer.headers["content-encoding"] == "gzip" and gzip.decompress(answer.body) == plain
    assert answer.headers["content-type"].startswith("text/javascript")
    other = await site.get("/app.js")
    assert other.body == plain and "content-encoding" not in other.headers
    assert answer.headers["vary"] == other.headers["vary"] == "Accept-Encoding"
    assert answer.headers["etag"] != other.headers["etag"]


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/dist",
        "/dist/",
        "/.hidden",
        "/dist/../.hidden",
        "/../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/dist/%2e%2e/%2e%2e/%2e%2e/secret",
        "//secret",
        "/../releases/1/index.html",
        "/%00",
        "/index.html%00.js",
        "/admin/",
        "/api/v1/users",
        "/.well-known/other",
        "/.well-known/acme-challenge/x",
        "/metrics",
        "/healthz/",
        "/%ff",
    ],
)
async def test_what_is_not_there_is_a_small_safe_404(site, path):
    answer = await site.get(path)
    assert answer.status in (404, 400, 403) and len(answer.body) < 100 and b"secret" not in answer.body
    assert b"Traceback" not in answer.body
    if answer.status != 400:
        assert all(answer.headers.get(name) for name in SAFE)


async def test_no_redirect_to_another_host(site):
    for path in ("//evil.test/dist", "//evil.test/..", "/\\evil.test/", "/dist//"):
        answer = await site.get(path)
        assert answer.headers.get("location", "/").startswith("/") and "evil" not in answer.headers.get("location", "")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_other_methods_are_refused(site, method):
    for path in ("/", "/healthz", "/xmpp-websocket", "/.well-known/host-meta"):
        answer = await site.get(path, method=method, Content_Length=0)
        assert answer.status == 405 and len(answer.body) < 100


async def test_every_answer_is_safe(site):
    for path in ("/", "/nothing", "/healthz", "/xmpp-websocket", "/.well-known/host-meta"):
        answer = await site.get(path)
        assert all(answer.headers.get(name) for name in SAFE), path
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["server"] == "Nestbox"
    assert (await site.get("/xmpp-websocket")).status == 426


async def test_metrics(site):
    site.server.counts.messages_in += 5
    site.server.counts.logins += 1
    site.server.counts.refused(StanzaError("resource-constraint", limit="roster_items"))
    site.server.bus.counts.limits_hit["bus_groups"] += 2
    site.server.store.committer.commit_seconds(0.003)
    await asyncio.sleep(0.6)  # the loop's lag is measured twice a second
    answer = await site.get("/metrics", socket=site.metrics_socket)
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.body.decode().splitlines()
    for line in (
        'nestbox_stanzas_received_total{kind="message"} 5.0',
        'nestbox_logins_total{result="accepted"} 1.0',
        'nestbox_limits_hit_total{limit="roster_items"} 1.0',
        'nestbox_limits_hit_total{limit="bus_groups"} 2.0',
        'nestbox_connections{transport="websocket"} 0.0',
        'nestbox_bytes_total{direction="in",transport="tcp"} 0.0',
        'nestbox_commit_seconds_bucket{le="0.005"} 1.0',
        "nestbox_bus_connected 1.0",
        "nestbox_workers 1.0",
        "nestbox_sessions 0.0",
    ):
        assert line in lines, line
    [lag] = [line for line in lines if line.startswith("nestbox_event_loop_lag_seconds_count")]
    assert float(lag.split()[1]) >= 1
    assert any(line.startswith("process_resident_memory_bytes") for line in lines)
    assert (await site.get("/", socket=site.metrics_socket)).status == 404


async def test_a_request_that_is_too_large_is_refused(site):
    answer = await site.get("/", X_Large="x" * 20_000)
    assert answer.status in (0, 400, 431)
    answer = await site.get("/healthz", method="POST", Content_Length=10_000_000)
    assert answer.status in (0, 400, 405, 413)

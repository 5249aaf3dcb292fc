"""Files over HTTP (XEP-0363, section 6)."""

import asyncio
import os
import resource
import secrets
import time
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nestbox.store import StoreError
from nestbox.store.upload_files import SLOT_SECONDS, UploadFiles, maintain
from nestbox.store.uploads import DAY, Quota, Upload

QUOTA = Quota(10**12, 10**12, 10**6, 0, SLOT_SECONDS)


class Slots:
    """Makes slots for one account, as the module does."""

    def __init__(self, site, user_id):
        self.site, self.user_id = site, user_id
        self.store = site.server.store
        self.files = UploadFiles(site.server.config.state_dir)

    async def make(self, size, name="a.bin", content_type="", created=None):
        """The path of a new slot."""
        upload = Upload(secrets.token_urlsafe(18), self.user_id, name, size, content_type, created or int(time.time()))
        await self.store.uploads.reserve(upload, QUOTA)
        return f"/upload/{upload.token}/{quote(name, safe='')}"

    def kept(self):
        """The names of all files on the disk."""
        return sorted(path.name for path in self.files.folder.rglob("*") if path.is_file())

    async def until(self, count):
        """Wait until so many files are on the disk."""
        async with asyncio.timeout(5):
            while len(self.kept()) != count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@pytest.fixture
async def slots(site):
    account = await site.server.store.accounts.create("alice", "password")
    return Slots(site, account.id)


async def test_a_file_is_put_once_and_read_by_all_who_know_where(site, slots):
    body = os.urandom(300_000)
    path = await slots.make(len(body), "très cool 😀.jpg", "image/jpeg")
    assert (await site.get(path)).status == 404  # nothing is there yet
    answer = await site.put(path, body, Content_Type="image/jpeg")
    assert answer.status == 201
    answer = await site.get(path)
    assert answer.status == 200 and answer.body == body
    assert answer.headers["content-type"] == "image/jpeg" and answer.headers["content-length"] == "300000"
    assert answer.headers["content-disposition"] == f"inline; filename*=UTF-8''{quote('très cool 😀.jpg', safe='')}"
    assert slots.kept() == [path.split("/")[2]]
    again = await site.put(path, body)
    assert again.status == 409 and (await site.get(path)).body == body
    head = await site.get(path, method="HEAD")
    assert head.status == 200 and head.body == b"" and head.headers["content-length"] == "300000"


async def test_an_empty_file(site, slots):
    path = await slots.make(0)
    assert (await site.put(path, b"")).status == 201
    answer = await site.get(path)
    assert answer.status == 200 and answer.body == b""


async def test_ranges(site, slots):
    body = bytes(range(256)) * 1000
    path = await slots.make(len(body))
    await site.put(path, body)
    answer = await site.get(path, Range="bytes=100-199")
    assert answer.status == 206 and answer.body == body[100:200]
    assert answer.headers["content-range"] == f"bytes 100-199/{len(body)}"
    assert (await site.get(path, Range="bytes=-5")).body == body[-5:]
    assert (await site.get(path, Range="bytes=255990-")).body == body[255990:]
    assert (await site.get(path, Range="bytes=999999-")).status == 416
    full = await site.get(path)
    assert (await site.get(path, If_None_Match=full.headers["etag"])).status == 304


@pytest.mark.parametrize(("given", "status"), [(99, 400), (101, 413), (3_000_000, 413), (None, 411), ("x", 411)])
async def test_another_length_than_the_slots_is_refused_and_nothing_is_kept(site, slots, given, status):
    path = await slots.make(100)
    body = b"" if given in (None, "x") else b"z" * given
    headers = {} if given is None else {"Content_Length": given}
    answer = await site.get(path, method="PUT", body=body, **headers)
    assert answer.status == status or (given == "x" and answer.status == 400)
    assert slots.kept() == [] and (await site.get(path)).status == 404
    assert (await site.put(path, b"z" * 100)).status == 201  # the slot is still there


async def test_a_chunked_body_is_refused(site, slots):
    path = await slots.make(5)
    answer = await site.get(path, method="PUT", body=b"5\r\nhello\r\n0\r\n\r\n", Transfer_Encoding="chunked")
    assert answer.status == 411 and slots.kept() == []


async def test_a_body_that_breaks_off_is_discarded(site, slots):
    path = await slots.make(200_000)
    _, writer = await site.begin(path, method="PUT", Content_Length=200_000)
    writer.write(b"x" * 100_000)
    await slots.until(1)
    assert (await site.put(path, b"y" * 200_000)).status == 409  # one at a time
    writer.close()
    await slots.until(0)
    assert (await site.get(path)).status == 404
    assert (await site.put(path, b"y" * 200_000)).status == 201
    assert (await site.get(path)).body == b"y" * 200_000


async def test_a_refusal_is_told_before_the_body_is_sent(site, slots):
    path = await slots.make(100)
    reader, writer = await site.begin(path, method="PUT", Content_Length=5_000_000_000, Expect="100-continue")
    answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.startswith(b"HTTP/1.1 413 ")
    writer.close()
    reader, writer = await site.begin(path, method="PUT", Content_Length=100, Expect="100-continue")
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 (Continue)\r\n\r\n"
    writer.write(b"x" * 100)
    assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 201 ")
    writer.close()


async def test_the_content_type_is_the_slots(site, slots):
    path = await slots.make(2, "a.png", "image/png")
    assert (await site.put(path, b"hi", Content_Type="text/html")).status == 415
    assert (await site.put(path, b"hi", Content_Type="Image/PNG; x=y")).status == 201


async def test_a_slot_expires(site, slots):
    path = await slots.make(2, created=int(time.time()) - SLOT_SECONDS - 1)
    assert (await site.put(path, b"hi")).status == 410


async def test_a_full_disk_is_told(site, slots, monkeypatch):
    path = await slots.make(2)
    site.server.config.uploads.min_free_bytes = 10**18
    assert (await site.put(path, b"hi")).status == 507
    assert site.server.counts.limits_hit == {"upload_free_bytes": 1}
    site.server.config.uploads.min_free_bytes = 0

    def full(fd, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nestbox.store.upload_files.os.write", full)
    assert (await site.put(path, b"hi")).status == 507
    await slots.until(0)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path[:-1],
        lambda path: path + "x",
        lambda path: path.replace("a.bin", "a%2Ebin/"),
        lambda path: path.replace("a.bin", ".."),
        lambda path: path.replace("a.bin", "%2e%2e"),
        lambda path: path.replace("a.bin", "%2e%2e%2fa.bin"),
        lambda path: path.replace("a.bin", "..%2f..%2f..%2fetc%2fpasswd"),
        lambda path: path.replace("a.bin", "a.bin%00"),
        lambda path: path.replace("a.bin", "%ff"),
        lambda path: path.replace("/upload/", "/upload//"),
        lambda path: path.replace("/upload/", "/upload/../upload/"),
        lambda path: "/upload/",
        lambda path: "/upload",
        lambda path: "/upload/" + path.split("/")[2],
        lambda path: f"/upload/{path.split('/')[2]}/",
        lambda path: (
            f"/upload/{path.split('/')[2][:-1]}A/a.bin"
            if not path.split("/")[2].endswith("A")
            else f"/upload/{path.split('/')[2][:-1]}B/a.bin"
        ),
        lambda path: "/upload/../../../../etc/passwd",
        lambda path: "/upload/..%2f..%2f..%2f..%2fetc%2fpasswd/a.bin",
        lambda path: f"/upload/{'.' * 24}/a.bin",
    ],
)
async def test_any_other_path_is_not_found(site, slots, change):
    path = await slots.make(6)
    assert (await site.put(path, b"secret")).status == 201
    other = change(path)
    for answer in (await site.get(other), await site.put(other, b"secret")):
        assert answer.status in (400, 404, 405) and b"secret" not in answer.body and b"root:" not in answer.body
    assert len(slots.kept()) == 1


SAVED = [
    "text/html",
    "image/svg+xml",
    "application/xhtml+xml",
    "text/javascript",
    "text/css",
    "application/pdf",
    "",
    "x",
]
SHOWN = ["image/png", "image/jpeg", "audio/ogg", "video/mp4", "text/plain", "IMAGE/GIF", "text/plain; charset=x"]


@pytest.mark.parametrize("content_type", SAVED + SHOWN)
async def test_what_people_upload_cannot_act_as_this_site(site, slots, content_type):
    path = await slots.make(9, "a.html", content_type)
    assert (await site.put(path, b"<script/>")).status == 201
    for answer in (await site.get(path), await site.get(path, method="HEAD"), await site.get(path, Range="bytes=0-1")):
        headers = answer.headers
        policy = [part.strip() for part in headers["content-security-policy"].split(";")]
        assert "default-src 'none'" in policy and "sandbox" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "cross-origin"
        assert headers["content-disposition"].startswith("inline" if content_type in SHOWN else "attachment")
        assert not any(word in headers["content-type"] for word in ("html", "script", "css", "xhtml"))


async def test_web_chats_of_other_origins_may_put_and_get(site, slots):
    path = await slots.make(2)
    answer = await site.get(
        path,
        method="OPTIONS",
        Origin="https://chat.example",
        Access_Control_Request_Method="PUT",
        Access_Control_Request_Headers="content-type",
    )
    assert answer.status == 204 and answer.body == b""
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "PUT" in answer.headers["access-control-allow-methods"].split(", ")
    assert "Content-Type" in answer.headers["access-control-allow-headers"].split(", ")
    for answer in (
        await site.put(path, b"hi", Origin="https://chat.example"),
        await site.get(path, Origin="https://chat.example"),
        await site.get("/upload/" + "x" * 24 + "/no", Origin="https://chat.example"),
    ):
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH"])
async def test_other_methods_are_refused(site, slots, method):
    path = await slots.make(2)
    assert (await site.get(path, method=method, Content_Length=0)).status == 405


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/"), min_size=1, max_size=60))
async def test_any_name_comes_back(site, slots, name):
    if name in (".", "..") or len(name.encode()) > 255:
        return
    path = await slots.make(2, name)
    assert (await site.put(path, b"hi")).status == 201
    answer = await site.get(path)
    assert answer.status == 200 and answer.body == b"hi"
    assert answer.headers["content-disposition"].endswith(f"filename*=UTF-8''{quote(name, safe='')}")


async def test_memory_stays_flat(site, slots):
    size = 64 * 1024 * 1024
    path = await slots.make(size)
    await site.put(await slots.make(200_000), bytes(200_000))  # threads and buffers are there now
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reader, writer = await site.begin(path, method="PUT", Content_Length=size)
    piece = os.urandom(256 * 1024)
    for _ in range(size // len(piece)):
        writer.write(piece)
        await writer.drain()
    assert (await asyncio.wait_for(reader.read(), 60)).startswith(b"HTTP/1.1 201 ")
    writer.close()
    reader, writer = await site.begin(path, method="GET")
    await reader.readuntil(b"\r\n\r\n")
    got = 0
    while data := await reader.read(256 * 1024):
        got += len(data)
    writer.close()
    assert got == size
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024  # KiB


async def test_a_deleted_account_leaves_nothing(site, slots):
    path, late = await slots.make(2), await slots.make(4)
    await site.put(path, b"hi")
    reader, writer = await site.begin(late, method="PUT", Content_Length=4)
    writer.write(b"hi")
    await slots.until(2)
    await slots.store.accounts.delete("alice")
    slots.files.remove_account(slots.user_id)
    assert (await site.get(path)).status == 404
    writer.write(b"hi")
    assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 404 ")
    writer.close()
    assert slots.kept() == []


async def test_maintenance_removes_old_files_and_what_belongs_to_nobody(site, slots):
    files = slots.files
    old, new = await slots.make(2), await slots.make(2)
    for path in (old, new):
        await site.put(path, b"hi")
    unused = await slots.make(2, created=int(time.time()) - DAY)
    for name in ("1.part", "left-over"):
        (files.folder / str(slots.user_id) / name).write_text("x")
        os.utime(files.folder / str(slots.user_id) / name, (0, 0))
    (files.folder / str(slots.user_id) / "2.part").write_text("x")  # somebody uploads it now
    (files.folder / "999").mkdir()
    (files.folder / "999" / "x").write_text("x")
    token = old.split("/")[2]
    async with site.server.store.database.write() as connection:
        await connection.exec_driver_sql(f"UPDATE uploads SET stored = stored - {8 * DAY} WHERE token = '{token}'")
    assert await maintain(slots.store, files, 0) == 2
    assert (await site.get(old)).status == 200
    assert await maintain(slots.store, files, 7) == 1
    assert (await site.get(old)).status == 404 and (await site.get(new)).status == 200
    assert slots.kept() == sorted([new.split("/")[2], "2.part"])
    assert not (files.folder / "999").exists()
    assert await slots.store.uploads.get(unused.split("/")[2]) is None


async def test_a_database_that_is_away(site, slots, monkeypatch):
    path = await slots.make(2)
    await site.put(path, b"hi")
    late = await slots.make(2)

    async def away(*_):
        raise StoreError("gone")

    monkeypatch.setattr(slots.store.uploads, "complete", away)
    assert (await site.put(late, b"hi")).status == 503
    monkeypatch.setattr(slots.store.uploads, "get", away)
    for answer in (await site.get(path), await site.put(late, b"hi")):
        assert answer.status == 503 and answer.headers["content-type"].startswith("text/plain")


async def test_no_log_has_the_address_of_a_file(site, slots, monkeypatch, caplog):
    path = await slots.make(2)
    await site.put(path, b"hi")
    await site.put(path, b"hi")
    await site.get(path + "x")

    async def broken(token):
        raise RuntimeError("broken")

    monkeypatch.setattr(slots.store.uploads, "get", broken)
    assert (await site.get(path)).status == 500
    assert "GET /upload/... failed" in caplog.text and "RuntimeError" in caplog.text
    assert path.split("/")[2] not in caplog.text

"""slixmpp asks for a slot at one worker; the file is put at another and read from a third (XEP-0363)."""

import asyncio
import os
import urllib.error
import urllib.request
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element

import pytest
from slixmpp.exceptions import IqError

from tests.live.conftest import DOMAIN

UPLOAD = "{urn:xmpp:http:upload:0}"


async def http(method, url, worker, body=None, **headers):
    """One request to a worker, in HAProxy's place: (status, headers, body)."""
    path = urlsplit(url).path
    request = urllib.request.Request(f"http://127.0.0.1:{worker.http}{path}", body, headers, method=method)

    def run():
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    return await asyncio.to_thread(run)


async def slot(somebody, name, size, kind):
    """Ask for a slot; its two addresses. slixmpp's own plugin needs a library for HTTP that nothing else here needs."""
    iq = somebody.make_iq_get(ito=f"upload.{DOMAIN}")
    iq.xml.append(Element(f"{UPLOAD}request", {"filename": name, "size": str(size), "content-type": kind}))
    answer = (await iq.send()).xml.find(f"{UPLOAD}slot")
    return [answer.find(f"{UPLOAD}{which}").get("url") for which in ("put", "get")]


async def test_a_picture_goes_from_one_to_another(cluster, person):
    anna, ben = await person("anna", 1), await person("ben", 2)
    disco = anna.plugin["xep_0030"]
    items = (await disco.get_items(DOMAIN))["disco_items"]["items"]
    assert f"upload.{DOMAIN}" in [str(jid) for jid, *_ in items]
    info = await disco.get_info(f"upload.{DOMAIN}")
    assert "urn:xmpp:http:upload:0" in info["disco_info"]["features"]
    picture = os.urandom(500_000)
    put, get = await slot(anna, "été 😀.png", len(picture), "image/png")
    assert put.startswith(f"https://{DOMAIN}/upload/")
    status, *_ = await http("PUT", put, cluster[2], picture, **{"Content-Type": "image/png"})
    assert status == 201
    anna.send_message(f"ben@{DOMAIN}", get)
    url = (await ben.next_message())["body"]
    status, headers, body = await http("GET", url, cluster[3])
    assert status == 200 and body == picture and headers["Content-Type"] == "image/png"
    again = await http("PUT", put, cluster[3], picture, **{"Content-Type": "image/png"})
    assert again[0] == 409  # each slot once, whichever worker is asked
    with pytest.raises(IqError, match="not-acceptable"):
        await slot(anna, "film.mkv", 10**12, "video/mp4")

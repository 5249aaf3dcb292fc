"""The web chat's files are whole, the appliance's own, and ask no other host for anything."""

import json
import re

import pytest

ROOT = "/opt/nestbox/web/current"


@pytest.fixture
def page(host):
    return host.file(f"{ROOT}/index.html").content_string


def test_current_points_at_a_whole_version(host):
    assert host.file(ROOT).linked_to == "/opt/nestbox/web/14.0.0"
    assert host.file(f"{ROOT}/dist/converse.min.js").size > 1_000_000


def test_everything_the_page_names_is_there(host, page):
    named = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert {"dist/converse.min.js?v=14.0.0", "nestbox.js", "favicon.svg"} <= set(named)
    for path in (name.partition("?")[0] for name in named):
        assert host.file(f"{ROOT}/{path}").is_file, path


@pytest.mark.parametrize(
    "path", ["dist/libomemo.esm.min.js", "dist/curve25519_compiled.wasm", "dist/emoji.json", "dist/webfonts/muli.ttf"]
)
def test_what_converse_loads_later_is_there(host, path):
    assert host.file(f"{ROOT}/{path}").size > 0


def test_downloads_are_small(host):
    assert host.file(f"{ROOT}/dist/converse.min.js.gz").size < 450_000
    assert (
        host.check_output(f"gzip -cd {ROOT}/dist/converse.min.js.gz | cmp - {ROOT}/dist/converse.min.js && echo same")
        == "same"
    )


def test_translations_are_there(host):
    assert int(host.check_output(f"ls {ROOT}/dist/chunkjs/locales/*.js | wc -l")) > 40


def test_no_dead_weight(host):
    assert host.check_output(f"find {ROOT}/ -name '*.map' -o -name website.css") == ""


def test_the_name_and_colour_are_the_operators(host, page):
    assert "<title>Nest &amp; Box</title>" in page
    assert json.loads(host.file(f"{ROOT}/manifest.json").content_string)["name"] == "Nest & Box"
    css = host.file(f"{ROOT}/nestbox.css").content_string
    assert "--blue: #7a3b69" in css and "--blue-rgb: 122, 59, 105" in css
    assert "#7a3b69" in host.file(f"{ROOT}/favicon.svg").content_string


def test_own_pages_name_no_other_host(host):
    for name in ("index.html", "nestbox.js", "nestbox.css", "manifest.json"):
        text = host.file(f"{ROOT}/{name}").content_string
        assert not re.search(r"(?:https?:)?//(?!www\.w3\.org)[a-z0-9-]+\.[a-z]", text), name


def test_any_worker_may_read_and_none_may_write(host):
    unreadable = host.check_output(f"find {ROOT}/ ! -perm -o=r -o -type d ! -perm -o=x -o -perm /go=w -o ! -user root")
    assert unreadable == ""


def test_the_appliance_needs_no_node(host):
    assert not host.exists("node") and not host.exists("npm")

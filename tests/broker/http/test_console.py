"""How the console's files are served: strictly, from memory, and with no way out of the folder."""

from __future__ import annotations

import gzip
import re

import pytest

from thingctl_broker.http.console import CONTENT_SECURITY_POLICY, FOLDER, Console, load


def assets(api):
    page = api.get("/", headers={}).content.decode()
    return re.findall(r'(?:src|href)="(console/[^"]+)"', page)


def test_the_page_needs_no_token_and_is_asked_for_each_time(api):
    reply = api.get("/", headers={})
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["cache-control"] == "no-cache"
    assert b"{{" not in reply.content


def test_what_the_page_loads_is_there_and_may_be_kept_for_ever(api):
    found = assets(api)
    assert {name.rsplit(".")[-1] for name in found} == {"js", "css", "svg"}
    for path in found:
        reply = api.get("/" + path, headers={})
        assert reply.status == 200, path
        assert "immutable" in reply.headers["cache-control"]


@pytest.mark.parametrize("target", ["/", "asset"])
def test_every_file_comes_with_the_strict_policy(api, target):
    target = "/" + assets(api)[0] if target == "asset" else target
    headers = api.get(target, headers={}).headers
    assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "http" not in CONTENT_SECURITY_POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_a_page_that_the_browser_has_is_not_sent_again(api):
    etag = api.get("/", headers={}).headers["etag"]
    again = api.get("/", headers={"If-None-Match": etag})
    assert (again.status, again.content) == (304, b"")
    assert api.get("/", headers={"If-None-Match": '"other"'}).status == 200


def test_files_are_compressed_for_whoever_takes_that(api):
    plain = api.get("/", headers={})
    zipped = api.get("/", headers={"Accept-Encoding": "gzip, br"})
    assert zipped.headers["content-encoding"] == "gzip"
    assert gzip.decompress(zipped.content) == plain.content
    assert plain.headers["vary"] == "Accept-Encoding"


def test_head_is_get_without_a_body(api):
    head = api.request("HEAD", "/", headers={})
    assert (head.status, head.content) == (200, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_written(api, method):
    reply = api.request(method, "/", headers={})
    assert reply.status == 405
    assert reply.headers["allow"] == "GET, HEAD"
    assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "path",
    [
        "/console/",
        "/console/main.js",
        "/console/../http/app.py",
        "/console/{build}/../../http/app.py",
        "/console/{build}/%2e%2e/%2e%2e/http/app.py",
        "/console/{build}/..%2f..%2fhttp%2fapp.py",
        "/console/{build}//etc/passwd",
        "/console/{build}/index.html",
        "/console/{build}/main.js%00",
        "/console/{build}/MAIN.JS",
        "/console/0000000000000000/main.js",
    ],
)
def test_there_is_no_other_path(api, path):
    build = assets(api)[0].split("/")[1]
    reply = api.get(path.format(build=build), headers={})
    assert reply.status == 404
    assert reply.headers["content-type"] == "application/problem+json"


def test_no_file_asks_for_anything_from_elsewhere_or_makes_markup_of_text():
    allowed = {"http://www.w3.org/2000/svg"}
    for path in FOLDER.iterdir():
        text = path.read_text()
        assert set(re.findall(r"https?://[^\s\"'`)]+", text)) <= allowed, path.name
        for word in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
        ):
            assert word not in text, (path.name, word)
        if path.suffix == ".html":
            assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text)


def test_another_content_is_another_build(tmp_path):
    builds = []
    for text in ("one", "two"):
        folder = tmp_path / text
        folder.mkdir()
        (folder / "index.html").write_text("{{build}}")
        (folder / "a.js").write_text(text)
        files = load(folder)
        builds.append(files["/"].body.decode())
        assert files[f"/console/{builds[-1]}/a.js"].body == text.encode()
    assert builds[0] != builds[1]
    assert Console.owns("/")
    assert not Console.owns("/api/v1/commands")

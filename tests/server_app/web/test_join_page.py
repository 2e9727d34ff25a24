"""The page at /join as it is served: its files, who may load it, what it may do."""

from __future__ import annotations

import gzip
import re
from urllib.parse import urljoin

import pytest
from flask import Flask

pytest_plugins = ["tests.server_app.server_fixtures", "tests.server_app.web.api_fixtures"]

HTML_NAME = re.compile(r'(?:href|src)="join/([^"]+)"')


def names(app: Flask) -> list[str]:
    return HTML_NAME.findall(app.test_client().get("/join").get_data(as_text=True))


def test_all_that_the_page_names_is_there_and_is_kept(app: Flask) -> None:
    client = app.test_client()
    assert len(names(app)) == 4
    for name in names(app):
        answer = client.get(f"/join/{name}")
        assert answer.status_code == 200, name
        # The name has a hash of what is in it.
        assert re.search(r"-[0-9a-f]{12}\.", name) and answer.cache_control.immutable
    for path in ("/join", "/join/service-worker.js"):
        assert client.get(path).headers["Cache-Control"] == "no-store"


def test_types_are_those_that_browsers_insist_on(app: Flask) -> None:
    client = app.test_client()
    script = client.get("/join/service-worker.js").get_data(as_text=True)
    (wasm,) = re.findall(r'"(ort[\w-]+\.wasm)"', script)
    assert client.get(f"/join/{wasm}").mimetype == "application/wasm"
    (glue,) = re.findall(r'"(ort[\w-]+\.mjs)"', script)
    assert client.get(f"/join/{glue}").mimetype == "text/javascript"
    assert {client.get(f"/join/{name}").mimetype for name in names(app)} == {
        "application/manifest+json", "image/svg+xml", "text/css", "text/javascript",
    }  # fmt: skip


@pytest.mark.parametrize("path", ["/join", "/join/service-worker.js"])
def test_it_may_do_little(app: Flask, path: str) -> None:
    headers = app.test_client().get(path).headers
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'") and "unsafe-inline" not in policy and "http" not in policy
    assert re.search(r"script-src 'self' 'wasm-unsafe-eval';", policy)
    # Isolated, so that threads may share memory.
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert headers["Referrer-Policy"] == "no-referrer"


def test_nothing_stands_in_the_page_that_the_policy_forbids(app: Flask) -> None:
    page = app.test_client().get("/join").get_data(as_text=True)
    assert not re.search(r"<style|\son\w+=|style=|<script(?! type=\"module\" src=)", page)


def test_who_takes_no_gzip_gets_the_same(app: Flask) -> None:
    client = app.test_client()
    plain = client.get("/join")
    packed = client.get("/join", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in plain.headers and packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data and "Accept-Encoding" in packed.headers["Vary"]


@pytest.mark.parametrize("name", ["none.js", "..%2fjoining.py", "index.html.gz", "%00"])
def test_another_file_is_not_found(app: Flask, name: str) -> None:
    answer = app.test_client().get(f"/join/{name}")
    assert answer.status_code == 404 and answer.get_json()["error"] == "NotFound"


def test_the_service_worker_is_for_the_page(app: Flask) -> None:
    """It stands below the page, and a browser lets it go no higher than this header says."""
    answer = app.test_client().get("/join/service-worker.js")
    place = "https://host/birds/join/service-worker.js"
    assert urljoin(place, answer.headers["Service-Worker-Allowed"]) == "https://host/birds/join"

"""Who sees a run on its page: an operator, and whoever sits at the server's machine; nobody else."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from gkt_core.wire.protocol import ErrorBody, from_json
from server_app import create_app
from server_app.page.files import page_files
from server_app.page.messages import PageView
from server_app.run_folder import RunContext
from server_app.web.operations import OPERATIONS, WATCHERS
from tests.server_app.server_fixtures import CLIENTS, OPERATOR_SECRET, TOKEN, operator
from tests.server_app.web.test_authorisation import Everybody, operations

pytest_plugins = ["tests.server_app.server_fixtures", "tests.server_app.web.api_fixtures"]
HERE = {"REMOTE_ADDR": "127.0.0.1"}


@pytest.fixture
def open_here(run: RunContext) -> Flask:
    """The application as gkt serve makes it without --public-url."""
    return create_app(run, operator_secret=OPERATOR_SECRET, shows_locally=True)


def ask(app: Flask, host: str = "127.0.0.1:8080", address: str = "127.0.0.1", **headers: str) -> TestResponse:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return app.test_client().get(
        "/v1/page", headers={"Host": host, **names}, environ_overrides={"REMOTE_ADDR": address}
    )


LOOPBACK: list[dict[str, Any]] = [
    {},
    {"host": "localhost:8080"},
    {"host": "LOCALHOST"},
    {"host": "run-1.localhost:8080"},
    {"host": "[::1]:8080", "address": "::1"},
    {"host": "127.9.9.9", "address": "127.0.0.2"},
    {"address": "::ffff:127.0.0.1"},
    {"Sec_Fetch_Site": "same-origin"},
    {"Sec_Fetch_Site": "none"},
]
BEYOND: list[dict[str, Any]] = [
    {"address": "192.168.1.7"},
    {"address": "2001:db8::1"},
    {"address": "::ffff:192.168.1.7"},
    {"address": ""},
    # A name that somebody else let lead here.
    {"host": "evil.example"},
    {"host": "127.0.0.1.evil.example"},
    {"host": "localhost.evil.example:8080"},
    {"host": "evil-localhost"},
    {"host": "gkt.example.org"},
    {"host": "192.168.1.2:8080"},
    {"host": ""},
    {"host": "[::1.evil.example]"},
    # A script of another site.
    {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"},
    # What a proxy says, whatever it says.
    *({name: value}
      for name, value in [("X_Forwarded_For", "127.0.0.1"), ("X_Forwarded_Proto", "https"), ("Via", "1.1 x"),
                          ("X_Forwarded_Host", "localhost"), ("Forwarded", "for=127.0.0.1"), ("Via", ""),
                          ("X_Real_IP", "127.0.0.1"), ("CF_Connecting_IP", "127.0.0.1")]),
]  # fmt: skip


@pytest.mark.parametrize("sent", LOOPBACK, ids=str)
def test_whoever_sits_at_the_machine_sees_the_run(open_here: Flask, sent: dict[str, Any]) -> None:
    answer = ask(open_here, **sent)
    assert answer.status_code == 200
    assert from_json(PageView, answer.data).overview.phase == "joining"


@pytest.mark.parametrize("sent", BEYOND, ids=str)
def test_nobody_from_elsewhere_does(open_here: Flask, sent: dict[str, Any]) -> None:
    answer = ask(open_here, **sent)
    assert answer.status_code == 401
    assert from_json(ErrorBody, answer.data).error == "AuthenticationError"
    # An operator does, from everywhere.
    assert ask(open_here, Authorization=f"Bearer {operator()}", **sent).status_code == 200


def test_with_a_public_url_nobody_is_local(run: RunContext) -> None:
    closed = create_app(run, operator_secret=OPERATOR_SECRET)
    assert ask(closed).status_code == 401
    assert ask(closed, Authorization=f"Bearer {operator()}").status_code == 200


def test_a_wrong_secret_is_told_of_here_as_well(open_here: Flask) -> None:
    for shown in (f"Bearer {TOKEN}", "Bearer operator~~" + "a" * 43, "Basic x"):
        assert ask(open_here, Authorization=shown).status_code == 401


def test_here_without_a_secret_nothing_else_is_shown_or_changed(open_here: Flask, run: RunContext) -> None:
    everybody = Everybody(open_here, run)
    num_asked = 0
    for verb, path, described in operations(open_here):
        if described["x-gkt-access"] == "everybody":
            continue
        status = everybody.ask(verb, path, None).status_code
        assert status == (200 if path == "/v1/page" else 401), f"{verb} {path}"
        num_asked += 1
    assert num_asked > 15
    assert [name for name, each in OPERATIONS.items() if each.access == WATCHERS] == ["page.view"]


def test_the_page_itself_says_nothing_of_the_run(open_here: Flask, run: RunContext) -> None:
    Everybody(open_here, run)
    web = open_here.test_client()
    answer = web.get("/", environ_overrides={"REMOTE_ADDR": "192.168.1.7"})
    assert answer.status_code == 200
    text = answer.get_data(as_text=True)
    for told in (run.store.run_id, str(run.folder), *CLIENTS):
        assert told not in text


def test_it_loads_its_own_files_alone_and_runs_nothing_inline(open_here: Flask) -> None:
    web = open_here.test_client()
    answer = web.get("/")
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'" and policy["frame-ancestors"] == "'none'"
    assert {policy[f"{kind}-src"] for kind in ("script", "style", "img", "connect")} == {"'self'"}
    assert answer.headers["Cache-Control"] == "no-store"
    text = answer.get_data(as_text=True)
    assert not re.search(r"https?:|//\w|<style|style=|\son\w+=|<script(?![^>]*src=)", text)
    files = page_files()
    loaded = set(re.findall(r'(?:href|src)="(page/[^"]+)"', text))
    assert {path.rpartition("/")[2] for path in loaded} == {*files.scripts, *files.styles, *files.icons}
    for path in loaded:
        file = web.get(f"/{path}")
        assert file.status_code == 200 and file.headers["X-Content-Type-Options"] == "nosniff"
        assert file.headers["Cache-Control"] == "public, immutable, max-age=31536000"
        # An SVG's namespace leads nowhere.
        elsewhere = file.data.replace(b"http://www.w3.org/2000/svg", b"")
        assert not re.search(rb"https?:|innerHTML|eval\(", elsewhere)
    assert web.get("/page/scripts/page.js").status_code == 404


def test_nobody_is_led_to_a_name_that_the_request_says(open_here: Flask) -> None:
    for path in ("/", "//", "///"):
        answer = open_here.test_client().get(f"http://evil.example{path}")
        assert answer.status_code == 200 and "Location" not in answer.headers


def test_imports_of_scripts_are_named_by_hashes_too() -> None:
    files = page_files()
    imported = {name for text in files.scripts.values() for name in re.findall(rb'from "\./([^"]+)"', text)}
    assert imported and {name.decode() for name in imported} <= set(files.scripts)


def test_what_has_not_changed_is_not_sent_again(open_here: Flask) -> None:
    first = ask(open_here)
    again = ask(open_here, If_None_Match=first.headers["ETag"])
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["Cache-Control"] == "no-store"
    assert ask(open_here, If_None_Match='"another"').status_code == 200

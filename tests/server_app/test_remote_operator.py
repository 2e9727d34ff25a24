"""``gkt clients`` from another machine, with the operator's secret: the same as in the folder."""

from __future__ import annotations

import http.server
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gkt_core.cli import gkt
from gkt_core.errors import (
    AuthenticationError,
    ConfigError,
    GKTError,
    InputError,
    ProtocolError,
    ServerUnavailableError,
)
from gkt_core.wire.credentials import new_secret
from gkt_core.wire.join_link import read_join_link
from server_app import create_app, open_run
from server_app.members.inviting import enrolled
from server_app.run_folder import RunContext
from tests.edge_runtime.certificates import make_certificate
from tests.edge_runtime.in_thread import answering
from tests.server_app.server_fixtures import OPERATOR_SECRET, closing_runs
from tests.server_app.web.test_web_server import serving

Command = Callable[..., Any]


@pytest.fixture
def folder(empty_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(empty_run, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def run(folder: Path) -> Iterator[RunContext]:
    run = open_run(folder)
    for client_id in ("client-a", "client-b"):
        enrolled(run, client_id)
    yield run
    run.store.close()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(OPERATOR_SECRET + "\n")
    return path


def invoke(*words: object) -> Any:
    """What the command prints as JSON.

    Raises:
        GKTError: As the command does.
    """
    with closing_runs():
        done = CliRunner().invoke(gkt, ["clients", *map(str, words), "--json"])
    if done.exception is not None:
        raise done.exception
    return json.loads(done.stdout)


@pytest.fixture
def remote(run: RunContext, secret: Path, tmp_path: Path) -> Iterator[tuple[str, Command]]:
    """The URL of a server with a certificate of its own, and commands to it."""
    made = make_certificate(tmp_path / "tls", "127.0.0.1")
    authority = made.certificate.read_bytes()
    app = create_app(run, operator_secret=OPERATOR_SECRET, authority=authority)
    with serving(app, tls=(made.certificate, made.key)) as port:
        url = f"https://127.0.0.1:{port}"
        there = ("--server", url, "--operator-secret-file", secret, "--ca-file", made.certificate)
        yield url, lambda *words: invoke(*words, *there)


def test_everything_that_is_done_in_the_folder(
    run: RunContext, folder: Path, remote: tuple[str, Command]
) -> None:
    url, there = remote

    def here(*words: object) -> Any:
        return invoke(*words, "--data-dir", folder)

    assert there("list") == here("list")
    assert [row["state"] for row in there("list")["clients"]] == ["enrolled", "enrolled"]
    there("rotate", "client-a")
    known = run.store.credentials.find("client-a")
    assert known is not None and known.rotates
    assert there("revoke", "client-b")["state"] == "revoked"
    link = read_join_link(there("re-enroll", "client-a", "--hours", "2")["join"])
    assert link.url == url and link.ca_sha256
    run.store.credentials.check_enrolment(link.bearer)
    moved = there("re-enroll", "client-a", "--public-url", "https://gkt.example.org")
    assert read_join_link(moved["join"]).url == "https://gkt.example.org"
    for words, expected in (
        (("release", "client-a"), "client-a is not"),
        (("rotate", "client-b"), "has no secret"),
        (("re-enroll", "client-b", "--public-url", "https://x"), "was revoked, for good"),
        (("revoke", "nobody"), "no device 'nobody'"),
    ):
        for command in (there, here):
            with pytest.raises(InputError, match=expected):
                command(*words)


def test_who_is_not_its_operator(remote: tuple[str, Command], secret: Path) -> None:
    _, there = remote
    secret.write_text(new_secret())
    with pytest.raises(AuthenticationError, match="missing or wrong"):
        there("list")
    secret.write_text("short")
    with pytest.raises(InputError, match="holds no operator's secret"):
        there("list")
    secret.unlink()
    with pytest.raises(InputError, match="cannot read the operator's secret"):
        there("list")


def test_whom_to_trust(remote: tuple[str, Command], secret: Path) -> None:
    url, _ = remote
    with pytest.raises(ServerUnavailableError, match=r"CERTIFICATE_VERIFY_FAILED.*--ca-file"):
        invoke("list", "--server", url, "--operator-secret-file", secret)
    with pytest.raises(ConfigError, match="expected certificates"):
        invoke("list", "--server", url, "--operator-secret-file", secret, "--ca-file", secret)


def test_the_secret_goes_nowhere_else(secret: Path) -> None:
    seen: list[str] = []

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with answering(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)) as port:
        there = ("--server", f"http://127.0.0.1:{port}", "--operator-secret-file", secret)
        with pytest.raises(ProtocolError, match="answered 302, and not as a server of gkt does"):
            invoke("list", *there)
    assert seen == ["/v1/runs"]
    with pytest.raises(ServerUnavailableError, match="does not answer"):
        invoke("list", *there)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "give --data-dir, or --server"),
        (("--data-dir", "run", "--server", "https://x"), "one of the two"),
        (("--server", "https://x"), "belong together"),
        (("--data-dir", "run", "--operator-secret-file", "x"), "belong together"),
        (("--data-dir", "run", "--ca-file", "x"), "--ca-file is for --server"),
        (("--server", "x", "--operator-secret-file", "x"), "--server is 'x', expected one such as https"),
        (
            ("--server", "http://gkt.example.org", "--operator-secret-file", "x"),
            "would show the operator's secret",
        ),
    ],
)
def test_what_does_not_go_together(words: tuple[str, ...], expected: str) -> None:
    with pytest.raises(GKTError, match=expected) as refused:
        invoke("list", *words)
    assert refused.value.exit_code == 2

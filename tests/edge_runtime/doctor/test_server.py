"""A server as a device sees it, each way of being wrong over real sockets."""

from __future__ import annotations

import dataclasses
import datetime
import email.utils
import http.server
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.doctor.server import judged_clock, run, server
from edge_runtime.state.credential import KeptCredential, keep_credential
from gkt_core.bundle import machine_memory
from gkt_core.doctor.findings import ADVICE, FINE, WRONG
from gkt_core.errors import AuthenticationError, ConfigError, ServerUnavailableError, UnsafeModelError
from gkt_core.wire.join_link import JoinLink
from server_app import RunContext, create_app, create_run
from server_app.members.inviting import serve_link
from server_app.own_certificate import own_certificate
from server_app.rounds.state import Failed
from tests.conftest import free_port
from tests.edge_runtime.certificates import make_certificate
from tests.edge_runtime.in_thread import answering
from tests.gkt_core.doctor.looking import looked, states, the_one
from tests.server_app.server_fixtures import run_config
from tests.server_app.web.test_web_server import serving

pytest_plugins = ["tests.server_app.server_fixtures"]


@pytest.fixture
def served_run(server_bundle: Path, tmp_path: Path) -> Iterator[RunContext]:
    made = create_run(tmp_path / "run", server_bundle, run_config())
    yield made
    made.store.close()


@pytest.fixture
def url(served_run: RunContext) -> Iterator[str]:
    with serving(create_app(served_run)) as port:
        yield f"http://127.0.0.1:{port}"


def link_to(served: RunContext, url: str, authority: bytes = b"") -> JoinLink:
    return serve_link(served, url, authority)


def test_a_server_that_is_fine(served_run: RunContext, url: str, tmp_path: Path) -> None:
    answers, its_clock = looked(server, server=url)
    assert answers.text == f"{url} answers, and its run can go on"
    assert its_clock.text == "its clock and this one agree"
    link = link_to(served_run, url).text()
    assert states(looked(server, join=link)) == states(looked(run, join=link)) == [FINE, FINE]
    # Nothing of the link is used up.
    assert served_run.store.credentials.devices() == {}
    keep_credential(tmp_path, KeptCredential(url, "1" * 16, "s" * 43, "0" * 64))
    assert states(looked(server, state_dir=tmp_path)) == [FINE, FINE]
    assert looked(server) == looked(run) == []


def test_a_run_that_has_failed(served_run: RunContext, url: str) -> None:
    served_run.store.apply(Failed("the loss is NaN"))
    said = the_one(looked(server, server=url), WRONG)
    assert said.text == f"{url} answers, and its run cannot go on: the run has failed"


def test_nobody_answers() -> None:
    with pytest.raises(ServerUnavailableError, match=r"does not answer .*refused.*is gkt serve running"):
        looked(server, server=f"http://127.0.0.1:{free_port()}")


def test_something_else_answers() -> None:
    class Portal(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>please log in</html>")

    with answering(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Portal)) as port:
        said = the_one(looked(server, server=f"http://127.0.0.1:{port}"), WRONG)
        assert "not as a server of gkt does" in said.text


@pytest.mark.parametrize(("seconds", "words"), [(7200, "behind"), (-7200, "ahead of")])
def test_clocks_that_differ(seconds: int, words: str) -> None:
    now = time.time()
    said = the_one(judged_clock(email.utils.formatdate(now + seconds, usegmt=True), now), WRONG)
    assert words in said.text
    assert not list(judged_clock(None, now))


def test_a_server_of_another_time() -> None:
    class Server(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(time.time() - 90_000)

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"status": "ok"}')

    with answering(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)) as port:
        said = the_one(looked(server, server=f"http://127.0.0.1:{port}"), WRONG)
        assert said.text.startswith("this clock is 9000") and "ahead of the server's" in said.text


def test_certificates_of_all_kinds(served_run: RunContext, tmp_path: Path) -> None:
    day = datetime.timedelta(days=1)
    soon = make_certificate(tmp_path / "soon", "127.0.0.1", ends_in=3 * day)
    with serving(create_app(served_run), tls=(soon.certificate, soon.key)) as port:
        url = f"https://127.0.0.1:{port}"
        said = the_one(looked(server, server=url, ca_file=soon.certificate), ADVICE)
        assert said.text.startswith(f"the certificate of {url} holds for ")
        # Nobody that this machine knows has signed it.
        unknown = the_one(looked(server, server=url), WRONG)
        assert "self" in unknown.text and "--ca-file" in unknown.remedy
        with pytest.raises(ConfigError, match="holds no certificates"):
            looked(server, server=url, ca_file=soon.key)
    ended = make_certificate(tmp_path / "ended", "127.0.0.1", begins_in=-3 * day, ends_in=-day)
    with serving(create_app(served_run), tls=(ended.certificate, ended.key)) as port:
        said = the_one(looked(server, server=f"https://127.0.0.1:{port}", ca_file=ended.certificate), WRONG)
        assert "expired" in said.text and "clock" in said.remedy
    other = make_certificate(tmp_path / "other", "gkt.example.org")
    with serving(create_app(served_run), tls=(other.certificate, other.key)) as port:
        said = the_one(looked(server, server=f"https://127.0.0.1:{port}", ca_file=other.certificate), WRONG)
        assert "use the name that stands in the certificate" in said.remedy


def test_a_server_that_is_not_the_links(served_run: RunContext, tmp_path: Path) -> None:
    own = own_certificate(served_run.folder, ["127.0.0.1"])
    with serving(create_app(served_run, authority=own.authority), tls=own.files) as port:
        link = link_to(served_run, f"https://127.0.0.1:{port}", own.authority)
        assert states(looked(server, join=link.text())) == [FINE, FINE, FINE]
        assert states(looked(run, join=link.text())) == [FINE, FINE]
        for check in (server, run):
            with pytest.raises(AuthenticationError, match="is not the server of the link"):
                looked(check, join=dataclasses.replace(link, ca_sha256="0" * 64).text())
        with pytest.raises(UnsafeModelError):
            looked(run, join=dataclasses.replace(link, bundle_sha256="0" * 64).text())
        with pytest.raises(AuthenticationError):
            looked(run, join=dataclasses.replace(link, secret="x" * 43).text())


def test_a_run_that_takes_more_memory_than_is_free(
    served_run: RunContext, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("_CONTAINER_LIMIT", "900000000"), ("_CONTAINER_TAKEN", "890000000")):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(machine_memory, name, tmp_path / name)
    said = the_one(looked(run, join=link_to(served_run, url).text()), WRONG)
    assert "with batches of 4, 10 are free" in said.text


def test_a_link_that_is_cut_short() -> None:
    with pytest.raises(ConfigError, match="copy the whole link"):
        looked(server, join="gkt+https://host:1/#enroll=1")

"""What a device says of a certificate that it does not trust: why, and what mends that."""

from __future__ import annotations

import contextlib
import datetime
import functools
import time
from pathlib import Path

import pytest

from edge_runtime.cli.connecting import connect
from edge_runtime.cli.options import ConnectionOptions
from edge_runtime.server_client import ServerClient
from gkt_core.errors import ServerUnavailableError
from tests.edge_runtime.certificates import make_certificate, one_run

DAY = datetime.timedelta(days=1)
NEVER = ("--ca-file", "has expired", "not valid yet", "another name", "clock says")


def refusal(url: str, ca_file: Path | None) -> str:
    server = ServerClient(url, "token", ca_file=ca_file, patience_seconds=0)
    with contextlib.closing(server), pytest.raises(ServerUnavailableError) as caught:
        server.run_info()
    return str(caught.value)


def only(words: str, *expected: str) -> None:
    """Each remedy is for its own case."""
    for each in (*NEVER, *expected):
        assert (each in words) == (each in expected), words


def test_an_unknown_authority(tmp_path: Path) -> None:
    made = make_certificate(tmp_path, "127.0.0.1")
    other = make_certificate(tmp_path / "other", "127.0.0.1")
    with one_run(made) as port:
        only(refusal(f"https://127.0.0.1:{port}", None), "--ca-file", "no authority that this device knows")
        only(refusal(f"https://127.0.0.1:{port}", other.certificate), "--ca-file")


@pytest.mark.parametrize("names", [("10.0.0.7",), ("server.example",)])
def test_a_wrong_name(tmp_path: Path, names: tuple[str, ...]) -> None:
    made = make_certificate(tmp_path, *names)
    with one_run(made) as port:
        for host in ("127.0.0.1", "localhost"):
            only(refusal(f"https://{host}:{port}", made.certificate), "another name", "a captive portal")


def test_an_expired_one(tmp_path: Path) -> None:
    made = make_certificate(tmp_path, "127.0.0.1", begins_in=-9 * DAY, ends_in=-DAY)
    with one_run(made) as port:
        words = refusal(f"https://127.0.0.1:{port}", made.certificate)
    only(words, "has expired", "clock says", f"{datetime.datetime.now(datetime.UTC):%Y-}", "renew it")


def test_one_that_is_not_valid_yet(tmp_path: Path) -> None:
    made = make_certificate(tmp_path, "127.0.0.1", begins_in=DAY, ends_in=2 * DAY)
    with one_run(made) as port:
        words = refusal(f"https://127.0.0.1:{port}", made.certificate)
    only(words, "not valid yet", "clock says", "one of both is wrong")


def test_a_clock_in_1970(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate of the future is to OpenSSL what any is to a board that has just been switched on."""
    made = make_certificate(tmp_path, "127.0.0.1", begins_in=DAY, ends_in=2 * DAY)
    booted = time.monotonic()
    with one_run(made) as port, monkeypatch.context() as patch:
        patch.setattr("edge_runtime.connection.failures.time.time", lambda: time.monotonic() - booted)
        words = refusal(f"https://127.0.0.1:{port}", made.certificate)
    only(words, "clock says", "this device's clock says 1970-01-01 00:00 UTC: set it")


def test_a_clock_in_1970_is_told_over_plain_http_too(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    connect_as_a_device = functools.partial(
        connect, "http://127.0.0.1:9", "a.secret", ConnectionOptions(), patience_seconds=0.0, note=said.append
    )
    connect_as_a_device().close()
    assert said == []
    booted = time.monotonic()
    monkeypatch.setattr("edge_runtime.connection.failures.time.time", lambda: time.monotonic() - booted)
    connect_as_a_device().close()
    (line,) = said
    assert line.startswith("WARNING: this device's clock says 1970-01-01 00:00 UTC: set it (timedatectl")


def test_http_where_https_was_asked_for() -> None:
    with one_run() as port:
        only(refusal(f"https://127.0.0.1:{port}", None), "or only http?")


def test_the_authority_that_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_certificate(tmp_path, "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(made.certificate))
    with one_run(made) as port:
        server = ServerClient(f"https://127.0.0.1:{port}", "token", patience_seconds=0)
        with contextlib.closing(server):
            assert server.run_info().run_id == "run-7"

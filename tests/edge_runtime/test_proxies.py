"""Proxies: which one is taken, that everything goes through it, and that its password stays where it is."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from edge_runtime.connection.proxies import choose_proxy
from edge_runtime.server_client import ServerClient
from gkt_core.data.private_data import save_private_data
from gkt_core.errors import ConfigError, MissingExtraError, ServerUnavailableError
from tests.conftest import Gkt, free_port
from tests.edge_runtime.certificates import make_certificate, one_run
from tests.edge_runtime.device_fixtures import Served
from tests.edge_runtime.forward_proxy import ForwardProxy
from tests.server_app.server_fixtures import TOKEN, private_data

pytest_plugins = ["tests.server_app.server_fixtures"]

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
PASSWORD = "s3cret-of-the-proxy"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


# --- which one is taken


@pytest.mark.parametrize(
    ("environment", "server", "expected"),
    [
        ({}, "http://server", ""),
        ({"HTTP_PROXY": "http://proxy:3128"}, "http://server", "http://proxy:3128 of HTTP_PROXY"),
        ({"http_proxy": "http://proxy:3128"}, "http://server", "http://proxy:3128 of HTTP_PROXY"),
        ({"HTTP_PROXY": "proxy:3128"}, "http://server", "http://proxy:3128 of HTTP_PROXY"),
        ({"HTTP_PROXY": "http://proxy:3128"}, "https://server", ""),
        ({"HTTPS_PROXY": "http://proxy"}, "https://server:8080", "http://proxy of HTTPS_PROXY"),
        ({"HTTPS_PROXY": "https://[fd00::1]:1"}, "https://server", "https://[fd00::1]:1 of HTTPS_PROXY"),
        ({"ALL_PROXY": "http://all:1"}, "https://server", "http://all:1 of ALL_PROXY"),
        ({"ALL_PROXY": "http://a", "HTTP_PROXY": "http://one"}, "http://server", "http://one of HTTP_PROXY"),
        ({"HTTP_PROXY": ""}, "http://server", ""),
        ({"HTTP_PROXY": "http://name:s3cret@proxy:1"}, "http://server", "http://proxy:1 of HTTP_PROXY"),
        # This machine is never meant.
        ({"HTTP_PROXY": "http://proxy"}, "http://localhost:8080", ""),
        ({"HTTP_PROXY": "http://proxy"}, "http://gkt.localhost", ""),
        ({"HTTP_PROXY": "http://proxy"}, "http://127.0.0.7", ""),
        ({"HTTP_PROXY": "http://proxy"}, "http://[::1]:8080", ""),
    ],
)  # fmt: skip
def test_the_environment_names_a_proxy(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], server: str, expected: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    chosen = choose_proxy(httpx.URL(server))
    assert chosen.name == expected
    assert (chosen.proxy is None) == (expected == "")
    assert choose_proxy(httpx.URL(server), is_off=True).name == ""
    # One that was given stands above all, for this machine too.
    assert choose_proxy(httpx.URL(server), "http://mine:1").name == "http://mine:1 of --proxy"


@pytest.mark.parametrize(
    ("no_proxy", "server", "is_named"),
    [
        ("*", "http://server", True),
        ("other,server", "http://server", True),
        (" other , SERVER ", "http://server:8080", True),
        ("ver", "http://server", False),
        ("example.org", "http://gkt.example.org", True),
        (".example.org", "http://gkt.example.org", True),
        ("*.example.org", "http://gkt.example.org", True),
        ("example.org", "http://anexample.org", False),
        ("server:8080", "http://server:8080", True),
        ("server:8080", "http://server:8081", False),
        ("server:80", "http://server", True),
        ("10.0.0.5", "http://10.0.0.5:8080", True),
        ("10.0.0.0/8", "http://10.1.2.3", True),
        ("10.0.0.0/8", "http://11.1.2.3", False),
        ("10.0.0.5:8080", "http://10.0.0.5:8080", True),
        ("fd00::/8", "http://[fd00::1]", True),
        ("[fd00::1]", "http://[fd00::1]", True),
        ("[fd00::1]:8080", "http://[fd00::1]:8080", True),
        ("", "http://server", False),
        (",", "http://server", False),
    ],
)
def test_no_proxy_names_servers(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str, server: str, is_named: bool
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (choose_proxy(httpx.URL(server)).proxy is None) == is_named


@pytest.mark.parametrize(
    "url",
    [
        f"http://name:{PASSWORD}@",
        f"ftp://name:{PASSWORD}@proxy",
        f"http://name:{PASSWORD}@proxy:99999",
        f"http://name:{PASSWORD}/x@proxy:port",
        f"name:{PASSWORD}",
        "",
    ],
)
def test_a_proxy_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with pytest.raises(ConfigError, match="the proxy of --proxy cannot be used") as caught:
        ServerClient("http://server", "the-token", proxy=url)
    assert PASSWORD not in str(caught.value)


def test_a_proxy_and_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="expected one of them"):
        ServerClient("http://server", "the-token", proxy="http://proxy", no_proxy=True)


def test_a_socks_proxy_needs_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'httpx\[socks\]'"):
        ServerClient("http://server", "the-token", proxy="socks5://proxy")


def test_a_server_url_holds_no_password() -> None:
    with pytest.raises(ConfigError, match="holds a user name") as caught:
        ServerClient(f"http://name:{PASSWORD}@server", "the-token")
    assert PASSWORD not in str(caught.value)


# --- what goes through


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        yield caplog


def run_of(url: str, lines: list[str], **options: object) -> str:
    server = ServerClient(url, TOKEN, patience_seconds=0, on_retry=lines.append, **options)  # type: ignore[arg-type] # as given
    with contextlib.closing(server):
        return server.run_info().run_id


def test_http_through_a_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with one_run() as port:
        proxy = ForwardProxy(port)
        with proxy.listening() as address:
            monkeypatch.setenv("HTTP_PROXY", f"http://{address}")
            # No such host: nobody but the proxy could have led there.
            assert run_of("http://server.invalid:8080", []) == "run-7"
            assert run_of(f"http://127.0.0.1:{port}", []) == "run-7"
            assert proxy.asked == [
                "GET http://server.invalid:8080/v1/runs",
                "GET http://server.invalid:8080/v1/runs/run-7",
            ]
            assert run_of(f"http://127.0.0.1:{port}", [], proxy=f"http://{address}") == "run-7"
            assert len(proxy.asked) == 4
            with pytest.raises(ServerUnavailableError, match="did not answer for"):
                run_of("http://server.invalid:8080", [], no_proxy=True)


def test_https_through_a_tunnel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = make_certificate(tmp_path, "server.invalid")
    with one_run(made) as port:
        proxy = ForwardProxy(port)
        with proxy.listening() as address:
            monkeypatch.setenv("HTTPS_PROXY", f"http://{address}")
            assert run_of("https://server.invalid", [], ca_file=made.certificate) == "run-7"
            assert proxy.asked == ["CONNECT server.invalid:443"]
            # A tunnel hides nothing: the certificate is still looked at.
            with pytest.raises(ServerUnavailableError, match=r"CERTIFICATE_VERIFY_FAILED.*--ca-file"):
                run_of("https://server.invalid", [])


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_a_password(
    tmp_path: Path, everything_logged: pytest.LogCaptureFixture, scheme: str
) -> None:
    made = make_certificate(tmp_path, "server.invalid")
    trusted = {"ca_file": made.certificate} if scheme == "https" else {}
    url, lines = f"{scheme}://server.invalid", list[str]()
    with one_run(made if scheme == "https" else None) as port:
        proxy = ForwardProxy(port, f"name:{PASSWORD}")
        with proxy.listening() as address:
            given = f"http://name:{PASSWORD}@{address}"
            assert run_of(url, lines, proxy=given, **trusted) == "run-7"
            for wrong in (f"http://{address}", f"http://name:{PASSWORD}x@{address}"):
                with pytest.raises(
                    ServerUnavailableError, match="wants a user name and a password"
                ) as caught:
                    run_of(url, lines, proxy=wrong, **trusted)
                assert f"through the proxy http://{address} of --proxy" in str(caught.value)
                lines.append(str(caught.value))
    assert "127.0.0.1" in everything_logged.text
    assert PASSWORD not in everything_logged.text + "".join(lines)


def test_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(
        ServerUnavailableError, match=r"through the proxy http://127\.0\.0\.1:.* of HTTP_PROXY"
    ):
        run_of("http://server.invalid", [])


def test_the_command_goes_through_the_proxy(
    server_bundle: Path, gkt: Gkt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    save_private_data(tmp_path / "client-a.npz", private_data(1))
    command = [
        "edge",
        "run",
        "--server",
        "http://server.invalid:8080",
        "--token",
        TOKEN,
        "--dry-run",
        "--json",
    ]
    command += ["--data", str(tmp_path / "client-a.npz"), "--patience-seconds", "0"]
    with Served(server_bundle, tmp_path / "run").listening() as served:
        proxy = ForwardProxy(int(served.url.rpartition(":")[2]), f"name:{PASSWORD}")
        with proxy.listening() as address:
            monkeypatch.setenv("HTTP_PROXY", f"http://name:{PASSWORD}@{address}")
            done = gkt(*command)
            assert done.returncode == 0, done.stderr
            assert f"goes through the proxy http://{address} of HTTP_PROXY" in done.stderr
            assert any("/artifacts/" in request for request in proxy.asked)
            asked = len(proxy.asked)
            refused = gkt(*command, "--no-proxy")
            assert refused.returncode == 4 and len(proxy.asked) == asked, refused.stderr
            monkeypatch.setenv("NO_PROXY", "server.invalid")
            assert gkt(*command).returncode == 4 and len(proxy.asked) == asked
            given = gkt(*command, "--proxy", os.environ["HTTP_PROXY"])
            assert given.returncode == 0 and len(proxy.asked) == 2 * asked, given.stderr
    for process in (done, refused, given):
        assert PASSWORD not in process.stdout + process.stderr

"""A link of some kilobytes a second that breaks: what has arrived stays, and what moves is not cut off."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from edge_runtime.connection import downloads
from edge_runtime.server_client import ServerClient
from gkt_core.errors import ServerUnavailableError
from gkt_core.wire.protocol import JoinRequest
from gkt_core.wire.shards import ShardKey
from server_app import RunContext, create_app, create_run
from server_app.serving import bind
from server_app.web.gunicorn_server import WebServer
from tests.conftest import LONGEST_SECONDS
from tests.edge_runtime.slow_link import SlowLink
from tests.server_app.server_fixtures import NUM_CLASSES, TOKEN, run_config, shard_bytes

pytest_plugins = ["tests.server_app.server_fixtures"]

NAME = "train_step.onnx"


@pytest.fixture
def changes() -> dict[str, Any]:
    """Of the run's settings."""
    return {}


@pytest.fixture
def run(server_bundle: Path, tmp_path: Path, changes: dict[str, Any]) -> Iterator[RunContext]:
    run = create_run(tmp_path / "run", server_bundle, run_config(num_clients=1, **changes), TOKEN)
    with contextlib.closing(run.store):
        yield run


@pytest.fixture
def port(run: RunContext) -> Iterator[int]:
    """The server as ``gkt serve`` has it."""
    listener = bind("127.0.0.1", 0)
    server = WebServer(create_app(run, TOKEN), listener)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.stop()
        thread.join()


@contextlib.contextmanager
def device(
    url: str,
    lines: list[str],
    *,
    patience_seconds: float = LONGEST_SECONDS,
    stall_seconds: float = LONGEST_SECONDS,
) -> Iterator[ServerClient]:
    server = ServerClient(
        url,
        TOKEN,
        on_retry=lines.append,
        sleep=lambda seconds: None,
        patience_seconds=patience_seconds,
        stall_seconds=stall_seconds,
    )
    with contextlib.closing(server):
        server.run_info()
        yield server


def test_a_download_goes_on_where_the_link_broke(run: RunContext, port: int) -> None:
    whole = run.bundle.file(NAME).read_bytes()
    link, lines = SlowLink(port), list[str]()
    with link.listening() as url, device(url, lines) as server:
        before, link.breaks_after = server.download_bytes, len(whole) // 5
        assert server.artifact(NAME) == whole
        assert server.download_bytes - before == len(whole), "no byte came twice"
        assert link.num_connections > 4 and lines


def test_patience_begins_anew_with_what_arrives(run: RunContext, port: int) -> None:
    whole = run.bundle.file(NAME).read_bytes()
    link = SlowLink(port)
    with link.listening() as url, device(url, [], patience_seconds=1.0) as server:
        # The wait after a first break is at most a quarter of a second; five of them are more than patience.
        link.breaks_after = len(whole) // 20
        assert server.artifact(NAME) == whole


def test_what_moves_is_not_cut_off_and_what_stalls_is(
    run: RunContext, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transfer of several times the stall's seconds; then one that stands still in the middle."""
    whole, lines = run.bundle.file(NAME).read_bytes(), list[str]()
    monkeypatch.setattr(downloads, "_SECONDS_BETWEEN_LINES", 0.2)
    slow = SlowLink(port)
    with slow.listening() as url, device(url, lines, stall_seconds=1.0) as server:
        slow.bytes_per_second = len(whole) / 3
        assert server.artifact(NAME) == whole
    assert slow.num_connections == 1
    assert all(f"of {len(whole):,} bytes" in line for line in lines) and len(lines) > 3
    stalling, lines = SlowLink(port), []
    with stalling.listening() as url, device(url, lines, stall_seconds=1.0) as server:
        stalling.stalls_after = stalling.passed + len(whole) // 2
        before = server.download_bytes
        assert server.artifact(NAME) == whole
        assert server.download_bytes - before == len(whole)
    # On a machine that does other things, an answer may have been late before.
    assert stalling.num_connections >= 2 and any("ReadTimeout" in line for line in lines)


@pytest.mark.parametrize("changes", [{"codec": "fp32", "shard_samples": 1000}])
def test_a_slow_upload_is_not_cut_off(run: RunContext, port: int) -> None:
    """Most of a large shard must not lie in the kernel's buffer, where it looks like sent."""
    key = ShardKey("client-a", 1, "train", 0)
    data = shard_bytes(key, 1000, codec="fp32")
    slow = SlowLink(port)
    with slow.listening() as url, device(url, [], stall_seconds=2.5) as server:
        server.join("client-a", JoinRequest(1, 1000, 1, NUM_CLASSES, "none"))
        slow.bytes_per_second = len(data) / 4
        assert server.put_shard(key, data, compressed=False).num_samples == 1000
    assert slow.num_connections == 1 and slow.sent > len(data)


# --- what the server says of parts


def test_the_server_gives_the_rest_of_a_file(run: RunContext, port: int) -> None:
    whole = run.bundle.file(NAME).read_bytes()
    path = f"/v1/runs/{run.store.run_id}/artifacts/{NAME}"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False) as http:
        tag = http.get(path).headers["ETag"]
        rest = http.get(path, headers={"Range": "bytes=1000-", "If-Range": tag})
        assert (rest.status_code, rest.content) == (206, whole[1000:])
        assert rest.headers["Content-Range"] == f"bytes 1000-{len(whole) - 1}/{len(whole)}"
        assert rest.headers["X-Content-SHA256"] == tag.strip('"')
        # Of another file there is no rest.
        other = http.get(path, headers={"Range": "bytes=1000-", "If-Range": '"another"'})
        assert (other.status_code, other.content) == (200, whole)
        assert http.get(path, headers={"Range": f"bytes={len(whole)}-"}).status_code == 416


# --- what something between may do to parts


def test_a_part_that_was_not_asked_for() -> None:
    """A cache answers with the part of another request, or takes no notice of what was asked."""
    whole = np.random.default_rng(0).bytes(1000)
    sha256 = hashlib.sha256(whole).hexdigest()
    kinds = {"Content-Type": "application/octet-stream", "X-Content-SHA256": sha256}

    def cut() -> Iterator[bytes]:
        yield whole[:400]
        raise httpx.ReadError("the link broke")

    wrong = httpx.Response(206, headers={**kinds, "Content-Range": "bytes 0-299/1000"}, content=whole[:300])
    answers = iter(
        [
            httpx.Response(200, headers=kinds, content=cut()),
            wrong,
            httpx.Response(200, headers=kinds, content=cut()),
            httpx.Response(
                206, headers={**kinds, "Content-Range": "bytes 400-999/1000"}, content=whole[400:]
            ),
        ]
    )
    asked: list[str | None] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("Range"))
        given = next(answers)
        # A new one: what was given its content has been read already.
        return httpx.Response(given.status_code, headers=given.headers, stream=given.stream)

    transport = httpx.MockTransport(handle)
    server = ServerClient("http://server", TOKEN, transport=transport, sleep=lambda seconds: None)
    with contextlib.closing(server):
        assert server.soft_labels("client-a", 1) == whole
    assert asked == [None, "bytes=400-", None, "bytes=400-"]


class _BreaksOff(http.server.BaseHTTPRequestHandler):
    """Answers with the whole file however much is asked for, and closes before its end."""

    protocol_version = "HTTP/1.1"
    whole = np.random.default_rng(0).bytes(300_000)
    breaks_after: Callable[[int], int]
    num_tries = 0

    def do_GET(self) -> None:
        kind = type(self)
        kind.num_tries += 1
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("X-Content-SHA256", hashlib.sha256(self.whole).hexdigest())
        self.send_header("Content-Length", str(len(self.whole)))
        self.end_headers()
        # So that what is wrong with the device ends as well.
        last = len(self.whole) if kind.num_tries > 500 else kind.breaks_after(kind.num_tries)
        self.wfile.write(self.whole[:last])
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("keeps", [False, True], ids=["in memory", "kept"])
@pytest.mark.parametrize(
    ("breaks_after", "most_tries", "words"),
    [
        (lambda number: 299_995, 20, "did not answer|bytes came"),
        # A little further each time: a step, and yet all of it together is bounded.
        (lambda number: 2000 * number, 100, "bytes came of a file that has 300,000 at most"),
    ],
    ids=["five bytes before its end", "further each time"],
)
def test_a_download_that_never_ends_is_given_up(
    tmp_path: Path, breaks_after: Callable[[int], int], most_tries: int, words: str, keeps: bool
) -> None:
    handler = type("Handler", (_BreaksOff,), {"breaks_after": staticmethod(breaks_after)})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as hostile:
        thread = threading.Thread(target=hostile.serve_forever, args=(0.05,))
        thread.start()
        try:
            url = f"http://127.0.0.1:{hostile.server_address[1]}"
            server = ServerClient(url, TOKEN, sleep=lambda seconds: None, patience_seconds=60)
            server.part_folder = tmp_path if keeps else None
            with contextlib.closing(server), pytest.raises(ServerUnavailableError, match=words):
                server.model_template(most_bytes=300_000)
        finally:
            hostile.shutdown()
            thread.join()
    assert 1 < vars(handler)["num_tries"] < most_tries

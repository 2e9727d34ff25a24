"""Whatever a proxy, a CDN or a captive portal answers in a server's place, a run ends as if it had not."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from werkzeug.serving import make_server

from edge_runtime.device import Device
from edge_runtime.server_client import ServerClient
from edge_runtime.state.state_dir import StateDir
from gkt_core.data.private_data import load_private_data, save_private_data
from gkt_core.wire import paths
from server_app import RunContext, create_app, create_run, open_run
from server_app.run_folder import SERVER_WEIGHTS_BLOB
from server_app.trainer import trainer
from tests.conftest import LONGEST_SECONDS, Gkt
from tests.edge_runtime.device_fixtures import Silent, copy_run
from tests.edge_runtime.relay import KINDS, Relay
from tests.server_app.server_fixtures import TOKEN, private_data, run_config

pytest_plugins = ["tests.server_app.server_fixtures"]

# Every request that a device sends from its first to its last.
REQUESTS = {
    "runs": f"GET {paths.RUNS}",
    "run": f"GET {paths.RUN}",
    "artifact": f"GET {paths.RUN}{paths.ARTIFACT}",
    "join": f"PUT {paths.RUN}{paths.CLIENT}",
    "task": f"GET {paths.RUN}{paths.TASK}",
    "missing": f"GET {paths.RUN}{paths.SHARDS}",
    "shard": f"PUT {paths.RUN}{paths.SHARD}",
    "report": f"PUT {paths.RUN}{paths.REPORT}",
    "soft labels": f"GET {paths.RUN}{paths.SOFT_LABELS}",
    "model": f"GET {paths.RUN}{paths.MODEL}",
}
# Each run hits a few of them.
HIT = [("runs", "run", "artifact", "join"), ("task", "missing", "shard"), ("report", "soft labels", "model")]
PATTERNS = {name: paths.matcher(path) for name, path in REQUESTS.items()}


def name_of(request: str) -> str:
    (name,) = [name for name, pattern in PATTERNS.items() if pattern.fullmatch(request)]
    return name


class OddAnswers:
    """Answers each request so often, one kind after the other, before it lets it pass."""

    def __init__(self, kinds: list[str], hit: list[str]) -> None:
        self._left = {name: list(kinds) for name in hit}
        self._lock = threading.Lock()
        self.passed: Counter[str] = Counter()

    def __call__(self, request: str) -> str | None:
        name = name_of(request)
        with self._lock:
            if self._left.get(name):
                return self._left[name].pop(0)
            self.passed[name] += 1
            return None


@contextlib.contextmanager
def served(run: RunContext, odd: OddAnswers) -> Iterator[tuple[str, Relay]]:
    """A run of one device with its trainer, behind the relay; the run is finished at the end."""
    server = make_server("127.0.0.1", 0, create_app(run, TOKEN, poll_seconds=0.02), threaded=True)
    threads = [
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}),
        threading.Thread(target=trainer.Trainer(run).run_until_done, daemon=True),
    ]
    for thread in threads:
        thread.start()
    relay = Relay(server.server_port, odd)
    try:
        with relay.listening() as url:
            yield url, relay
        threads[1].join(LONGEST_SECONDS)
    finally:
        server.shutdown()
        threads[0].join()
        server.server_close()


def take_part(url: str, data: Path, state: Path, lines: list[str]) -> bytes:
    """Take part as a device does, and give its model; waits are short, and as many as they like."""
    ends_at = time.monotonic() + LONGEST_SECONDS

    def wait(seconds: float) -> None:
        assert time.monotonic() < ends_at, "the trainer does not go on"
        time.sleep(0.01)

    server = ServerClient(
        url,
        TOKEN,
        patience_seconds=LONGEST_SECONDS,
        on_retry=lines.append,
        sleep=lambda seconds: time.sleep(0.001),
    )
    with contextlib.closing(server), contextlib.closing(StateDir(state)) as folder:
        Device(
            server,
            load_private_data(data),
            folder,
            client_id="client-a",
            num_threads=1,
            listener=Silent(),
            sleep=wait,
        ).run()
    return (state / "model.onnx").read_bytes()


@pytest.fixture(scope="module")
def folder(server_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody joined, and the file of its device."""
    folder = tmp_path_factory.mktemp("odd")
    create_run(folder / "empty", server_bundle, run_config(num_clients=1), TOKEN).store.close()
    save_private_data(folder / "client-a.npz", private_data(1))
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> tuple[bytes, bytes]:
    """Models of device and server of the run without anything between."""
    lines: list[str] = []
    models, odd = run_through(folder, "undisturbed", [], [], lines)
    assert lines == [] and set(odd.passed) == set(REQUESTS)
    return models


def run_through(
    folder: Path, name: str, kinds: list[str], hit: list[str], lines: list[str]
) -> tuple[tuple[bytes, bytes], OddAnswers]:
    run = open_run(copy_run(folder / "empty", folder / name))
    odd = OddAnswers(kinds, hit)
    with contextlib.closing(run.store):
        with served(run, odd) as (url, relay):
            model = take_part(url, folder / "client-a.npz", folder / f"{name}-state", lines)
        answered = [(name_of(request), kind) for request, kind in relay.answered]
        assert sorted(answered) == sorted((request, kind) for request in hit for kind in kinds)
        return (model, run.blobs.local_path(SERVER_WEIGHTS_BLOB).read_bytes()), odd


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "_POLL_SECONDS", 0.005)


@pytest.mark.system
@pytest.mark.parametrize("hit", HIT, ids=lambda hit: hit[0])
def test_every_odd_answer_to_every_request(
    folder: Path, undisturbed: tuple[bytes, bytes], hit: tuple[str, ...]
) -> None:
    lines: list[str] = []
    models, _ = run_through(folder, hit[0], list(KINDS), list(hit), lines)
    assert models == undisturbed
    for status in (522, 404, 403, 411):
        assert sum(f"status {status}" in line for line in lines) == len(hit), lines
    assert any("captive portal" in line for line in lines)


@pytest.mark.system
@pytest.mark.parametrize("kind", ["522", "portal"])
def test_a_device_says_once_what_it_may_be(
    folder: Path, undisturbed: tuple[bytes, bytes], gkt: Gkt, tmp_path: Path, kind: str
) -> None:
    """The command itself: a shard's upload and a task are answered three times by something between."""
    run = open_run(copy_run(folder / "empty", tmp_path / "run"))
    with (
        contextlib.closing(run.store),
        served(run, OddAnswers([kind] * 3, ["shard", "task"])) as (url, relay),
    ):
        done = gkt(
            "edge", "run", "--server", url, "--token", TOKEN, "--data", folder / "client-a.npz",
            "--client-id", "client-a", "--state-dir", tmp_path / "state", "--progress", "json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert len(relay.answered) == 6
    assert (tmp_path / "state" / "model.onnx").read_bytes() == undisturbed[0]
    hint = {"522": "a CDN does not reach the server", "portal": "a captive portal"}[kind]
    assert done.stderr.count(hint) == 2

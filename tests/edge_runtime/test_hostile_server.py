"""A server that means harm gets nothing that was not agreed to, over real sockets and with both engines."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gkt_core.bundle.manifest import Bundle, manifest_sha256
from gkt_core.data.private_data import save_private_data
from gkt_core.errors import UnsafeModelError
from gkt_core.wire.protocol import Task
from tests.conftest import LONGEST_SECONDS
from tests.edge_runtime.hostile import (
    FEATURE_FILES,
    changed_bundle,
    concatenated,
    copied_by_convolution,
    external_data,
)
from tests.edge_runtime.hostile_cases import (
    BODIES,
    MODELS,
    RUN_IDS,
    TASKS,
    TEXT,
    WORK,
    asked_without_end,
    bad_model,
    instead,
    loses_a_shard,
    other_model,
    other_run_id,
    other_work,
    says,
    straight,
    task,
    trickled,
)
from tests.edge_runtime.hostile_fixtures import honest, template
from tests.edge_runtime.hostile_server import (
    Answer,
    Bend,
    HostileServer,
    file,
    message,
    session_of,
)
from tests.server_app.server_fixtures import private_data, run_config

__all__ = ["honest", "template"]

pytest_plugins = ["tests.server_app.server_fixtures"]

ENGINES = {"portable": "portable", "ort_training": "ort-training"}
CONFIG = run_config(num_clients=1, rounds=2)
# A device without anything takes some 200 MB of address space; a bomb far more.
LIMIT_MB = 900


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "client-a.npz"
    save_private_data(path, private_data(1))
    return path


def device(
    server: HostileServer, data: Path, *options: str, patience: float = 0.0, limit_mb: int = LIMIT_MB
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run the command against a server, and say what stands beside the data afterwards."""
    state = data.parent / "state"

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    with server.listening() as url:
        arguments = [
            sys.executable,
            "-m",
            "gkt_core.cli",
            "edge",
            "run",
            "--server",
            url,
            "--token",
            "session-0",
        ]
        arguments += ["--data", str(data), "--memory-limit-mb", str(limit_mb)]
        arguments += ["--patience-seconds", str(patience), "--client-id", "client-a", *options]
        if "--dry-run" not in options:
            arguments += ["--state-dir", str(state)]
        done = subprocess.run(
            arguments,
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST_SECONDS,
            preexec_fn=limited,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
    assert "Traceback" not in done.stderr, done.stderr
    # ONNX Runtime's and the terminal's business: nothing that moves a cursor.
    assert "\x1b" not in done.stderr.replace("\x1b[0m", "") and "\x1b" not in done.stdout
    return done, sorted(path.name for path in data.parent.iterdir())


def served(bundle: Bundle, template: bytes, bend: Bend = straight, **changes: Any) -> HostileServer:
    return HostileServer(lambda number: session_of(bundle, template, CONFIG, bend, **changes))


@pytest.mark.parametrize("engine", ENGINES)
def test_an_honest_server_is_served(honest: Bundle, template: bytes, data: Path, engine: str) -> None:
    server = served(honest, template)
    done, there = device(server, data, "--engine", ENGINES[engine], "--json", "--progress", "plain")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["num_validation_images"] == 5 and 0 <= result["validation_accuracy"] <= 1
    assert server.uploads == 2 * 3 and there == ["client-a.npz", "state"]


# --- what would give images or files away


@pytest.mark.parametrize("dry", [False, True], ids=["run", "dry run"])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("change", [concatenated, copied_by_convolution], ids=lambda each: each.__name__)
def test_images_do_not_pass_through(
    server_bundle: Path, template: bytes, data: Path, tmp_path: Path, engine: str, change: Any, dry: bool
) -> None:
    folder = tmp_path.with_name(f"{tmp_path.name}-hostile")
    hostile = changed_bundle(server_bundle, folder, FEATURE_FILES[engine], change)
    server = served(hostile, template)
    done, _ = device(server, data, "--engine", ENGINES[engine], *(["--dry-run"] if dry else []))
    assert done.returncode == UnsafeModelError.exit_code == 2, done.stderr
    assert "private images through" in done.stderr and "images themselves" not in done.stdout
    assert server.uploads == 0 and server.counted("join") == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_no_file_of_the_device_becomes_a_tensor(
    server_bundle: Path, template: bytes, data: Path, tmp_path: Path, engine: str
) -> None:
    folder = tmp_path.with_name(f"{tmp_path.name}-hostile")
    hostile = changed_bundle(server_bundle, folder, FEATURE_FILES[engine], external_data(Path("/etc/passwd")))
    server = served(hostile, template)
    done, _ = device(server, data, "--engine", ENGINES[engine])
    assert done.returncode == 2 and "external data" in done.stderr
    assert server.uploads == 0


def test_weights_that_begin_to_copy_in_the_second_round(
    honest: Bundle, template: bytes, data: Path, tmp_path: Path
) -> None:
    """A bundle that changes under a run is refused: what was begun with stays."""
    server = served(honest, template, instead("task", lambda _: message(Task("stop", 2, 0, 0.0, "later"))))
    assert device(server, data)[0].returncode == 7
    other = dict(honest.manifest.to_dict(), seed=7)
    done, _ = device(served(honest, template, **other), data)
    assert done.returncode == 2 and "another bundle than the one that this device began" in done.stderr


def test_a_bundle_that_was_agreed_upon(honest: Bundle, template: bytes, data: Path) -> None:
    from edge_runtime.client import Client  # noqa: PLC0415 - with what it needs

    agreed = manifest_sha256(honest.manifest.to_dict())
    written = (honest.path / "manifest.json").read_bytes()
    import hashlib  # noqa: PLC0415

    assert agreed == hashlib.sha256(written).hexdigest()
    for expected, refused in ((agreed, False), ("0" * 64, True)):
        server = served(honest, template)
        with server.listening() as url:
            client = Client(
                url,
                data,
                token="session-0",
                state_dir=data.parent / f"state-{refused}",
                patience_seconds=0,
                expected_manifest_sha256=expected,
            )
            if refused:
                with pytest.raises(UnsafeModelError, match="not the one that was agreed upon"):
                    client.run()
            else:
                assert client.run().rounds == 2
        assert (server.uploads == 0) is refused


# --- bodies


@pytest.mark.system
@pytest.mark.parametrize(("kind", "request_name"), BODIES, ids=lambda each: getattr(each, "__name__", each))
def test_bodies_without_measure(
    honest: Bundle, template: bytes, data: Path, request_name: str, kind: Callable[[Answer], Answer]
) -> None:
    done, there = device(served(honest, template, instead(request_name, kind)), data)
    assert done.returncode == 4, done.stderr
    assert there == ["client-a.npz", "state"]
    kept = [path for path in (data.parent / "state").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in kept) < 2_000_000 and not any("tmp" in p.name for p in kept)


@pytest.mark.system
@pytest.mark.parametrize("in_head", [False, True], ids=["body", "head"])
@pytest.mark.parametrize("request_name", ["runs", "artifact"])
def test_a_byte_now_and_then(
    honest: Bundle, template: bytes, data: Path, request_name: str, in_head: bool
) -> None:
    bend = instead(request_name, lambda answer: trickled(answer, in_head=in_head))
    done, _ = device(served(honest, template, bend), data, "--stall-seconds", "1")
    assert done.returncode == 4, done.stderr
    said = "the head of an answer took longer than 2 s" if in_head else "fewer than 1024 bytes in 1 s"
    assert said in done.stderr


def test_a_file_that_is_not_the_manifests_is_not_kept(honest: Bundle, template: bytes, data: Path) -> None:
    done, _ = device(served(honest, template, instead("artifact", lambda _: file(b"another"))), data)
    assert done.returncode == 2 and "not the file that the server's own manifest names" in done.stderr
    assert list((data.parent / "state" / "bundle").iterdir()) == []


def test_a_bundle_larger_than_the_memory(honest: Bundle, template: bytes, data: Path) -> None:
    files = {name: dict(entry) for name, entry in honest.manifest.files.items()}
    files["predict.onnx"]["num_bytes"] = 400_000_000
    done, _ = device(served(honest, template, files=files), data)
    assert done.returncode == 2 and "this device takes 225,000,000" in done.stderr


# --- numbers and texts


@pytest.mark.parametrize("changes", TASKS, ids=str)
def test_numbers_that_no_task_has(
    honest: Bundle, template: bytes, data: Path, changes: dict[str, Any]
) -> None:
    done, _ = device(served(honest, template, instead("join", task(**changes))), data)
    assert done.returncode == 3, done.stderr


@pytest.mark.parametrize("run_id", RUN_IDS)
def test_ids_that_no_run_has(honest: Bundle, template: bytes, data: Path, run_id: str) -> None:
    done, _ = device(served(honest, template, other_run_id(run_id)), data)
    assert done.returncode == 3 and "the server's run is" in done.stderr


@pytest.mark.parametrize("changes", WORK, ids=str)
def test_work_without_measure(honest: Bundle, template: bytes, data: Path, changes: dict[str, Any]) -> None:
    bend = other_work(CONFIG.to_dict() | changes, honest.manifest.to_dict())
    done, _ = device(served(honest, template, bend), data)
    assert done.returncode == 3 and f"the run asks for {next(iter(changes))}" in done.stderr


def test_shards_that_are_asked_for_without_end(honest: Bundle, template: bytes, data: Path) -> None:
    done, _ = device(served(honest, template, asked_without_end()), data)
    assert done.returncode == 3 and "more than 10 times each" in done.stderr


@pytest.mark.parametrize("status", [200, 409])
def test_texts_do_not_reach_the_terminal_as_they_are(
    honest: Bundle, template: bytes, data: Path, status: int
) -> None:
    done, _ = device(served(honest, template, says(TEXT, status)), data)
    assert done.returncode == {200: 7, 409: 3}[status]
    (line,) = [line for line in done.stderr.splitlines() if "owned" in line]
    assert line.isprintable() and "all is well" in line


# --- the model


@pytest.mark.system
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", MODELS)
def test_a_model_that_is_none_is_not_kept_and_nothing_is_lost(
    honest: Bundle, template: bytes, data: Path, tmp_path: Path, engine: str, kind: str
) -> None:
    bend = other_model(bad_model(kind, honest, template))
    options = ("--engine", ENGINES[engine])
    state = data.parent / "state"
    done, _ = device(served(honest, template, bend), data, *options)
    assert done.returncode in (2, 4), done.stderr
    assert (done.returncode == 4) is (kind == "wide")
    assert not (state / "model.onnx").exists()
    assert json.loads((state / "state.json").read_text())["trained_round"] == 2
    # The same command, when the server gives one.
    bend = instead("join", lambda _: message(Task("finish", 2, 2, 0.0, "")))
    done, _ = device(served(honest, template, bend), data, *options)
    assert done.returncode == 0 and (state / "model.onnx").exists(), done.stderr
    assert "validation images" in done.stdout


def test_a_shard_that_is_lost_before_the_report(honest: Bundle, template: bytes, data: Path) -> None:
    server = served(honest, template, loses_a_shard(lambda: next(iter(server.sessions.values()))))
    done, _ = device(server, data)
    assert done.returncode == 0, done.stderr
    (session,) = server.sessions.values()
    assert session.counted["report"] == 3 and (1, "train", 0) in session.received

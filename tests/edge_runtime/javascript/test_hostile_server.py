"""A server that means harm gets nothing of the TypeScript device that it would not get of Python's."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gkt_core.bundle.manifest import (
    INITIAL_STATE,
    PREDICT,
    Bundle,
    manifest_sha256,
)
from gkt_core.data.private_data import save_private_data
from gkt_core.wire.protocol import Task
from tests.conftest import LONGEST_SECONDS
from tests.edge_runtime.hostile import (
    changed_bundle,
    concatenated,
    copied_by_convolution,
    copying_weights,
    external_data,
    hidden_in_features,
    thinned_images,
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
from tests.edge_runtime.hostile_server import (
    Answer,
    Bend,
    HostileServer,
    file,
    message,
    session_of,
)
from tests.server_app.server_fixtures import private_data, run_config

pytestmark = pytest.mark.system

CONFIG = run_config(num_clients=1, rounds=2)
TOKEN = "t" * 43


class Device:
    """The command, against servers of a test, always on the same folders."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.command, self.folder = command, folder
        self.data, self.state = folder / "client-a.npz", folder / "state"
        save_private_data(self.data, private_data(1))

    def run(
        self, server: HostileServer, pin: str, *options: str, patience: float = 0.0
    ) -> subprocess.CompletedProcess[str]:
        with server.listening() as url:
            link = f"gkt+{url}/#enroll=0123abcd.{TOKEN}&bundle=sha256:{pin}"
            arguments = [*self.command, "run", "--join", link, "--data", str(self.data)]
            arguments += ["--client-id", "client-a", "--patience-seconds", str(patience), *options]
            if "--dry-run" not in options:
                arguments += ["--state-dir", str(self.state)]
            done = subprocess.run(
                arguments, capture_output=True, text=True, check=False, timeout=LONGEST_SECONDS
            )
        # A fault of the program's own shows where it was; nothing moves a cursor; no token is told.
        assert "    at " not in done.stderr, done.stderr
        assert "\x1b" not in done.stderr + done.stdout and TOKEN not in done.stderr + done.stdout
        return done

    def of(
        self, bundle: Bundle, template: bytes, bend: Bend = straight, *options: str, **changes: Any
    ) -> Ran:
        server = HostileServer(lambda number: session_of(bundle, template, CONFIG, bend, **changes))
        pin = manifest_sha256(bundle.manifest.to_dict() | changes)
        return Ran(self.run(server, pin, *options), server)


class Ran:
    """What a device did, and what the server saw of it."""

    def __init__(self, done: subprocess.CompletedProcess[str], server: HostileServer) -> None:
        self.code, self.stderr, self.stdout = done.returncode, done.stderr, done.stdout
        self.server, self.uploads, self.counted = server, server.uploads, server.counted


@pytest.fixture
def device(gkt_edge: list[str], tmp_path: Path) -> Device:
    return Device(gkt_edge, tmp_path)


def test_an_honest_server_is_served(device: Device, honest: Bundle, template: bytes) -> None:
    ran = device.of(honest, template, straight, "--json", "--progress", "plain")
    assert ran.code == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert result["num_validation_images"] == 5 and 0 <= result["validation_accuracy"] <= 1
    assert ran.uploads == 2 * 3 and sorted(os.listdir(device.folder)) == ["client-a.npz", "state"]
    kept = device.state / "credential.json"
    assert kept.stat().st_mode & 0o777 == 0o600 and TOKEN not in kept.read_text()


# --- what would give images or files away


@pytest.mark.parametrize("dry", [False, True], ids=["run", "dry run"])
@pytest.mark.parametrize(
    "change", [concatenated, copied_by_convolution, hidden_in_features], ids=lambda each: each.__name__
)
def test_images_do_not_pass_through(
    device: Device, server_bundle: Path, template: bytes, tmp_path: Path, change: Any, dry: bool
) -> None:
    hostile = changed_bundle(server_bundle, tmp_path / "hostile", PREDICT, change)
    ran = device.of(hostile, template, straight, *(["--dry-run"] if dry else []))
    assert ran.code == 2 and "private images through" in ran.stderr, ran.stderr
    assert ran.uploads == 0 and ran.counted("join") == 0


def test_weights_that_copy_are_found(
    device: Device, server_bundle: Path, template: bytes, tmp_path: Path
) -> None:
    ran = device.of(copying_weights(server_bundle, tmp_path / "hostile"), template)
    assert ran.code == 2 and "can be read off its features" in ran.stderr, ran.stderr
    assert ran.uploads == 0 and ran.counted("join") == 0


def test_a_narrow_tap_does_not_let_pixels_through(
    device: Device, narrow_bundle: Path, template: bytes, tmp_path: Path
) -> None:
    hostile = changed_bundle(narrow_bundle, tmp_path / "hostile", PREDICT, thinned_images)
    server = HostileServer(
        lambda number: session_of(hostile, template, run_config(num_clients=1, codec="uint4"), straight)
    )
    done = device.run(server, manifest_sha256(hostile.manifest.to_dict()))
    assert done.returncode == 2 and "private images through" in done.stderr, done.stderr


def test_no_file_of_the_device_becomes_a_tensor(
    device: Device, server_bundle: Path, template: bytes, tmp_path: Path
) -> None:
    change = external_data(Path("/etc/passwd"))
    ran = device.of(changed_bundle(server_bundle, tmp_path / "hostile", PREDICT, change), template)
    assert ran.code == 2 and "external data" in ran.stderr and ran.uploads == 0


def test_a_bundle_that_changes_under_a_run(device: Device, honest: Bundle, template: bytes) -> None:
    stop = instead("task", lambda _: message(Task("stop", 2, 0, 0.0, "later")))
    assert device.of(honest, template, stop).code == 7
    other = dict(honest.manifest.to_dict(), seed=7)
    server = HostileServer(lambda number: session_of(honest, template, CONFIG, straight, **other))
    # With its old link, and with one of the other bundle, which is for whoever has not begun.
    for pin in (honest.manifest.to_dict(), other):
        done = device.run(server, manifest_sha256(pin))
        assert done.returncode == 2 and "not the one that was agreed upon" in done.stderr, done.stderr
    assert not server.sessions[0].received


def test_another_bundle_than_the_links(device: Device, honest: Bundle, template: bytes) -> None:
    server = HostileServer(lambda number: session_of(honest, template, CONFIG, straight))
    done = device.run(server, "0" * 64)
    assert done.returncode == 2 and "not the one that was agreed upon" in done.stderr
    assert server.sessions[0].counted["credential"] == 0


# --- bodies


@pytest.mark.parametrize(("kind", "request_name"), BODIES, ids=lambda each: getattr(each, "__name__", each))
def test_bodies_without_measure(
    device: Device, honest: Bundle, template: bytes, request_name: str, kind: Callable[[Answer], Answer]
) -> None:
    ran = device.of(honest, template, instead(request_name, kind))
    assert ran.code == 4, ran.stderr
    kept = [path for path in device.state.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in kept) < 2_000_000 and not any("tmp" in p.name for p in kept)


@pytest.mark.parametrize("in_head", [False, True], ids=["body", "head"])
@pytest.mark.parametrize("request_name", ["runs", "artifact"])
def test_a_byte_now_and_then(
    device: Device, honest: Bundle, template: bytes, request_name: str, in_head: bool
) -> None:
    bend = instead(request_name, lambda answer: trickled(answer, in_head=in_head))
    ran = device.of(honest, template, bend, "--stall-seconds", "1")
    assert ran.code == 4, ran.stderr
    said = "the head of an answer took longer than 2 s" if in_head else "fewer than 1024 bytes in 1 s"
    assert said in ran.stderr


def test_a_file_that_is_not_the_manifests_is_not_kept(
    device: Device, honest: Bundle, template: bytes
) -> None:
    ran = device.of(honest, template, instead("artifact", lambda _: file(b"another")))
    assert ran.code == 2 and "not the file that the server's own manifest names" in ran.stderr
    assert not (device.state / "bundle").exists()


# --- numbers and texts


@pytest.mark.parametrize("changes", TASKS, ids=str)
def test_numbers_that_no_task_has(
    device: Device, honest: Bundle, template: bytes, changes: dict[str, Any]
) -> None:
    ran = device.of(honest, template, instead("join", task(**changes)))
    assert ran.code == 3, ran.stderr


@pytest.mark.parametrize("run_id", RUN_IDS)
def test_ids_that_no_run_has(device: Device, honest: Bundle, template: bytes, run_id: str) -> None:
    ran = device.of(honest, template, other_run_id(run_id))
    assert ran.code == 3 and "the server's run is" in ran.stderr


@pytest.mark.parametrize("changes", WORK, ids=str)
def test_work_without_measure(
    device: Device, honest: Bundle, template: bytes, changes: dict[str, Any]
) -> None:
    ran = device.of(honest, template, other_work(CONFIG.told() | changes, honest.manifest.to_dict()))
    assert ran.code == 3 and f"the run asks for {next(iter(changes))}" in ran.stderr


def test_shards_that_are_asked_for_without_end(device: Device, honest: Bundle, template: bytes) -> None:
    ran = device.of(honest, template, asked_without_end())
    assert ran.code == 3 and "more than 10 times each" in ran.stderr


@pytest.mark.parametrize("status", [200, 409])
def test_texts_do_not_reach_the_terminal_as_they_are(
    device: Device, honest: Bundle, template: bytes, status: int
) -> None:
    ran = device.of(honest, template, says(TEXT, status))
    assert ran.code == {200: 7, 409: 3}[status]
    (line,) = [line for line in ran.stderr.splitlines() if "owned" in line]
    assert line.isprintable() and "all is well" in line


# --- the model


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_that_is_none_is_not_kept_and_nothing_is_lost(
    device: Device, honest: Bundle, template: bytes, kind: str
) -> None:
    ran = device.of(honest, template, other_model(bad_model(kind, honest, template)))
    assert ran.code in (2, 4), ran.stderr
    assert (ran.code == 4) is (kind == "wide")
    assert not (device.state / "model.onnx").exists()
    assert json.loads((device.state / "state.json").read_text())["trained_round"] == 2
    # The same command, when the server gives one.
    ran = device.of(honest, template, instead("join", lambda _: message(Task("finish", 2, 2, 0.0, ""))))
    assert ran.code == 0 and (device.state / "model.onnx").exists(), ran.stderr
    assert "validation images" in ran.stdout


def test_a_shard_that_is_lost_before_the_report(device: Device, honest: Bundle, template: bytes) -> None:
    sessions: list[Any] = []

    lost = loses_a_shard(lambda: sessions[0])

    def begin(number: int) -> Any:
        sessions.append(session_of(honest, template, CONFIG, lost))
        return sessions[-1]

    done = device.run(HostileServer(begin), manifest_sha256(honest.manifest.to_dict()))
    assert done.returncode == 0, done.stderr
    assert sessions[0].counted["report"] == 3 and (1, "train", 0) in sessions[0].received


def test_the_state_of_a_bundle_is_the_one_of_its_manifest(
    device: Device, honest: Bundle, template: bytes
) -> None:
    """A flipped bit in what the device kept is noticed, and the file fetched again."""
    stop = instead("task", lambda _: message(Task("stop", 2, 0, 0.0, "later")))
    assert device.of(honest, template, stop).code == 7
    path = device.state / "bundle" / INITIAL_STATE
    kept = bytearray(path.read_bytes())
    kept[-1] ^= 1
    path.write_bytes(kept)
    ran = device.of(honest, template, instead("join", task(round_num=2)))
    assert ran.code == 0 and ran.counted("artifact") == 1, ran.stderr
    assert path.read_bytes() == honest.file(INITIAL_STATE).read_bytes()

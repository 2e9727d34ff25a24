"""``gkt demo`` as a person runs it: real processes, real sockets, small."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from gkt_core.bundle.onnx_runtime import onnxruntime_module
from gkt_core.data.augment import to_float_nchw
from gkt_core.files import lock_exclusively
from gkt_core.models.describing import describe
from profiling.experiments.demo import live
from tests.conftest import LONGEST_SECONDS, Gkt, until
from tests.gkt_core.tracking.test_tracking import scalars_of
from tests.profiling.profile_fixtures import DEMO, NUM_SAMPLES
from tests.server_app.secrets_kept import secrets_of, shown_in

pytest_plugins = ["tests.profiling.profile_fixtures"]

ROUND_KEYS = {"round_num", "validation_accuracy", "upload_bytes", "download_bytes", "seconds"}


@pytest.fixture
def report(demo_dir: Path) -> dict[str, Any]:
    """What the demo printed."""
    printed: dict[str, Any] = json.loads((demo_dir.parent / "stdout").read_text())
    return printed


@pytest.mark.system
def test_json_is_the_report_and_nothing_else(demo_dir: Path, report: dict[str, Any]) -> None:
    assert report == json.loads((demo_dir / "report.json").read_text())
    assert {"rounds", "test_accuracy", "test_accuracies", "edge_only_test_accuracy", "models"} <= set(report)
    assert {"config", "versions"} <= set(report)
    assert report["edge_only_rounds"] == [1, 1]
    # Ninety digits of 8 pixels in all: a network learns nothing, the oldest method does.
    assert report["logistic_regression_test_accuracy"] > 0.5 > report["edge_only_test_accuracy"]
    assert [entry["round_num"] for entry in report["rounds"]] == [1, 2]
    assert all(set(entry) >= ROUND_KEYS for entry in report["rounds"])
    assert report["config"]["rounds"] == 2
    assert report["config"]["horizontal_flip"] is False
    # Piped output is plain and short: no control characters, a line a step.
    stderr = (demo_dir.parent / "stderr").read_text()
    assert "\x1b" not in stderr
    assert len(stderr.splitlines()) < 20


@pytest.mark.system
def test_files_are_all_there(demo_dir: Path) -> None:
    out = demo_dir
    for name in ("report.html", "report.json", "accuracy.png", "test.npz", "artifacts/manifest.json"):
        assert (out / name).stat().st_size > 0, name
    assert (out / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    html = (out / "report.html").read_text()
    # Self-contained: nothing is loaded from anywhere else.
    assert not re.search(r'(src|href)="(?!data:)', html)
    assert html.count("data:image/svg+xml;base64,") == 5
    assert (out / "logs" / "server.log").is_file()
    assert (out / "server" / "trainer.log").stat().st_size > 0


@pytest.mark.system
def test_its_rounds_are_tracked_by_its_server(demo_dir: Path, report: dict[str, Any]) -> None:
    (folder,) = (demo_dir.parent / "logs").iterdir()
    assert folder.name.startswith("run-")
    scalars = scalars_of(folder)
    for name, tag in (("validation_accuracy", "validation/accuracy"), ("upload_bytes", "bytes/upload")):
        assert [step for step, _ in scalars[tag]] == [entry["round_num"] for entry in report["rounds"]]
        values = [value for _, value in scalars[tag]]
        assert values == pytest.approx([entry[name] for entry in report["rounds"]], rel=1e-6)
    for model in (demo_dir / "models").iterdir():
        identity = describe(model).identity
        # Each model of a served run says which.
        assert identity is not None and identity.run_id == folder.name and identity.rounds == 2
        assert identity.class_names == report["class_names"] and "server" in identity.sources


@pytest.mark.system
def test_no_secret_is_in_what_it_leaves_and_prints(demo_dir: Path) -> None:
    """But where each belongs: who is shown a report or a log cannot join, speak for a device, or operate."""
    states = sorted(path.parent for path in demo_dir.rglob("credential.json"))
    assert len(states) == 2
    secrets = secrets_of(demo_dir / "server", states)
    places = (demo_dir, demo_dir.parent / "stdout", demo_dir.parent / "stderr")
    assert shown_in(secrets, *places) == []


@pytest.mark.system
def test_models_reach_the_reported_accuracies(demo_dir: Path, report: dict[str, Any]) -> None:
    with np.load(demo_dir / "test.npz") as test:
        images, labels = to_float_nchw(test["images"]), test["labels"]
    accuracies = []
    for path in report["models"].values():
        session = onnxruntime_module().InferenceSession(path, providers=["CPUExecutionProvider"])
        (logits,) = session.run(["logits"], {"images": images})
        accuracies.append(float((logits.argmax(axis=1) == labels).mean()))
    assert len(accuracies) == 2
    assert accuracies == pytest.approx(report["test_accuracies"])
    assert report["test_accuracy"] == pytest.approx(np.mean(accuracies))


@pytest.mark.system
def test_bytes_are_those_of_the_wire(demo_dir: Path, report: dict[str, Any]) -> None:
    sent = received = 0
    for client in report["clients"]:
        line = (demo_dir / "logs" / f"{client['client_id']}.log").read_text().strip().splitlines()[-1]
        up, down = re.search(r"([\d,]+) bytes sent, ([\d,]+) received", line).groups()  # type: ignore[union-attr]
        sent += int(up.replace(",", ""))
        received += int(down.replace(",", ""))
    kinds = report["traffic"]
    counted_up = kinds["upload/shards"] + kinds["upload/reports"]
    # Devices also send a join message; they also receive tasks, receipts and run descriptions.
    assert counted_up <= sent <= counted_up + 1000
    counted_down = kinds["download/bundle"] + kinds["download/soft_labels"] + kinds["download/model"]
    assert counted_down <= received
    assert sum(entry["upload_bytes"] for entry in report["rounds"]) == counted_up
    assert sum(entry["download_bytes"] for entry in report["rounds"]) == kinds["download/soft_labels"]
    assert report["rounds"][0]["download_bytes"] == 0


@pytest.mark.system
def test_each_device_saw_only_its_own_file(demo_dir: Path, report: dict[str, Any]) -> None:
    ids = []
    for client in report["clients"]:
        with np.load(demo_dir / "data" / "clients" / f"{client['client_id']}.npz") as data:
            ids.append(set(data["sample_ids"].tolist()) | set(data["validation_sample_ids"].tolist()))
    assert not ids[0] & ids[1]
    assert len(ids[0] | ids[1]) == NUM_SAMPLES


@pytest.mark.slow  # every day `test_chaos` compares two runs of real processes, one of them killed
def test_same_seed_same_numbers(report: dict[str, Any], gkt: Gkt, tmp_path: Path) -> None:
    first, second = report, json.loads(gkt(*DEMO, "--out", tmp_path / "again", "--json").stdout)
    for key in ("test_accuracies", "edge_only_test_accuracies"):
        assert second[key] == first[key]
    for name in ("validation_accuracy", "validation_loss", "train_loss", "edge_loss"):
        assert [r[name] for r in second["rounds"]] == [r[name] for r in first["rounds"]]
    for client_id, path in first["models"].items():
        assert Path(path).read_bytes() == Path(second["models"][client_id]).read_bytes()


# Every day the test below interrupts a demo, and `test_reproduce` ends by SIGTERM what has started others.
@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_stops_every_process(sign: signal.Signals, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "gkt_core.cli", *DEMO, "--rounds", "500", "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + LONGEST_SECONDS / 2
        logs = [out / "logs" / f"client-00{n}.log" for n in range(2)]
        while not all(log.is_file() and log.stat().st_size for log in logs):
            assert process.poll() is None
            assert time.monotonic() < deadline, "the devices never began"
            time.sleep(0.1)
        children = psutil.Process(process.pid).children(recursive=True)
        # Server, trainer, two devices.
        assert len(children) >= 4
        process.send_signal(sign)
        _, stderr = process.communicate(timeout=LONGEST_SECONDS / 2)
    finally:
        # Ended in order if it still runs: killed, it would leave its own processes behind.
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=60)
    assert process.returncode == 130
    assert f"partial results are in {out}" in stderr
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


@pytest.mark.system
def test_a_stopped_demo_goes_on(tmp_path: Path, gkt: Gkt) -> None:
    """Interrupted while its devices train, it ends with the folder alone; other options are refused."""
    out, rounds = tmp_path / "out", 6
    command = [sys.executable, "-m", "gkt_core.cli", *DEMO, "--rounds", str(rounds), "--out", str(out)]
    stopped = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    trained = (out / "server" / "checkpoints").glob
    try:
        until(lambda: stopped.poll() is not None or any(trained("round-*.safetensors")), "a trained round")
        stopped.send_signal(signal.SIGINT)
        _, stderr = stopped.communicate(timeout=LONGEST_SECONDS)
    finally:
        if stopped.poll() is None:
            stopped.terminate()
            stopped.wait(timeout=60)
    assert stopped.returncode == 130
    assert f"it goes on with: gkt demo --out {out}" in stderr
    exported = (out / "artifacts" / "manifest.json").stat().st_mtime_ns

    other = gkt("demo", "--rounds", "4", "--out", out)
    assert other.returncode == 2
    assert f"holds a demo of other options (--rounds 4 instead of --rounds {rounds})" in other.stderr
    with lock_exclusively(out / "demo.lock", "the test's own"):
        beside = gkt("demo", "--out", out)
    assert beside.returncode == 2 and "another gkt demo runs in" in beside.stderr
    done = gkt("demo", "--out", out, "--json")

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [entry["round_num"] for entry in report["rounds"]] == list(range(1, rounds + 1))
    assert (report["num_starts"], report["config"]["rounds"]) == (2, rounds)
    assert (out / "artifacts" / "manifest.json").stat().st_mtime_ns == exported
    finished = gkt("demo", "--out", out)
    assert finished.returncode == 2 and "holds a finished demo" in finished.stderr


def test_a_long_step_says_that_it_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_SILENT_SECONDS", 0.0)
    with live.LiveDisplay() as display, display.step("exporting resnet8") as goes_on:
        goes_on()
    begins, still = capsys.readouterr().err.splitlines()
    assert begins.endswith(" exporting resnet8") and "still exporting resnet8 (" in still


def _taken_port() -> tuple[socket.socket, str]:
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    holder.listen()
    return holder, str(holder.getsockname()[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "no-such-folder"), "no dataset 'no-such-folder'"),
        (("--dataset", "broken.npz"), "cannot read broken.npz"),
        (("--dataset", "images"), "images holds no images that can be read"),
        (("--dataset", "labels.npz"), "y_test holds the label 7"),
        (("--clients", "1000"), "1000 clients and 1437 training images"),
        (("--image-size", "15"), "--image-size is 15"),
        (("--rounds", "0"), "rounds is 0, expected at least 1"),
        (("--temperature", "-1"), "temperature is -1.0"),
        (("--limit", "0"), "--limit is 0"),
        (("--port", "99999"), "--port is 99999"),
    ],
)
def test_wrong_input_leaves_nothing(
    arguments: tuple[str, ...], message: str, gkt_here: Gkt, tmp_path: Path
) -> None:
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 this is no archive")
    (tmp_path / "images" / "cats").mkdir(parents=True)
    (tmp_path / "images" / "cats" / "one.png").write_bytes(b"no image")
    images = np.zeros((40, 8, 8, 3), np.uint8)
    np.savez(
        tmp_path / "labels.npz",
        x_train=images,
        y_train=np.arange(40) % 5,
        x_test=images,
        y_test=np.full(40, 7),
    )
    before = sorted(path.name for path in tmp_path.iterdir())
    done = gkt_here("demo", *arguments, "--out", "out")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_port_in_use(gkt_here: Gkt, tmp_path: Path) -> None:
    holder, port = _taken_port()
    with holder:
        done = gkt_here("demo", "--port", port, "--out", "out")
    assert done.returncode == 2, done.stderr
    assert f"port {port} of 127.0.0.1 is in use" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_not_touched(gkt_here: Gkt, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("data")
    done = gkt_here("demo", "--out", "out")
    assert done.returncode == 2
    assert "already exists and is not empty" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious"]


@pytest.mark.slow
def test_the_digits_as_the_readme_says(gkt: Gkt, tmp_path: Path) -> None:
    done = gkt("demo", "--out", tmp_path / "out", "--json", timeout=600)
    report = json.loads(done.stdout)
    assert report["test_accuracy"] >= 0.95
    assert report["test_accuracy"] > report["edge_only_test_accuracy"]


@pytest.mark.slow
def test_cifar10_as_the_readme_says(gkt: Gkt, tmp_path: Path) -> None:
    folder = os.environ.get("GKT_TEST_DATA")
    if not folder:
        pytest.skip("GKT_TEST_DATA is not set: no real CIFAR-10 to train on")
    arguments = ("--dataset", f"{folder}/cifar10.npz", "--limit", "4000", "--clients", "4", "--rounds", "4")
    done = gkt("demo", *arguments, "--out", tmp_path / "out", "--json", timeout=1500)
    report = json.loads(done.stdout)
    assert report["test_accuracy"] > report["edge_only_test_accuracy"]

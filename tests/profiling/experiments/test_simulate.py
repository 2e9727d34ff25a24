"""``gkt simulate`` as a researcher runs it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from gkt_core.algorithm_names import SIMULATION_DEFAULTS
from gkt_core.config.dataclass_options import FieldOption
from gkt_core.config.precision import machine_precision
from gkt_core.config.run_config import RunConfig
from gkt_core.data.augment import to_float_nchw
from gkt_core.data.private_data import load_test_data
from gkt_core.models.describing import describe
from gkt_core.nn import build_combined_network
from gkt_core.nn.checkpoint import below
from profiling.experiments.simulate.command import simulate
from tests.conftest import LONGEST_SECONDS, Gkt
from tests.gkt_core.tracking.test_tracking import scalars_of
from tests.killing import run_killed

pytest_plugins = ["tests.profiling.profile_fixtures"]

SMALL = ("--image-size", "8", "--limit", "400", "--clients", "3", "--rounds", "2")
ALGORITHMS = ("fedgkt", "fedavg", "split_learning", "centralized", "ecofed")
RESULT_KEYS = {"test_accuracy", "validation_accuracy", "upload_bytes", "download_bytes", "config"}


@pytest.mark.parametrize(
    "algorithm",
    # The slow ones take most of the time; `test_saving` and the demo's tests run them every day.
    [
        pytest.param(
            each, marks=pytest.mark.slow if each in ("fedgkt", "fedavg", "ecofed") else pytest.mark.system
        )
        for each in ALGORITHMS
    ],
)
def test_defaults_learn(algorithm: str, gkt_here: Gkt, tmp_path: Path) -> None:
    """Three devices, two rounds, everything else by default: far above the 10 % of guessing."""
    # Averaged weights need more steps than the others before they are above guessing.
    limit = ("--limit", "1437") if algorithm == "fedavg" else ()
    done = gkt_here("simulate", "--algorithm", algorithm, *SMALL, *limit, "--out", "out", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == json.loads((tmp_path / "out" / "result.json").read_text())
    assert set(result) >= RESULT_KEYS
    assert result["test_accuracy"] > 0.2
    assert (result["upload_bytes"] == 0) == (algorithm == "centralized")
    assert len(result["confusion_matrix"]) == len(result["per_class_accuracy"]) == 10
    metrics = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [line["round_num"] for line in metrics] == [1, 2]
    assert sum(line["upload_bytes"] for line in metrics) == result["upload_bytes"]
    for picture in ("curves.png", "confusion.png"):
        assert (tmp_path / "out" / picture).read_bytes().startswith(b"\x89PNG")
    timings = (tmp_path / "out" / "timings.jsonl").read_text().splitlines()
    assert len(timings) == 2


def test_help_names_the_defaults_that_are_used() -> None:
    """Some depend on the algorithm: each must stand in the help text of its option."""
    words = {each.name: each.default_words for each in simulate.params if isinstance(each, FieldOption)}
    for algorithm, defaults in SIMULATION_DEFAULTS.items():
        for name, value in (RunConfig().to_dict() | defaults).items():
            if name in ("quarantine", "num_clients", "horizontal_flip", "crop_padding"):
                continue  # no option, or as the split and its dataset have it
            said = words[name]
            if " for " in said:
                said = next(part for part in said.split("; ") if algorithm in part).split(" for ")[0]
            # Of a pair of flags the one that holds.
            flag = ("" if value is True else "no-") + name.replace("_", "-")
            assert said == (flag if isinstance(value, bool) else str(value)), (algorithm, name)


def test_a_class_without_images_has_no_accuracy(gkt_here: Gkt, tmp_path: Path) -> None:
    """Labels 0 and 2: class 1 is neither trained nor tested, and is not the worst class."""
    generator = np.random.default_rng(0)
    labels = np.arange(40) % 2 * 2
    images = generator.integers(0, 60, (40, 8, 8, 3)) + 90 * labels[:, None, None, None]
    pixels = images.astype(np.uint8)
    np.savez(tmp_path / "hole.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    done = gkt_here(
        "simulate", "--algorithm", "centralized", "--central-model", "resnet8", "--dataset", "hole.npz",
        "--allow-empty-classes",
        "--clients", "2", "--rounds", "1", "--batch-size", "8", "--out", "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    accuracies = json.loads((tmp_path / "out" / "result.json").read_text())["per_class_accuracy"]
    assert accuracies["1"] is None
    assert accuracies["0"] + accuracies["2"] > 1
    assert "(1)" not in done.stdout
    assert "by class: from" in done.stdout


FAST = (
    *("--image-size", "8", "--limit", "150", "--clients", "3", "--server-epochs", "1", "--rounds", "4"),
    # With rates and an average that change with every step: one too many or too few shows in the bytes.
    *("--lr-schedule", "one_cycle", "--server-ema", "0.9"),
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulate") / "out"
    command = [sys.executable, "-m", "gkt_core.cli", "simulate", *FAST, "--seed", "3", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True, timeout=LONGEST_SECONDS)
    return out


@pytest.mark.system
def test_killed_run_goes_on_with_the_same_numbers(undisturbed: Path, gkt: Gkt, tmp_path: Path) -> None:
    """The process is gone at whatever moment of whatever round, and what it saved last is gone on from."""
    out, track = tmp_path / "out", ("--track", f"tensorboard:{tmp_path / 'logs'}")
    run_killed(
        "simulate", *FAST, "--seed", "3", "--save-minutes", "0", "--out", out, *track,
        after="gkt_core.algorithms.runner:save_state", calls=random.randint(1, 20),
        delay_seconds=random.uniform(0, 0.1),
    )  # fmt: skip
    assert not (out / "result.json").exists()
    again = gkt("simulate", *FAST, "--seed", "3", "--out", out, *track)
    assert again.returncode == 0, again.stderr
    # What was sent and not noted when it was killed is there twice; nothing is missing.
    scalars = scalars_of(tmp_path / "logs" / "out")
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    expected = {line["round_num"]: line["validation_accuracy"] for line in metrics}
    assert dict(scalars["validation/accuracy"]) == pytest.approx(expected, rel=1e-6)
    ((step, test_accuracy),) = scalars["test/accuracy"]
    result = json.loads((out / "result.json").read_text())
    assert step == len(metrics) and test_accuracy == pytest.approx(result["test_accuracy"], rel=1e-6)
    for name in ("metrics.jsonl", "result.json", "checkpoint.safetensors"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name


@pytest.mark.system
def test_the_model_that_it_leaves_is_the_one_that_was_tested(undisturbed: Path) -> None:
    """Logits are those of PyTorch with the weights of the checkpoint: of the average, which answers."""
    result = json.loads((undisturbed / "result.json").read_text())
    (model,) = (undisturbed / "models").iterdir()
    described = describe(model)
    identity = described.identity
    assert identity is not None and described.details["class_names"] == identity.class_names
    assert identity.test_accuracy == result["test_accuracies"][model.stem]
    assert identity.validation_accuracy == result["validation_accuracy"]
    assert (identity.run_id, identity.rounds) == ("simulated fedgkt", result["rounds"])
    split = json.loads((undisturbed / "data" / "partition.json").read_text())
    network = build_combined_network(
        identity.edge_network, identity.server_network, identity.num_classes,
        pixel_mean=tuple(split["pixel_mean"]), pixel_std=tuple(split["pixel_std"]),
    )  # fmt: skip
    tensors = load_file(undisturbed / "checkpoint.safetensors")
    weights = {
        **{f"server.{name}": each for name, each in below(tensors, "module/server/average.").items()},
        **{
            name: each
            for name, each in below(tensors, f"module/{model.stem}/").items()
            if "extractor" in name
        },
    }
    assert set(weights) == set(network.state_dict())
    network.load_state_dict(weights)
    test = load_test_data(undisturbed / "data" / "test.npz")
    images = to_float_nchw(test.images)
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(images)).numpy()
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images})
    assert np.abs(logits - expected).max() < 1e-3
    assert np.mean(logits.argmax(axis=1) == test.labels) == pytest.approx(identity.test_accuracy, abs=1e-9)


@pytest.mark.slow  # every day `test_saving` stops it at any step, and the test above kills a process
def test_killed_central_training_goes_on_with_the_same_numbers(gkt: Gkt, tmp_path: Path) -> None:
    """One round of several epochs, which are saved each."""
    command = (
        "simulate", "--algorithm", "centralized", "--central-model", "resnet8", "--image-size", "8",
        "--limit", "60", "--clients", "2", "--local-epochs", "4", "--rounds", "1", "--out",
    )  # fmt: skip
    assert gkt(*command, tmp_path / "undisturbed").returncode == 0
    out = tmp_path / "out"
    run_killed(
        *command, out, after="gkt_core.algorithms.runner:save_state", calls=random.randint(1, 3),
        delay_seconds=0,
    )  # fmt: skip
    assert not (out / "metrics.jsonl").exists()
    again = gkt(*command, out)
    assert again.returncode == 0, again.stderr
    for name in ("metrics.jsonl", "result.json", "checkpoint.safetensors"):
        assert (out / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes(), name


@pytest.mark.system
def test_features_on_disk_give_the_same_numbers(undisturbed: Path, gkt_here: Gkt, tmp_path: Path) -> None:
    done = gkt_here("simulate", *FAST, "--seed", "3", "--feature-store", "disk", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()
    assert list((tmp_path / "out" / "features").glob("*.safetensors"))


@pytest.mark.system
def test_a_stored_split_is_used_again(undisturbed: Path, gkt_here: Gkt, tmp_path: Path) -> None:
    split = undisturbed / "data"
    done = gkt_here(
        "simulate", "--algorithm", "centralized", "--central-model", "resnet8", "--split", split,
        "--rounds", "1", "--precision", "auto", "--out", "out", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = json.loads(done.stdout)["config"]
    assert config["num_examples"] == 135
    chosen = machine_precision("cpu")[0]
    assert config["precision"] == chosen and f"precision {chosen}: this CPU has" in done.stderr
    assert not (tmp_path / "out" / "data").exists()


@pytest.mark.system
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rounds", "5"), "holds a run with other settings (rounds 5 instead of 4)"),
        (("--seed", "4"), "seed 4 instead of 3"),
        (("--clients", "2"), "--clients is 2"),
    ],
)
def test_other_settings_are_refused(
    arguments: tuple[str, ...], message: str, undisturbed: Path, gkt_here: Gkt
) -> None:
    before = (undisturbed / "result.json").read_bytes()
    done = gkt_here("simulate", *FAST, "--seed", "3", *arguments, "--out", undisturbed)
    assert done.returncode == 2
    assert message in done.stderr
    assert (undisturbed / "result.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "nothing"), "no dataset 'nothing'"),
        (("--clients", "5000"), "5000 clients"),
        (("--replay-period", "0"), "--replay-period is 0, expected at least 1"),
        (("--pretraining-share", "1.5"), "--pretraining-share is 1.5"),
        (("--split", "missing"), "holds no split"),
        (("--algorithm", "sgd"), "'sgd' is not one of"),
    ],
)
def test_wrong_input_leaves_nothing(
    arguments: tuple[str, ...], message: str, gkt_here: Gkt, tmp_path: Path
) -> None:
    done = gkt_here("simulate", *arguments, "--out", "out")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_cifar10_beats_the_device_alone(gkt: Gkt, tmp_path: Path) -> None:
    folder = os.environ.get("GKT_TEST_DATA")
    if not folder:
        pytest.skip("GKT_TEST_DATA is not set: no real CIFAR-10 to train on")
    done = gkt(
        "simulate", "--dataset", f"{folder}/cifar10.npz", "--limit", "2000", "--clients", "4",
        "--rounds", "4", "--server-epochs", "2", "--out", tmp_path / "out", "--json", timeout=900,
    )  # fmt: skip
    assert json.loads(done.stdout)["test_accuracy"] > 0.25

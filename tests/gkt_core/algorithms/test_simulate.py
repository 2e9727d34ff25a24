"""A federation out of arrays, and one call that simulates: the numbers of the command, without its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gkt_core
from gkt_core.algorithms.simulation.federation import Federation, load_federation
from gkt_core.data.datasets import load_dataset
from gkt_core.data.split import SplitOptions, split_dataset
from gkt_core.errors import ConfigError, DatasetError, PartitionError
from tests.conftest import Gkt

pytest_plugins = ["tests.profiling.profile_fixtures"]

SMALL: dict[str, Any] = {"rounds": 2, "server_epochs": 1, "horizontal_flip": False}


def arrays(**changed: Any) -> dict[str, Any]:
    dataset = load_dataset("digits", image_size=8, limit=90)
    parts = {name: getattr(dataset, name) for name in ("x_train", "y_train", "x_test", "y_test")}
    return {**parts, "class_names": dataset.class_names, **changed}


def test_arrays_are_dealt_as_the_files_are(tmp_path: Path) -> None:
    made = gkt_core.federation_from_arrays(**arrays(), num_clients=2, pretraining_share=0.2)
    split_dataset(
        load_dataset("digits", image_size=8, limit=90), SplitOptions(2, pretraining_share=0.2), tmp_path
    )
    read = load_federation(tmp_path)
    assert (made.class_names, made.pixel_mean, made.pixel_std) == (
        read.class_names,
        read.pixel_mean,
        read.pixel_std,
    )
    # Of arrays nobody knows it, a split of digits says it.
    assert (made.horizontal_flip, read.horizontal_flip) == (True, False)
    assert list(made.clients) == list(read.clients)
    for mine, theirs in zip(made.clients.values(), read.clients.values(), strict=True):
        for part in ("train", "validation"):
            np.testing.assert_array_equal(getattr(mine, part).images, getattr(theirs, part).images)
            np.testing.assert_array_equal(getattr(mine, part).labels, getattr(theirs, part).labels)
    assert made.pretraining is not None and read.pretraining is not None
    np.testing.assert_array_equal(made.pretraining.images, read.pretraining.images)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"x_train": np.zeros((4, 8, 8, 3))}, DatasetError, "x_train is float64"),
        ({"y_test": np.zeros(3, int)}, DatasetError, "y_test"),
        ({"num_clients": 0}, ConfigError, "--clients is 0"),
        ({"num_clients": 80}, PartitionError, "80 clients"),
        ({"validation_share": 1.0}, ConfigError, "--validation-share is 1.0"),
    ],
)
def test_arrays_that_are_no_federation(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gkt_core.federation_from_arrays(**arrays(**changed))


def test_one_call_gives_what_the_command_gives(federation: Federation, gkt_here: Gkt, tmp_path: Path) -> None:
    dataset = load_dataset("digits", image_size=8, limit=90)
    split_dataset(dataset, SplitOptions(2, pretraining_share=0.2), tmp_path / "split")
    heard: list[int] = []
    threads, before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    done = gkt_core.simulate(
        load_federation(tmp_path / "split"),
        on_round=lambda round_num, result: heard.append(round_num),
        **SMALL,
    )
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, before)
    command = gkt_here(
        "simulate", "--split", "split", "--rounds", "2", "--server-epochs", "1", "--threads", threads,
        "--out", "out", "--json",
    )  # fmt: skip
    assert command.returncode == 0, command.stderr
    result = json.loads(command.stdout)
    assert done.result["test_accuracies"] == result["test_accuracies"]
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    for name in ("train_loss", "validation_loss", "validation_accuracy", "upload_bytes"):
        assert done.curves[name] == [line[name] for line in lines], name
    assert heard == [1, 2]
    assert done.test_accuracy == result["test_accuracy"]
    # The models are modules: images in 0..1 to logits.
    for model in done.models.values():
        assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 10)


def test_a_folder_goes_on(federation: Federation, tmp_path: Path) -> None:
    first = gkt_core.simulate(federation, out=tmp_path, **SMALL)
    again = gkt_core.simulate(federation, out=tmp_path, **SMALL)
    assert again.curves == first.curves
    with pytest.raises(ConfigError, match="other settings"):
        gkt_core.simulate(federation, out=tmp_path, **{**SMALL, "alpha": 2.0})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"round": 2}, "unknown keys round"),
        ({"num_clients": 3}, "num_clients is 3, the federation has 2"),
        ({"edge_network": "resnet9"}, "unknown network 'resnet9'"),
    ],
)
def test_wrong_arguments_are_named(given: dict[str, Any], message: str, federation: Federation) -> None:
    with pytest.raises(ConfigError, match=message):
        gkt_core.simulate(federation, **given)


def test_a_devices_data_out_of_arrays(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(20) % 2
    made = gkt_core.private_data(images, labels, ["cat", "dog"], path=tmp_path / "mine.npz")
    read = gkt_core.load_private_data(tmp_path / "mine.npz")
    assert (len(made.train), len(made.validation), read.class_names) == (18, 2, ("cat", "dog"))
    np.testing.assert_array_equal(made.train.images, read.train.images)
    rows = np.concatenate([made.train.sample_ids, made.validation.sample_ids])
    assert sorted(rows) == list(range(20))
    with pytest.raises(DatasetError, match="holds 1 names, expected at least 2"):
        gkt_core.private_data(images, labels, ["cat"])
    with pytest.raises(DatasetError, match="labels holds 6, expected 0 to 1, as class_names"):
        gkt_core.private_data(images, labels + 6, ["cat", "dog"])

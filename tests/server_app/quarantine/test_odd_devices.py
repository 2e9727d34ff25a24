"""Honest devices that look odd are left alone, poison from the same extractors is found."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from gkt_core.algorithms.simulation.federation import Federation
from gkt_core.config.run_config import RunConfig
from gkt_core.data.datasets import Dataset, load_dataset
from profiling.server.poisoning import honest
from profiling.server.poisoning.attacks import ATTACKS
from profiling.server.poisoning.honest import KINDS, Kind, measure_kind
from profiling.server.poisoning.watched import WatchedFedGKT

CLIENTS = [f"client-{number:03}" for number in range(6)]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", image_size=12, seed=0, data_root=Path("unused"), limit=None)


@pytest.mark.system
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_fleet_of_odd_devices_is_left_alone(kind: Kind, digits: Dataset) -> None:
    found = measure_kind(kind, digits, 5, among=False, num_clients=6, num_samples=72, rounds=2)
    assert (found["quarantined"], found["num_devices"]) == ({}, 6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_odd_devices_among_others_are_left_alone(kind: Kind, digits: Dataset) -> None:
    found = measure_kind(kind, digits, 6, among=True, num_samples=96)
    assert (found["quarantined"], found["num_devices"], found["num_others"]) == ({}, 2, 6)


def run_of(digits: Dataset, draw: str, tmp_path: Path, attack: str, attacker: str) -> WatchedFedGKT:
    names = digits.class_names
    clients = {}
    for number, client_id in enumerate(CLIENTS):
        rng = np.random.default_rng([number, 3])
        images, labels = getattr(honest, draw)(rng, digits, 128)
        clients[client_id] = honest.private_data(images, labels, names)
    federation = Federation(clients, clients[CLIENTS[0]].validation, names, (0.3,) * 3, (0.3,) * 3)
    config = RunConfig(num_clients=6, codec="uint8", crop_padding=2, horizontal_flip=True, seed=4)
    return WatchedFedGKT(
        federation, config, attack=attack, attacker=attacker, folder=tmp_path,
        edge_network="resnet8", server_network="resnet55", device=torch.device("cpu"),
    )  # fmt: skip


def rounds(run: WatchedFedGKT, *numbers: int) -> None:
    for number in numbers:
        run.run_devices(number, 1.0, lambda phase, num: None)


@pytest.mark.system
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_device_that_poisons_from_the_first_round(attack: str, digits: Dataset, tmp_path: Path) -> None:
    run = run_of(digits, "usual", tmp_path, attack, CLIENTS[2])
    rounds(run, 1)
    assert list(run.quarantined) == [CLIENTS[2]]
    is_of_validation = run.quarantined[CLIENTS[2]][1].startswith("of its validation samples: ")
    assert is_of_validation is (attack == "poisoned_validation")


@pytest.mark.system
@pytest.mark.parametrize("draw", ["usual", "camera"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_device_that_turns_in_the_second_round(
    attack: str, draw: str, digits: Dataset, tmp_path: Path
) -> None:
    """Frames of a fixed camera tell nothing across devices, and yet a device's own past does."""
    run = run_of(digits, draw, tmp_path, attack, "")
    rounds(run, 1)
    assert run.quarantined == {}
    run.attacker = CLIENTS[2]
    rounds(run, 2)
    assert list(run.quarantined) == [CLIENTS[2]]


@pytest.mark.system
def test_moved_labels_of_photos_are_seen(tmp_path: Path) -> None:
    """A probe names few photos rightly; labels that were moved stand no better than by chance."""
    folder = os.environ.get("GKT_TEST_DATA")
    if folder is None:
        pytest.skip("GKT_TEST_DATA is not set: no photos to move the labels of")
    photos = load_dataset(
        f"{folder}/cifar10.npz", image_size=16, limit=2000, seed=0, data_root=Path("unused")
    )
    run = run_of(photos, "usual", tmp_path, "shifted_labels", CLIENTS[2])
    rounds(run, 1)
    assert list(run.quarantined) == [CLIENTS[2]]
    assert "its labels do not go with its features" in run.quarantined[CLIENTS[2]][1]

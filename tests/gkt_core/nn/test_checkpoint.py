"""Checkpoints of network and optimizer: restored to the last bit, and refused where they are damaged."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from gkt_core.config.run_config import RunConfig
from gkt_core.errors import ArtifactError
from gkt_core.nn.checkpoint import load_checkpoint, save_checkpoint
from gkt_core.nn.optimizers import large_network_optimizer


def optimizer_of(network: nn.Module) -> torch.optim.Optimizer:
    return large_network_optimizer(network.parameters(), RunConfig(), RunConfig().server_lr)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A small network and its optimizer."""

    network: nn.Module
    optimizer: torch.optim.Optimizer


@pytest.fixture
def trained() -> Trained:
    """A small network and an optimizer that has made two steps."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    optimizer = optimizer_of(network)
    for seed in (1, 2):
        images = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
        network(images).square().sum().backward()
        optimizer.step()
    return Trained(network, optimizer)


def fresh(like: Trained) -> Trained:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    return Trained(network, optimizer_of(network))


def test_a_checkpoint_restores_network_and_optimizer(trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    save_checkpoint(path, trained.network, trained.optimizer, {"round_num": 7})
    other = fresh(trained)
    assert load_checkpoint(path, other.network, other.optimizer) == {"round_num": 7}
    for name, value in trained.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name])
    mine, theirs = (each.optimizer.state_dict()["state"] for each in (trained, other))
    assert mine.keys() == theirs.keys() and mine
    for index, values in mine.items():
        assert set(values) == {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"}
        for name, value in values.items():
            assert torch.equal(value, theirs[index][name])
    save_checkpoint(tmp_path / "again", other.network, other.optimizer, {"round_num": 7})
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_training_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(
    trained: Trained, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "checkpoint", trained.network, trained.optimizer, {})
    other = fresh(trained)
    load_checkpoint(tmp_path / "checkpoint", other.network, other.optimizer)
    images = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    for each in (trained, other):
        each.optimizer.zero_grad()
        each.network(images).square().sum().backward()
        each.optimizer.step()
        save_checkpoint(tmp_path / f"after-{id(each)}", each.network, each.optimizer, {})
    first, second = tmp_path.glob("after-*")
    assert first.read_bytes() == second.read_bytes()


def test_a_checkpoint_of_another_network_is_refused(trained: Trained, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint", trained.network, trained.optimizer, {})
    for network in (nn.Linear(3, 4), nn.Sequential(nn.Conv2d(3, 5, 3))):
        optimizer = optimizer_of(network)
        with pytest.raises(ArtifactError, match="belongs to another network"):
            load_checkpoint(tmp_path / "checkpoint", network, optimizer)


@pytest.mark.parametrize(
    "change",
    [lambda data: b"", lambda data: data[:100], lambda data: data[:-1], lambda data: b"\x80\x04" + data],
)
def test_a_checkpoint_that_cannot_be_read(
    trained: Trained, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "checkpoint"
    save_checkpoint(path, trained.network, trained.optimizer, {})
    path.write_bytes(change(path.read_bytes()))
    other = fresh(trained)
    with pytest.raises(ArtifactError, match="cannot read the checkpoint"):
        load_checkpoint(path, other.network, other.optimizer)
    with pytest.raises(ArtifactError, match="cannot read the checkpoint"):
        load_checkpoint(tmp_path / "missing", other.network, other.optimizer)

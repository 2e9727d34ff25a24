"""The average of a network's weights: what it is, where it answers, and that it survives a kill."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gkt_core.algorithms import server_update
from gkt_core.nn.averaging import Averaged, deployed, trained_with
from gkt_core.nn.checkpoint import restore_state, state_bytes
from tests.gkt_core.rounds.test_learning_rate import source
from tests.server_app.server_fixtures import NUM_CLASSES, run_config


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))


def steps(
    network: nn.Module, optimizer: torch.optim.Optimizer, seeds: range
) -> list[dict[str, torch.Tensor]]:
    """Take a step of each seed's batch; the trained weights after each."""
    seen = []
    for seed in seeds:
        images = torch.randn(5, 2, 2, 2, generator=torch.Generator().manual_seed(seed))
        network.train()
        optimizer.zero_grad()
        network(images).square().mean().backward()
        optimizer.step()
        live = network.live if isinstance(network, Averaged) else network
        seen.append({name: value.clone() for name, value in live.state_dict().items()})
    return seen


def test_it_is_the_moving_average_of_weights_and_statistics() -> None:
    network, optimizer = trained_with(small(), run_config(server_ema=0.5), 0.1)
    assert isinstance(network, Averaged)
    expected = {name: value.double() for name, value in small().state_dict().items()}
    for number, state in enumerate(steps(network, optimizer, range(12)), start=1):
        decay = min(0.5, (1 + number) / (10 + number))
        for name, value in state.items():
            expected[name] = decay * expected[name] + (1 - decay) * value
    for name, value in network.average.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(value.double(), expected[name], atol=1e-6), name
            assert not torch.equal(value, network.live.state_dict()[name]), name
    assert int(network.average.state_dict()["1.num_batches_tracked"]) == 12
    assert deployed(network) is network.average


def test_training_is_what_it_was_without() -> None:
    with_average = steps(*trained_with(small(), run_config(server_ema=0.9), 0.1), range(4))
    without = steps(*trained_with(small(), run_config(), 0.1), range(4))
    for one, other in zip(with_average, without, strict=True):
        assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_without_one_there_is_the_network_itself() -> None:
    plain = small()
    network, optimizer = trained_with(plain, run_config(), 0.1)
    assert network is plain and deployed(network) is plain
    assert not optimizer._optimizer_step_post_hooks


def test_the_average_answers_in_eval_mode() -> None:
    network, optimizer = trained_with(small(), run_config(server_ema=0.9), 0.1)
    steps(network, optimizer, range(3))
    assert isinstance(network, Averaged)
    images = torch.randn(5, 2, 2, 2)
    network.eval()
    assert torch.equal(network(images), network.average(images))
    assert not torch.equal(network(images), network.live(images))
    network.train()
    assert torch.equal(network(images), network.live(images))


def test_a_killed_average_goes_on_to_the_same_bytes() -> None:
    config = run_config(server_ema=0.9)
    network, optimizer = trained_with(small(), config, 0.1)
    steps(network, optimizer, range(3))
    saved = state_bytes({"n": network}, {"n": optimizer}, {}, {})
    steps(network, optimizer, range(3, 9))
    again, its_optimizer = trained_with(small(), config, 0.1)
    restore_state(saved, {"n": again}, {"n": its_optimizer}, "saved")
    steps(again, its_optimizer, range(3, 9))
    both = [
        state_bytes({"n": each}, {"n": own}, {}, {})
        for each, own in ((network, optimizer), (again, its_optimizer))
    ]
    assert both[0] == both[1]


@pytest.mark.parametrize("soft_labels", ["last_epoch", "evaluation"])
def test_soft_labels_are_those_of_the_average(soft_labels: str) -> None:
    """One batch an epoch: the last update is that of all samples."""
    config = run_config(
        server_ema=0.9, server_epochs=3, server_batch_size=64, soft_labels=soft_labels, server_lr=0.01
    )
    network, optimizer = trained_with(nn.Sequential(nn.Flatten(), nn.Linear(1024, NUM_CLASSES)), config, 0.01)
    shards = source()
    options: dict[str, Any] = {"round_num": 1, "num_classes": NUM_CLASSES}
    update = server_update(network, optimizer, shards, config, **options)
    features = torch.from_numpy(shards.gather(np.arange(len(shards))).features)
    assert isinstance(network, Averaged)
    with torch.no_grad():
        assert torch.allclose(network.average(features), torch.from_numpy(update.server_logits), atol=1e-6)
        assert not torch.allclose(network.live(features), torch.from_numpy(update.server_logits), atol=1e-3)

"""Weight decay without norms, label smoothing, soft labels in float32: what each does."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gkt_core.algorithms import runner, server_update
from gkt_core.algorithms.base import evaluate_images
from gkt_core.algorithms.registry import AlgorithmOptions, build_algorithm
from gkt_core.algorithms.runner import Listener, run_algorithm
from gkt_core.algorithms.simulation.federation import Federation
from gkt_core.config.run_config import RunConfig
from gkt_core.errors import ConfigError
from gkt_core.nn import build_server_network
from gkt_core.nn.execution import training_precision
from gkt_core.nn.losses import server_loss
from gkt_core.nn.optimizers import large_network_optimizer
from tests.gkt_core.rounds.test_learning_rate import source
from tests.server_app.server_fixtures import NUM_CLASSES, private_data, run_config

CPU = torch.device("cpu")


def layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))


@pytest.mark.parametrize("optimizer_name", ["sgd", "adam"])
@pytest.mark.parametrize("decay_norms", [True, False])
def test_weight_decay_reaches_vectors_only_if_it_is_to(optimizer_name: str, decay_norms: bool) -> None:
    """With gradients of zero, decay is all that changes a parameter."""
    network = layers()
    config = RunConfig(server_optimizer=optimizer_name, weight_decay=0.1, decay_norms=decay_norms)
    optimizer = large_network_optimizer(network.parameters(), config, 0.1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0)
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    changed = {name for name, value in network.named_parameters() if not torch.all(value == 1)}
    vectors = {"0.bias", "1.weight", "1.bias", "3.bias"}
    assert changed == {"0.weight", "3.weight"} | (vectors if decay_norms else set())
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 6


@given(st.integers(0, 2**16), st.floats(0.0, 0.9))
def test_label_smoothing_mixes_in_all_classes_alike(seed: int, smoothing: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(7, 5, generator=generator)
    labels = torch.randint(0, 5, (7,), generator=generator)
    log_probabilities = torch.log_softmax(logits, dim=1)
    hard = -log_probabilities[torch.arange(7), labels].mean()
    expected = (1 - smoothing) * hard - smoothing * log_probabilities.mean()
    found = server_loss(logits, labels, logits, 0.0, 3.0, smoothing)
    assert math.isclose(found, expected, rel_tol=1e-4, abs_tol=1e-5)
    assert torch.equal(
        server_loss(logits, labels, logits, 0.0, 3.0), server_loss(logits, labels, logits, 0, 3.0, 0)
    )


def test_soft_labels_are_in_float32_where_training_is_not() -> None:
    """One batch an epoch: the network in the end is the one that gave them."""
    config = run_config(precision="bf16", server_epochs=2, server_batch_size=64)
    network = build_server_network("resnet55", NUM_CLASSES, seed=1)
    optimizer = large_network_optimizer(network.parameters(), config, config.server_lr)
    shards = source()
    options: dict[str, Any] = {"round_num": 1, "num_classes": NUM_CLASSES}
    update = server_update(network, optimizer, shards, config, **options)
    order = np.arange(len(shards))
    features = torch.from_numpy(shards.gather(order).features)
    network.eval()
    with torch.no_grad():
        exact = network(features)
        with training_precision("bf16", CPU):
            rounded = network(features).float()
    found = torch.from_numpy(update.server_logits)
    assert torch.allclose(found, exact, atol=1e-5)
    assert not torch.allclose(rounded, exact, atol=1e-4), "bfloat16 shows here"


def test_no_training_begins_with_a_precision_that_was_not_looked_up() -> None:
    with pytest.raises(ConfigError, match="precision is 'auto' in a training"):
        training_precision("auto", CPU)


@pytest.mark.parametrize("name", ["fedavg", "split_learning"])
def test_what_has_no_network_of_the_servers_has_no_average(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"server_ema is 0\.9, but"):
        build_algorithm(AlgorithmOptions(name), federation(), run_config(server_ema=0.9), tmp_path)


def federation() -> Federation:
    data = {f"client-{letter}": private_data(seed) for seed, letter in enumerate("abc")}
    first = data["client-a"]
    return Federation(data, first.validation, first.class_names, (0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize("is_shared", [False, True], ids=["own", "shared"])
def test_devices_that_share_an_extractor_are_tested_once(
    is_shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run_config(num_clients=3, rounds=1)
    algorithm = build_algorithm(AlgorithmOptions("fedgkt"), federation(), config, tmp_path)
    passes: list[nn.Module] = []

    def counted(model: nn.Module, *rest: Any) -> Any:
        passes.append(model)
        return evaluate_images(model, *rest)

    def share(*arguments: Any) -> None:
        networks = algorithm.modules()
        for client_id in ("client-b", "client-c") if is_shared else ():
            networks[client_id].load_state_dict(networks["client-a"].state_dict())

    monkeypatch.setattr(runner, "evaluate_images", counted)
    listener = Listener(on_round=share)
    result = run_algorithm(algorithm, federation(), tmp_path, config=config, settings={}, listener=listener)
    assert len(passes) == (1 if is_shared else 3)
    assert list(result["test_accuracies"]) == ["client-a", "client-b", "client-c"]
    if is_shared:
        assert len(set(result["test_accuracies"].values())) == 1
    assert sum(map(sum, result["confusion_matrix"])) == 3 * result["num_test_examples"]


def test_a_run_of_before_an_option_goes_on(tmp_path: Path) -> None:
    """What its settings do not name has the default that it had then; another value is another run."""
    settings = {"algorithm": "fedgkt", **RunConfig(seed=4).to_dict()}
    old = {name: value for name, value in settings.items() if name not in ("server_ema", "lr_warmup")}
    runner.check_settings(tmp_path, old)
    runner.check_settings(tmp_path, settings)
    with pytest.raises(ConfigError, match=r"server_ema 0.9 instead of 0.0\)"):
        runner.check_settings(tmp_path, {**settings, "server_ema": 0.9})

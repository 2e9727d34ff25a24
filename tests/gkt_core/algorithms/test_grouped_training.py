"""All devices' steps at once give what one device after another gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gkt_core.algorithms.fedgkt import FedGKT
from gkt_core.algorithms.simulation.federation import Federation, load_federation
from gkt_core.config.run_config import RunConfig
from gkt_core.data.datasets import load_dataset
from gkt_core.data.split import SplitOptions, split_dataset
from gkt_core.errors import GKTError
from gkt_core.nn.checkpoint import load_state, save_state
from gkt_core.wire.shards import SoftLabels
from tests.gkt_core.algorithms.test_algorithms import build, ignore, with_options


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """Three devices with different numbers of samples."""
    out = tmp_path_factory.mktemp("uneven") / "split"
    split_dataset(
        load_dataset("digits", image_size=8, limit=150), SplitOptions(3, "dirichlet", 0.5, 0.1, 4), out
    )
    federation = load_federation(out)
    assert len({len(data.train) for data in federation.clients.values()}) == 3
    return federation


def fedgkt(
    federation: Federation, config: RunConfig, *, grouped: bool, edge_network: str = "resnet8"
) -> FedGKT:
    algorithm = build("fedgkt", federation, config, grouped=grouped, edge_network=edge_network)
    assert isinstance(algorithm, FedGKT)
    return algorithm


def ignore_samples(num: int) -> None:
    """A listener that hears nothing."""


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"edge_optimizer": "sgd", "edge_lr": 0.01, "edge_weight_decay": 1e-3},
        {"edge_optimizer": "sgd", "edge_lr": 0.01, "nesterov": False},
        {"edge_amsgrad": True, "edge_weight_decay": 1e-2},
        {"edge_optimizer": "adamw", "edge_weight_decay": 1e-2},
        {"shared_init": False, "local_epochs": 2},
        {"lr_schedule": "one_cycle", "local_epochs": 2},
        {"edge_network": "resnet8-8x8x8", "edge_optimizer": "sgd", "edge_lr": 0.01},
        {"leakage_penalty": 0.5, "edge_optimizer": "sgd", "edge_lr": 0.01},
        {"lr_schedule": "cosine_by_step", "edge_optimizer": "sgd", "edge_lr": 0.01},
    ],
    ids=str,
)
def test_the_same_as_one_by_one(options: dict[str, Any], uneven: Federation) -> None:
    """Two rounds of local training, the second with a teacher and without one of the devices."""
    named = {"edge_network": options.get("edge_network", "resnet8")}
    given = {name: value for name, value in options.items() if name not in named}
    config = with_options(batch_size=8, **given)
    # Adam divides by the size of gradients: of a very small one it makes much of its rounding error.
    atol = 2e-5 if config.edge_optimizer == "sgd" else 3e-4
    one_by_one, grouped = (fedgkt(uneven, config, grouped=each, **named) for each in (False, True))
    assert grouped._grouped is not None
    for client in one_by_one._clients.values():
        client.train(1, 1.0, ignore_samples)
    grouped._grouped.train(list(grouped._clients), 1, 1.0, ignore_samples)
    chosen = list(grouped._clients)[1:]
    for algorithm in (one_by_one, grouped):
        for client_id in chosen:
            client = algorithm._clients[client_id]
            ids = client.part.data.train.sample_ids
            logits = np.random.default_rng(5).normal(size=(len(ids), 10)).astype(np.float32)
            client.last_round = 1
            client.receive(SoftLabels(ids, logits))
    for client_id in chosen:
        one_by_one._clients[client_id].train(2, 0.5, ignore_samples)
    grouped._grouped.train(chosen, 2, 0.5, ignore_samples)
    for client_id, network in one_by_one.edge_models().items():
        found = grouped.edge_models()[client_id].state_dict()
        for key, value in network.state_dict().items():
            assert torch.allclose(value, found[key], atol=atol, rtol=1e-3), (client_id, key)
    if config.edge_optimizer != "sgd":
        return
    states = [
        algorithm.optimizers()["client-002"].state_dict()["state"] for algorithm in (one_by_one, grouped)
    ]
    assert states[0].keys() == states[1].keys()
    for index, state in states[0].items():
        for key, value in state.items():
            assert torch.allclose(value, states[1][index][key], atol=1e-4, rtol=1e-2), (index, key)


def test_resumed_in_the_middle(uneven: Federation, tmp_path: Path) -> None:
    """Views of the stacks survive a checkpoint: a fresh process goes on the same."""
    config = with_options(batch_size=8)
    first = build("fedgkt", uneven, config, grouped=True)
    first.run_round(1, 1.0, ignore)
    path = tmp_path / "checkpoint.safetensors"
    save_state(path, first.modules(), first.optimizers(), first.arrays(), {})
    second = build("fedgkt", uneven, config, grouped=True)
    arrays, _ = load_state(path, second.modules(), second.optimizers())
    second.restore_arrays(arrays)
    assert first.run_round(2, 1.0, ignore) == second.run_round(2, 1.0, ignore)
    for name, module in first.modules().items():
        for key, value in module.state_dict().items():
            assert torch.equal(value, second.modules()[name].state_dict()[key]), (name, key)


def test_full_batches_are_taken_together(uneven: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    config = with_options(batch_size=8)
    algorithm = fedgkt(uneven, config, grouped=True)
    grouped = algorithm._grouped
    assert grouped is not None
    sizes: list[int] = []
    original = grouped._step

    def spy(batches: Any, *arguments: Any) -> None:
        sizes.append(len(batches))
        assert {len(batch.labels) for batch in batches.values()} == {8}
        original(batches, *arguments)

    monkeypatch.setattr(grouped, "_step", spy)
    algorithm.run_round(1, 1.0, ignore)
    assert max(sizes) == 3
    assert set(sizes) <= {2, 3}


def test_divergence_is_named(uneven: Federation) -> None:
    algorithm = build(
        "fedgkt", uneven, with_options(batch_size=8, edge_optimizer="sgd", edge_lr=1e30), grouped=True
    )
    with pytest.raises(GKTError, match="lower edge_lr"):
        for number in (1, 2):
            algorithm.run_round(number, 1.0, ignore)

"""What each algorithm computes, on networks and data small enough to check."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gkt_core import networks
from gkt_core.algorithm_names import ALGORITHMS, SIMULATION_DEFAULTS
from gkt_core.algorithms import server_round
from gkt_core.algorithms.base import Algorithm, evaluate_images, state_wire_bytes
from gkt_core.algorithms.fedgkt import FedGKT
from gkt_core.algorithms.registry import AlgorithmOptions, build_algorithm
from gkt_core.algorithms.simulation.federation import Federation, load_federation, training_batches
from gkt_core.config.run_config import RunConfig
from gkt_core.data.datasets import load_dataset
from gkt_core.data.sent_images import SENT_AS, sent_images
from gkt_core.data.split import SplitOptions, split_dataset
from gkt_core.errors import ConfigError, DatasetError
from gkt_core.nn import CombinedNetwork, build_full_network
from gkt_core.rounds.learning_rate import learning_rate_scale
from gkt_core.rounds.sampling import sample_clients
from gkt_core.wire.shards import SoftLabels

CONFIG = RunConfig(
    num_clients=2,
    rounds=2,
    server_epochs=1,
    batch_size=16,
    server_batch_size=16,
    crop_padding=1,
    horizontal_flip=False,
    shard_samples=16,
)


def build(name: str, federation: Federation, config: RunConfig = CONFIG, **options: object) -> Algorithm:
    chosen = AlgorithmOptions(name, pretraining_epochs=1, **options)  # type: ignore[arg-type]
    return build_algorithm(chosen, federation, config, Path("unused"))


def ignore(phase: str, num: int) -> None:
    """A listener that hears nothing."""


def full_network(federation: Federation) -> torch.nn.Module:
    network = build_full_network(
        "resnet56", federation.num_classes, pixel_mean=federation.pixel_mean, pixel_std=federation.pixel_std
    )
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def test_every_algorithm_has_defaults_of_its_own() -> None:
    assert set(SIMULATION_DEFAULTS) == set(ALGORITHMS)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_round_trains_and_is_repeatable(name: str, federation: Federation) -> None:
    results = []
    for _ in range(2):
        algorithm = build(name, federation)
        before = {k: v.clone() for m in algorithm.modules().values() for k, v in m.state_dict().items()}
        results.append([algorithm.run_round(number, 1.0, ignore) for number in (1, 2)])
        after = {k: v for m in algorithm.modules().values() for k, v in m.state_dict().items()}
        assert any(not torch.equal(before[name], after[name]) for name in before)
    assert results[0] == results[1]
    assert all(0 <= result.validation_accuracy <= 1 for result in results[0])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_models_take_images(name: str, federation: Federation) -> None:
    algorithm = build(name, federation)
    models = algorithm.models()
    assert len(models) == (2 if name == "fedgkt" else 1)
    for model in models.values():
        found = evaluate_images(model, federation.test, federation.num_classes)
        assert found.confusion is not None
        assert found.confusion.sum() == len(federation.test) == 360
        assert found.accuracy == pytest.approx(np.trace(found.confusion) / 360)


def test_fedavg_of_one_device_is_local_training(federation: Federation) -> None:
    (owner, data), *_ = federation.clients.items()
    alone = Federation({owner: data}, federation.test, federation.class_names, federation.pixel_mean,
                       federation.pixel_std)  # fmt: skip
    algorithm = build("fedavg", alone)
    algorithm.run_round(1, 1.0, ignore)
    network = full_network(federation)
    optimizer = torch.optim.Adam(
        network.parameters(), lr=CONFIG.edge_lr, weight_decay=CONFIG.weight_decay, amsgrad=True
    )
    network.train()
    for images, labels in training_batches(data.train, CONFIG, owner=owner, round_num=1, epochs=1):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    found = algorithm.models()["global"].state_dict()
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(found[name], value, atol=1e-6), name


def test_fedavg_weighs_devices_by_their_examples(federation: Federation) -> None:
    """Two devices' networks after one round, averaged by hand."""
    merged = build("fedavg", federation)
    merged.run_round(1, 1.0, ignore)
    singles, weights = [], []
    for owner, data in federation.clients.items():
        alone = Federation({owner: data}, federation.test, federation.class_names, federation.pixel_mean,
                           federation.pixel_std)  # fmt: skip
        algorithm = build("fedavg", alone)
        algorithm.run_round(1, 1.0, ignore)
        singles.append(algorithm.models()["global"].state_dict())
        weights.append(len(data.train) / federation.num_examples)
    assert sum(weights) == pytest.approx(1)
    for name, value in merged.models()["global"].state_dict().items():
        if value.is_floating_point():
            expected = sum(w * single[name].double() for w, single in zip(weights, singles, strict=True))
            assert torch.allclose(value.double(), expected, atol=1e-6), name


def test_fedavg_sends_the_whole_network_both_ways(federation: Federation) -> None:
    plain = build("fedavg", federation, with_options(compress=False)).run_round(1, 1.0, ignore)
    raw = state_wire_bytes(full_network(federation), compressed=False)
    assert plain.upload_bytes == plain.download_bytes == 2 * raw
    # 591,322 parameters in float32 and the running statistics beside them.
    assert raw > 4 * 591_322
    packed = build("fedavg", federation).run_round(1, 1.0, ignore)
    assert packed.upload_bytes < plain.upload_bytes and packed.validation_loss == plain.validation_loss


def test_fedavg_in_8_bits_sends_a_quarter_and_learns_the_same(federation: Federation) -> None:
    whole, coded = (build("fedavg", federation, with_options(codec=codec)) for codec in ("fp32", "uint8"))
    begun = {name: value.clone() for name, value in whole.models()["global"].state_dict().items()}
    results = [algorithm.run_round(1, 1.0, ignore) for algorithm in (whole, coded)]
    assert results[1].upload_bytes < results[0].upload_bytes / 3
    assert results[1].download_bytes == results[0].download_bytes
    assert results[1].train_loss == results[0].train_loss
    for name, value in whole.models()["global"].state_dict().items():
        if value.is_floating_point():
            off = (coded.models()["global"].state_dict()[name] - value).abs().max().item()
            # A step of the farthest movement; the mean of two devices may hide how far each moved.
            assert off <= 4 * (value - begun[name]).abs().max().item() / 255 + 1e-6, name


def test_split_learning_is_one_network(federation: Federation) -> None:
    """The cut changes where gradients are computed, not what they are."""
    algorithm = build("split_learning", federation)
    algorithm.run_round(1, 1.0, ignore)
    network = full_network(federation)
    optimizer = torch.optim.Adam(
        network.parameters(), lr=CONFIG.edge_lr, weight_decay=CONFIG.weight_decay, amsgrad=True
    )
    network.train()
    for owner, data in federation.clients.items():
        for images, labels in training_batches(data.train, CONFIG, owner=owner, round_num=1, epochs=1):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    found = algorithm.models()["global"].state_dict()
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(found[name], value, atol=1e-5), name


def test_split_learning_cuts_after_464_parameters(federation: Federation) -> None:
    algorithm = build("split_learning", federation, with_options(compress=False))
    network = algorithm.models()["global"]
    assert isinstance(network, CombinedNetwork)
    assert sum(p.numel() for p in network.extractor.parameters()) == 464
    result = algorithm.run_round(1, 1.0, ignore)
    # Eq. 12: a feature map of 16 x 8 x 8 floats for each sample, and as much gradient back.
    features = 4 * 16 * 8 * 8 * federation.num_examples
    labels, extractor = 8 * federation.num_examples, 2 * 4 * (464 + 32)
    assert result.upload_bytes == features + labels + extractor
    assert result.download_bytes == features + extractor


def test_centralised_training_sends_nothing(federation: Federation) -> None:
    for network in (None, "resnet8"):
        result = build("centralized", federation, central_network=network).run_round(1, 1.0, ignore)
        assert result.upload_bytes == result.download_bytes == 0


@pytest.mark.parametrize("sent_as", SENT_AS)
def test_images_that_are_sent_count_once(sent_as: str, federation: Federation) -> None:
    algorithm = build("centralized", federation, central_network="resnet8", sent_as=sent_as)
    first, second = (algorithm.run_round(round_num, 1.0, ignore) for round_num in (1, 2))
    num_bytes = 0
    for data in federation.clients.values():
        for samples in (data.train, data.validation):
            num_bytes += sent_images(samples, sent_as)[1]
    assert (first.upload_bytes, second.upload_bytes, first.download_bytes) == (num_bytes, 0, 0)
    with pytest.raises(ConfigError, match="fedavg sends no images: leave out --images-sent-as"):
        build("fedavg", federation, sent_as=sent_as)


def test_fedgkt_counts_soft_labels_of_the_round_before(federation: Federation) -> None:
    algorithm = build("fedgkt", federation)
    first, second = algorithm.run_round(1, 1.0, ignore), algorithm.run_round(2, 1.0, ignore)
    assert first.download_bytes == 0
    per_sample = 8 + 4 * federation.num_classes
    assert 0 <= second.download_bytes - per_sample * federation.num_examples < 1000
    silent = build("fedgkt", federation, RunConfig(**{**CONFIG.to_dict(), "direction": "none"}))
    silent.run_round(1, 1.0, ignore)
    assert silent.run_round(2, 1.0, ignore).download_bytes == 0


def test_ecofed_freezes_the_device_and_uploads_once_a_period(federation: Federation) -> None:
    algorithm = build("ecofed", federation, replay_period=2)
    first = algorithm.run_round(1, 1.0, ignore)
    frozen = copy.deepcopy(algorithm.modules()["device"].state_dict())
    second, third = algorithm.run_round(2, 1.0, ignore), algorithm.run_round(3, 1.0, ignore)
    assert all(torch.equal(v, frozen[k]) for k, v in algorithm.modules()["device"].state_dict().items())
    assert first.upload_bytes > 0
    assert second.upload_bytes == 0
    assert third.upload_bytes > 0
    # Each device gets the extractor once.
    assert first.download_bytes > 2 * 4 * 400 and second.download_bytes == third.download_bytes == 0


def test_ecofed_asks_the_devices_that_were_drawn(federation: Federation) -> None:
    """One of two a refresh: the other's features stay as they were, and it gets its extractor when drawn."""
    algorithm = build(
        "ecofed", federation, with_options(client_fraction=0.5, seed=1, rounds=4), replay_period=1
    )
    both = build("ecofed", federation, with_options(seed=1), replay_period=1).run_round(1, 1.0, ignore)
    drawn = [
        sample_clients(list(federation.clients), 0.5, seed=1, round_num=number)[0] for number in range(1, 5)
    ]
    assert len(set(drawn)) == 2
    seen: set[str] = set()
    for number, client_id in enumerate(drawn, 1):
        result = algorithm.run_round(number, 1.0, ignore)
        assert 0 < result.upload_bytes < both.upload_bytes
        assert (result.download_bytes > 0) == (client_id not in seen)
        seen.add(client_id)


def test_ecofed_without_samples_to_pretrain_on(federation: Federation) -> None:
    bare = Federation(federation.clients, federation.test, federation.class_names, federation.pixel_mean,
                      federation.pixel_std)  # fmt: skip
    with pytest.raises(ConfigError, match="pre-training share"):
        build("ecofed", bare)


def test_unknown_names(federation: Federation, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown algorithm 'sgd'"):
        build("sgd", federation)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="finds no GPU"):
            build("fedgkt", federation, device="cuda")
    with pytest.raises(DatasetError, match="holds no split"):
        load_federation(tmp_path)


def with_options(**options: object) -> RunConfig:
    return RunConfig(**{**CONFIG.to_dict(), **options})


def losses_of_two_rounds(federation: Federation, config: RunConfig) -> list[float]:
    """Teacher view and soft labels reach the server through the second round's features."""
    algorithm = build("fedgkt", federation, config)
    return [algorithm.run_round(number, 1.0, ignore).train_loss for number in (1, 2)]


@pytest.fixture(scope="module")
def plain_losses(federation: Federation) -> list[float]:
    return losses_of_two_rounds(federation, CONFIG)


@pytest.mark.parametrize(
    "options",
    [
        {"server_optimizer": "sgd", "server_lr": 0.01},
        {"batch_mixing": "by_client"},
        {"teacher_view": "fresh"},
        {"soft_labels": "evaluation"},
        {"direction": "both"},
        {"direction": "none"},
        {"codec": "uint4"},
        {"edge_optimizer": "sgd", "edge_lr": 0.01},
        {"edge_weight_decay": 0.1},
        {"edge_amsgrad": True},
        {"server_amsgrad": False},
        {"shared_init": False},
        {"client_fraction": 0.5},
        {"mode": "async"},
    ],
    ids=str,
)
def test_every_option_of_fedgkt_changes_the_numbers(
    options: dict[str, object], federation: Federation, plain_losses: list[float]
) -> None:
    assert losses_of_two_rounds(federation, with_options(**options)) != plain_losses


def test_batches_by_client_hold_one_client_each(federation: Federation) -> None:
    owners = np.repeat([0, 1, 2], [20, 7, 33])
    source: Any = SimpleNamespace(owners=owners, sample_ids=np.arange(60))
    config = with_options(batch_mixing="by_client")
    rows = server_round._batch_rows(source, config, 1, 1)
    assert all(len(set(owners[batch])) == 1 for batch in rows)
    assert sorted(np.concatenate(rows).tolist()) == list(range(60))
    mixed = server_round._batch_rows(source, CONFIG, 1, 1)
    assert any(len(set(owners[batch])) > 1 for batch in mixed)


@pytest.mark.parametrize(
    ("accuracies", "patience", "expected"),
    [
        ([], 2, 1.0),
        ([0.1, 0.2, 0.3], 2, 1.0),
        ([0.3, 0.2], 2, 1.0),
        ([0.3, 0.2, 0.3], 2, 0.5),
        ([0.3, 0.2, 0.3, 0.2, 0.2], 2, 0.25),
        ([0.3, 0.2, 0.3, 0.4, 0.4], 2, 0.5),
        ([0.3, 0.2, 0.1, 0.1, 0.1, 0.1], 0, 1.0),
    ],
)
def test_learning_rate_falls_on_a_plateau(accuracies: list[float], patience: int, expected: float) -> None:
    config = with_options(plateau_patience=patience, plateau_factor=0.5)
    assert learning_rate_scale(config, len(accuracies) + 1, accuracies) == pytest.approx(expected)


def test_a_cosine_begins_whole_and_ends_small() -> None:
    config = with_options(lr_schedule="cosine", rounds=9)
    scales = [learning_rate_scale(config, number, []) for number in range(1, 10)]
    assert scales[0] == 1
    assert scales[4] == pytest.approx(0.505)
    assert scales[-1] == pytest.approx(0.01)
    assert scales == sorted(scales, reverse=True)
    assert learning_rate_scale(with_options(lr_schedule="cosine", rounds=1), 1, []) == 1


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name != "ecofed"])
def test_the_learning_rate_of_every_network_is_scaled(name: str, federation: Federation) -> None:
    """A rate of almost nothing leaves almost everything as it was."""
    algorithm = build(name, federation)
    before = [p.detach().clone() for m in algorithm.modules().values() for p in m.parameters()]
    algorithm.run_round(1, 1e-9, ignore)
    after = [p for m in algorithm.modules().values() for p in m.parameters()]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(before, after, strict=True))


class _Misplaced(SoftLabels):
    """Every sample gets another sample's soft label."""

    def for_samples(self, sample_ids: np.ndarray) -> np.ndarray:
        return np.roll(super().for_samples(sample_ids), 1, axis=0)


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU())


@pytest.fixture
def small_teacher(monkeypatch: pytest.MonkeyPatch) -> str:
    """A server network that learns digits of 8 pixels in seconds, as ResNet-55 does in minutes."""
    name = "small_teacher"
    monkeypatch.setattr(networks, "_registered_servers", {})
    networks.register_server_network(
        name,
        lambda num_classes: nn.Sequential(
            _convolution(16, 32, 1),
            _convolution(32, 64, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, num_classes),
        ),
    )
    return name


@pytest.mark.system
def test_wrong_pairing_costs_the_devices_heads_accuracy(tmp_path: Path, small_teacher: str) -> None:
    """Distillation from a good teacher helps the heads only when each sample gets its own soft label."""
    dataset = load_dataset("digits", image_size=8, limit=360)
    split_dataset(dataset, SplitOptions(2, "iid", 0.5, 0.1, 0), tmp_path / "split")
    federation = load_federation(tmp_path / "split")
    config = with_options(rounds=5, server_epochs=4, local_epochs=4, edge_lr=3e-3, alpha=3.0)

    def head_accuracy(*, misplaced: bool) -> float:
        algorithm = build("fedgkt", federation, config, server_network=small_teacher)
        assert isinstance(algorithm, FedGKT)
        for number in range(1, config.rounds + 1):
            algorithm.run_round(number, 1.0, ignore)
            if misplaced:
                for client in algorithm._clients.values():
                    soft_labels = client._soft_labels
                    assert soft_labels is not None
                    client.receive(_Misplaced(soft_labels.sample_ids, soft_labels.server_logits))
        found = [
            evaluate_images(model, federation.test, federation.num_classes).accuracy
            for model in algorithm.edge_models().values()
        ]
        return float(np.mean(found))

    assert head_accuracy(misplaced=True) < head_accuracy(misplaced=False) - 0.1

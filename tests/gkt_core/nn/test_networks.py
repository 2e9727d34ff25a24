"""The networks are the paper's, to the parameter; the losses are Eq. 6 and 7."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gkt_core.errors import ConfigError
from gkt_core.networks import EDGE_LAYOUTS, completing_network
from gkt_core.nn import (
    build_combined_network,
    build_edge_network,
    build_full_network,
    build_server_network,
    edge_loss,
    feature_shape,
    kd_loss,
    server_loss,
)
from gkt_core.nn.building import example_images
from profiling.counted.network_cost import (
    NETWORK_NAMES,
    count_forward_macs,
    count_network,
    count_parameters,
    count_with_fvcore,
)

BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "resnet4": build_edge_network,
    "resnet6": build_edge_network,
    "resnet8": build_edge_network,
    "resnet55": build_server_network,
    "resnet109": build_server_network,
    "resnet56": build_full_network,
    "resnet110": build_full_network,
}


def build(name: str, num_classes: int = 10, seed: int = 0) -> nn.Module:
    return BUILDERS[name](name, num_classes, seed=seed)


@pytest.mark.parametrize(
    ("name", "num_classes", "expected"),
    [
        ("resnet4", 10, 5_306),
        ("resnet6", 10, 9_978),
        ("resnet8", 10, 10_586),
        ("resnet8", 100, 16_436),
        ("resnet55", 10, 590_858),
        ("resnet109", 10, 1_147_274),
        ("resnet56", 10, 591_322),
        ("resnet56", 100, 614_452),
        ("resnet110", 10, 1_147_738),
        ("resnet110", 100, 1_170_868),
    ],
)
def test_parameter_counts(name: str, num_classes: int, expected: int) -> None:
    assert count_parameters(build(name, num_classes)) == expected


def test_extractor_and_server_network_are_the_full_network() -> None:
    extractor = build_edge_network("resnet8", 10).extractor
    assert count_parameters(extractor) == 464
    for server, full in (("resnet55", "resnet56"), ("resnet109", "resnet110")):
        together = count_parameters(extractor) + count_parameters(build(server))
        assert together == count_parameters(build(full))


@pytest.mark.parametrize(
    ("name", "mega_macs", "rounding"),
    [
        ("resnet4", 5.16, 0.005),
        ("resnet6", 9.88, 0.005),
        ("resnet8", 9.618, 0.0005),
        ("resnet55", 86.77, 0.005),
        ("resnet109", 166.99, 0.005),
        ("resnet56", 87.2, 0.05),
        ("resnet110", 167.4, 0.05),
    ],
)
def test_forward_macs(name: str, mega_macs: float, rounding: float) -> None:
    inputs = torch.zeros(1, 16, 32, 32) if BUILDERS[name] is build_server_network else example_images(1, 32)
    assert count_forward_macs(build(name), inputs) / 1e6 == pytest.approx(mega_macs, abs=rounding)


def test_macs_grow_with_the_batch_and_do_not_count_batch_norm() -> None:
    network = build("resnet8")
    one, two = (count_forward_macs(network, example_images(num, 32)) for num in (1, 2))
    assert two == 2 * one
    # 272 channels of 32 x 32 pixels are normalised, 5 operations each.
    assert count_with_fvcore(network, example_images(1, 32))[0] == one + 5 * 272 * 32 * 32


@pytest.mark.parametrize("name", NETWORK_NAMES)
def test_backward_costs_twice_the_forward_pass_but_for_the_images(name: str) -> None:
    cost = count_network(name)
    stem_macs = 32 * 32 * 9 * 3 * 16
    assert cost.train_flops == 2 * (3 * cost.forward_macs - stem_macs)


@pytest.mark.parametrize("name", BUILDERS)
def test_weights_follow_the_seed(name: str) -> None:
    first, again, other = (build(name, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    weights = [key for key, value in first.items() if value.dim() > 1]
    assert weights
    assert not any(torch.equal(first[key], other[key]) for key in weights)


@pytest.mark.parametrize("name", ["resnet8", "resnet55", "resnet56"])
def test_building_leaves_the_global_random_state_alone(name: str) -> None:
    before = torch.get_rng_state()
    build(name)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ["resnet4", "resnet6", "resnet8", "resnet8-tied"])
@pytest.mark.parametrize("size", [8, 32])
def test_the_tap(name: str, size: int) -> None:
    features, logits = build_edge_network(name, 10)(example_images(2, size))
    assert features.shape == (2, 16, size, size)
    assert features.min() >= 0
    assert 0.2 < (features == 0).float().mean() < 0.8
    assert logits.shape == (2, 10)


def test_a_tied_stem_has_half_of_the_parameters_and_all_of_the_work() -> None:
    plain, tied = (build_edge_network(name, 10) for name in ("resnet8", "resnet8-tied"))
    assert count_parameters(tied.extractor) == 232 == count_parameters(plain.extractor) // 2
    images = example_images(1, 32)
    assert count_forward_macs(tied, images) == count_forward_macs(plain, images)


@pytest.mark.parametrize(
    ("name", "shape", "num_parameters", "server_parameters", "server_mega_macs"),
    [
        ("resnet8-16x16x16", (16, 16, 16), 12_026, 590_858, 64.95),
        ("resnet8-16x8x8", (16, 8, 8), 25_338, 590_858, 37.08),
        ("resnet8-8x8x8", (8, 8, 8), 24_170, 590_218, 37.04),
    ],
)
def test_a_narrow_tap(
    name: str,
    shape: tuple[int, int, int],
    num_parameters: int,
    server_parameters: int,
    server_mega_macs: float,
) -> None:
    edge, images = build_edge_network(name, 10), example_images(4, 32)
    features, logits = edge(images)
    assert tuple(features.shape[1:]) == shape == EDGE_LAYOUTS[name].feature_shape(32)
    assert logits.shape == (4, 10)
    assert features.min() >= 0
    assert 0.2 < (features == 0).float().mean() < 0.8
    assert count_parameters(edge) == num_parameters
    assert count_forward_macs(edge, images[:1]) < 3.5e6
    server = build_server_network(completing_network(name, "resnet55"), 10)
    assert server(features).shape == (4, 10)
    assert count_parameters(server) == server_parameters == pytest.approx(590_858, rel=0.1)
    macs = count_forward_macs(server, features[:1])
    assert macs / 1e6 == pytest.approx(server_mega_macs, abs=0.005)


@pytest.mark.parametrize("size", [8, 12, 96])
@pytest.mark.parametrize("name", EDGE_LAYOUTS)
def test_the_stride_of_a_tap_holds_for_every_image_size(name: str, size: int) -> None:
    edge, layout = build_edge_network(name, 10), EDGE_LAYOUTS[name]
    shape = feature_shape(edge, size)
    assert (
        shape == layout.feature_shape(size) == (layout.channels, size // layout.stride, size // layout.stride)
    )
    combined = build_combined_network(name, "resnet109", 10)
    assert combined(example_images(2, size)).shape == (2, 10)


def test_a_server_network_of_another_tap_is_refused_with_one_that_fits() -> None:
    for edge, server, channels in (
        ("resnet8", "resnet55-8x8x8", 8),
        ("resnet8-8x8x8", "resnet55-16x8x8", 16),
    ):
        with pytest.raises(
            ConfigError, match=rf"{server} takes .* {channels} .* tap of {edge}.*--server-model"
        ):
            build_combined_network(edge, server, 10)
    assert completing_network("resnet8-8x8x8", "resnet109") == "resnet109-8x8x8"
    # Of a user's own networks nothing is known.
    assert completing_network("own", "resnet55") == "resnet55"


@pytest.mark.parametrize("name", ["resnet55", "resnet109"])
def test_server_networks_take_the_tap(name: str) -> None:
    assert build_server_network(name, 7)(torch.zeros(2, 16, 8, 8)).shape == (2, 7)


@pytest.mark.parametrize("builder", [build_edge_network, build_server_network, build_full_network])
def test_unknown_networks_and_class_counts_are_refused(builder: object) -> None:
    assert callable(builder)
    with pytest.raises(ConfigError, match=r"unknown network 'resnet7', expected one of resnet"):
        builder("resnet7", 10)
    known = next(name for name, known_builder in BUILDERS.items() if known_builder is builder)
    with pytest.raises(ConfigError, match="number of classes is 1"):
        builder(known, 1)


@pytest.mark.parametrize(("num", "size"), [(0, 32), (1, 30), (1, 4)])
def test_example_images_of_a_wrong_size_are_refused(num: int, size: int) -> None:
    with pytest.raises(ConfigError):
        example_images(num, size)


@pytest.fixture
def logits() -> tuple[Tensor, Tensor, Tensor]:
    """Student's and teacher's logits ``[8, 10]`` and labels ``[8]``."""
    generator = torch.Generator().manual_seed(3)
    student, teacher = (4 * torch.randn(8, 10, generator=generator) for _ in range(2))
    return student, teacher, torch.randint(10, (8,), generator=generator)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_kd_loss_is_torchs_kl_times_temperature_squared(
    logits: tuple[Tensor, Tensor, Tensor], temperature: float
) -> None:
    student, teacher, _ = logits
    expected = F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.softmax(teacher / temperature, dim=1),
        reduction="batchmean",
    )
    torch.testing.assert_close(kd_loss(student, teacher, temperature), expected * temperature**2)


def test_kd_loss_is_zero_for_equal_distributions(logits: tuple[Tensor, Tensor, Tensor]) -> None:
    student, _, _ = logits
    # A constant added to a sample's logits changes no softmax.
    assert kd_loss(student, student + 5.0, 3.0).item() == pytest.approx(0, abs=1e-5)


def test_kd_loss_pulls_the_student_towards_the_teacher(logits: tuple[Tensor, Tensor, Tensor]) -> None:
    student, teacher, _ = logits
    student = student.double().requires_grad_()
    teacher = teacher.double()
    temperature = 3.0
    loss = kd_loss(student, teacher, temperature)
    (gradient,) = torch.autograd.grad(loss, student)
    # d/ds of T^2 KL(p_t || p_s), mean over N, is T (p_s - p_t) / N.
    wanted = F.softmax(student / temperature, dim=1) - F.softmax(teacher / temperature, dim=1)
    torch.testing.assert_close(gradient, temperature * wanted.detach() / len(student))
    assert kd_loss(student - 0.1 * gradient, teacher, temperature) < loss
    assert torch.autograd.gradcheck(lambda s: kd_loss(s, teacher, temperature), (student,))


def test_losses_without_distillation_are_cross_entropy(logits: tuple[Tensor, Tensor, Tensor]) -> None:
    student, teacher, labels = logits
    expected = F.cross_entropy(student, labels)
    torch.testing.assert_close(edge_loss(student, labels, teacher, 0.0, 3.0), expected)
    torch.testing.assert_close(server_loss(student, labels, teacher, 0.0, 3.0), expected)


def test_losses_weigh_distillation_by_alpha(logits: tuple[Tensor, Tensor, Tensor]) -> None:
    student, teacher, labels = logits
    expected = F.cross_entropy(student, labels) + 0.7 * kd_loss(student, teacher, 3.0)
    torch.testing.assert_close(edge_loss(student, labels, teacher, 0.7, 3.0), expected)
    torch.testing.assert_close(server_loss(student, labels, teacher, 0.7, 3.0), expected)

"""Partitions: every sample belongs to one device, the same one every time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gkt_core.data.partition import MIN_SAMPLES_PER_CLIENT, SCHEMES, hold_out, partition
from gkt_core.data.split import SplitOptions
from gkt_core.errors import ConfigError, PartitionError

SEEDS = st.integers(0, 2**40)


def labels_of(num: int, num_classes: int = 10, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, num_classes, num)


def check_parts(parts: Any, num: int, num_clients: int) -> None:
    assert len(parts) == num_clients
    assert sorted(np.concatenate(parts).tolist()) == list(range(num))
    for part in parts:
        assert part.dtype == np.intp
        assert (np.diff(part) > 0).all()
        assert len(part) >= MIN_SAMPLES_PER_CLIENT


@given(st.integers(1, 12), st.integers(0, 200), st.integers(1, 10), SEEDS)
def test_iid_gives_every_index_once_in_equal_parts(
    num_clients: int, more: int, num_classes: int, seed: int
) -> None:
    num = num_clients * MIN_SAMPLES_PER_CLIENT + more
    parts = partition(labels_of(num, num_classes), num_clients, seed=seed)
    check_parts(parts, num, num_clients)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 6), st.integers(0, 300), st.integers(1, 10), st.floats(0.05, 1e6), SEEDS)
def test_dirichlet_gives_every_index_once_or_says_that_it_cannot(
    num_clients: int, more: int, num_classes: int, alpha: float, seed: int
) -> None:
    num = num_clients * MIN_SAMPLES_PER_CLIENT + more
    labels = labels_of(num, num_classes)
    try:
        parts = partition(labels, num_clients, scheme="dirichlet", alpha=alpha, seed=seed)
    except PartitionError as error:
        assert "raise alpha, or take fewer clients" in str(error)
        return
    check_parts(parts, num, num_clients)


@given(SEEDS)
def test_dirichlet_succeeds_where_there_is_plenty(seed: int) -> None:
    check_parts(partition(labels_of(1000), 4, scheme="dirichlet", alpha=0.5, seed=seed), 1000, 4)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_seed_decides(scheme: str) -> None:
    labels = labels_of(300)
    parts = [partition(labels, 4, scheme=scheme, seed=seed) for seed in (1, 1, 2)]
    assert all(np.array_equal(a, b) for a, b in zip(parts[0], parts[1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(parts[0], parts[2], strict=True))


def test_the_draw_does_not_depend_on_the_process_wide_random_state() -> None:
    labels = labels_of(100)
    first = partition(labels, 3, scheme="dirichlet")
    np.random.seed(5)
    second = partition(labels, 3, scheme="dirichlet")
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_iid_mixes_the_classes() -> None:
    labels = np.repeat(np.arange(10), 100)
    for part in partition(labels, 4, seed=0):
        counts = np.bincount(labels[part], minlength=10)
        assert counts.min() >= 10
        assert counts.max() <= 45


def skew(alpha: float, seed: int) -> Any:
    """Mean distance of the devices' class shares from those of the whole, 0 (none) to 1."""
    labels = np.repeat(np.arange(10), 200)
    parts = partition(labels, 5, scheme="dirichlet", alpha=alpha, seed=seed)
    shares = [np.bincount(labels[part], minlength=10) / len(part) for part in parts]
    return float(np.mean([np.abs(share - 0.1).sum() / 2 for share in shares]))


def test_a_lower_alpha_is_more_skew() -> None:
    skews = [np.mean([skew(alpha, seed) for seed in range(8)]) for alpha in (0.1, 0.5, 2.0, 10.0, 1000.0)]
    assert skews == sorted(skews, reverse=True)
    assert skews[0] > 0.55
    assert skews[-1] < 0.05


def test_dirichlet_repeats_the_draw_until_everyone_has_samples() -> None:
    # A single draw would often leave a device with nothing here.
    for seed in range(20):
        parts = partition(labels_of(120, 2), 4, scheme="dirichlet", alpha=0.3, seed=seed)
        assert min(len(part) for part in parts) >= MIN_SAMPLES_PER_CLIENT


def test_a_draw_that_never_succeeds_ends() -> None:
    with pytest.raises(PartitionError, match=r"no Dirichlet\(0.001\) draw of 200 left each of 8 clients"):
        partition(np.zeros(40, np.int64), 8, scheme="dirichlet", alpha=0.001)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_too_many_clients_are_told_how_many_would_do(scheme: str) -> None:
    with pytest.raises(PartitionError, match=r"11 clients and 43 training images.*at most 10 clients"):
        partition(labels_of(43), 11, scheme=scheme)
    assert len(partition(labels_of(43), 10)) == 10


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"partition": "random"}, "--partition is 'random', expected one of iid, dirichlet"),
        ({"num_clients": 0}, "--clients is 0, expected at least 1"),
        ({"num_clients": -1}, "--clients is -1"),
        ({"seed": -1}, "--seed is -1, expected at least 0"),
        ({"dirichlet_alpha": 0.0}, "--dirichlet-alpha is 0.0, expected above 0"),
        ({"dirichlet_alpha": -1.0}, "--dirichlet-alpha is -1.0"),
        ({"dirichlet_alpha": float("nan")}, "--dirichlet-alpha is nan"),
        ({"dirichlet_alpha": float("inf")}, "--dirichlet-alpha is inf"),
    ],
    ids=str,
)
def test_values_out_of_range_are_named(changes: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        SplitOptions(**changes)


@given(st.integers(3, 500), st.floats(0.001, 0.999), SEEDS)
def test_hold_out_gives_every_position_to_one_part(num: int, share: float, seed: int) -> None:
    train, validation = hold_out(num, share, seed=seed)
    assert sorted([*train.tolist(), *validation.tolist()]) == list(range(num))
    assert (np.diff(train) > 0).all()
    assert (np.diff(validation) > 0).all()
    assert len(validation) >= 1
    assert len(train) >= 2
    assert len(validation) == min(max(1, round(num * share)), num - 2)


def test_hold_out_is_drawn_by_its_seed() -> None:
    first, same, other = (hold_out(100, 0.1, seed=seed)[1].tolist() for seed in (1, 1, 2))
    assert first == same
    assert first != other
    assert len(first) == 10


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.1, float("nan")])
def test_a_share_outside_0_to_1_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="--validation-share is"):
        SplitOptions(validation_share=share)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"num_clients": 0}, ConfigError, "num_clients is 0, expected at least 1"),
        ({"num_clients": -2}, ConfigError, "num_clients is -2"),
        ({"scheme": "dirichelt"}, ConfigError, "scheme is 'dirichelt', expected one of iid, dirichlet"),
        ({"scheme": "dirichlet", "alpha": 0.0}, ConfigError, "alpha is 0.0"),
        ({"scheme": "dirichlet", "alpha": float("nan")}, ConfigError, "alpha is nan"),
        ({"seed": -1}, ConfigError, "seed is -1"),
    ],
)
def test_callers_from_python_are_told_what_is_wrong(
    wrong: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        partition(np.arange(40) % 4, **{"num_clients": 2, **wrong})


@pytest.mark.parametrize(
    ("num_samples", "share", "seed", "error"),
    [
        (2, 0.1, 0, PartitionError),
        (0, 0.1, 0, PartitionError),
        (9, 0.0, 0, ConfigError),
        (9, 1.0, 0, ConfigError),
        (9, float("nan"), 0, ConfigError),
        (9, 0.1, -1, ConfigError),
    ],
)
def test_what_cannot_be_held_out(num_samples: int, share: float, seed: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        hold_out(num_samples, share, seed=seed)

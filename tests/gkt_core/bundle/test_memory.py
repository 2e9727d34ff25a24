"""Memory by estimate: what fits, what follows from it, and what is refused with the numbers."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gkt_core.bundle.memory import LEAST_BATCH, TRAINER, MemoryNeed, MemoryPlan, images_at_once
from gkt_core.errors import ConfigError, GKTError
from gkt_core.wire.protocol import from_dict

NUMBERS = st.integers(0, 10**10)
NEEDS = st.builds(MemoryNeed, NUMBERS, st.integers(1, 10**9), NUMBERS, st.integers(0, 64), NUMBERS)
# A device of 100 MB and 10 MB an image; a trainer of 800 MB and 50 MB an image.
PLAN = MemoryPlan(
    {"portable": MemoryNeed(100_000_000, 10_000_000), TRAINER: MemoryNeed(800_000_000, 50_000_000)},
    "portable",
    device_limit_mb=300,
    trainer_limit_mb=4000,
)


@given(need=NEEDS, limit=NUMBERS, shard=st.integers(1, 500))
def test_the_largest_batch_fits_and_one_more_does_not(need: MemoryNeed, limit: int, shard: int) -> None:
    most = need.most_images(limit, shard)
    assert need.of(most, shard) <= limit < need.of(most + 1, shard)


def test_a_rest_of_one_image_and_what_is_extracted_count() -> None:
    need = MemoryNeed(1000, 10, extracted_bytes=7, extracted_at_once=4, sample_bytes=3)
    assert need.of(5, 1) == 1000 + 6 * 10 + 7 + 3
    assert need.of(5, 100) == 1000 + 6 * 10 + 4 * 7 + 100 * 3


def test_batches_are_the_usual_ones_where_they_fit() -> None:
    wanted = {"batch_size": 64, "server_batch_size": 64}
    assert PLAN.batch_sizes(wanted, 1) == {"batch_size": 19, "server_batch_size": 63}
    assert dataclasses.replace(PLAN, trainer_limit_mb=9000).batch_sizes(wanted, 1)["server_batch_size"] == 64


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"device_limit_mb": 129}, r"a device \(portable\) needs 130 MB .* --memory-limit-mb is 129:"),
        ({"trainer_limit_mb": 949}, r"the trainer needs 950 MB .* --trainer-memory-mb is 949:"),
    ],
)
def test_what_never_fits_is_refused_with_the_numbers(changes: dict[str, Any], said: str) -> None:
    enough: dict[str, Any] = {name: limit + 1 for name, limit in changes.items()}
    dataclasses.replace(PLAN, **enough).check(224)
    with pytest.raises(ConfigError, match=said) as caught:
        dataclasses.replace(PLAN, **changes).check(224)
    assert f"batches of {LEAST_BATCH} images of 224 px" in str(caught.value)


def test_it_is_said_in_words() -> None:
    assert PLAN.lines(224, 64) == [
        "memory by estimate, images of 224 px:",
        "  a device (portable): 300 MB with batches of 19, as 300 MB hold; 64 would take 750",
        "  the trainer: 4,000 MB with batches of 63, as 4,000 MB hold; 64 would take 4,050",
    ]
    assert PLAN.lines(224, 8)[1:] == [
        "  a device (portable): 190 MB with batches of 8",
        "  the trainer: 1,250 MB with batches of 8",
    ]


@pytest.mark.parametrize(
    ("limit_mb", "said"),
    [
        (
            1000,
            "batches of 3 train worse .* --model resnet8-stride2, the trainer has about 15; or allow it more",
        ),
        (870, "batches of 2 train worse .* --model resnet8-stride4, the trainer has about 21; or"),
        # Eight are enough; and where no stem helps, none is named.
        (1250, "^$"),
        (820, "^$"),
    ],
)
def test_a_strided_stem_is_named_where_batches_are_small(limit_mb: int, said: str) -> None:
    plan = dataclasses.replace(PLAN, trainer_limit_mb=limit_mb)
    assert re.search(said, plan.strided_hint("resnet8", 224))
    for network, size in (("resnet8", 96), ("resnet8-stride2", 224), ("resnet8-16x8x8", 224), ("own", 224)):
        assert plan.strided_hint(network, size) == ""


def test_a_manifest_holds_it_whole() -> None:
    assert from_dict(MemoryPlan, dataclasses.asdict(PLAN)) == PLAN


@pytest.mark.parametrize(
    "changes",
    [
        {"engine": "trainers"},
        {"device_limit_mb": -1},
        {"trainer_limit_mb": 2**60},
        {"needs": {"portable": {"fixed_bytes": -5, "image_bytes": 1}}},
        {"needs": {"portable": {"fixed_bytes": 1.5, "image_bytes": 1}}},
        {"needs": {"portable": {"fixed_bytes": 1}}},
        {"needs": []},
        {"needs": None},
    ],
)
def test_a_manifest_that_tells_nonsense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(GKTError):
        from_dict(MemoryPlan, dataclasses.asdict(PLAN) | changes)


def test_so_many_pixels_are_passed_forward_at_once() -> None:
    assert [images_at_once(size) for size in (8, 32, 64, 96, 224, 256)] == [1024, 64, 16, 7, 1, 1]

"""Samples that the teacher has not seen yet train without it, all others with their own soft label."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from gkt_core.config.run_config import RunConfig
from gkt_core.data.private_data import PrivateData, Samples
from gkt_core.errors import ShardError
from gkt_core.rounds.client_part import ClientPart
from gkt_core.rounds.client_round import TrainingBatch, client_batches
from gkt_core.wire.shards import SoftLabels

SIZE, CLASSES, NUM, LATE = 4, 3, 40, 9
CONFIG = RunConfig(local_epochs=2, batch_size=8, crop_padding=0, horizontal_flip=False)


def part_of(first_rounds: NDArray[np.int64] | None) -> ClientPart:
    """Pixels say which sample it is, and so do labels in part."""
    images = np.repeat(np.arange(NUM, dtype=np.uint8), SIZE * SIZE * 3).reshape(NUM, SIZE, SIZE, 3)
    samples = Samples(images, np.arange(NUM) % CLASSES, 100 + np.arange(NUM))
    data = PrivateData(samples, samples, ("a", "b", "c"))
    return ClientPart("client-a", data, CONFIG, CLASSES, first_rounds=first_rounds)


def teacher(ids: NDArray[np.int64]) -> SoftLabels:
    return SoftLabels(ids, np.repeat(ids[:, None], CLASSES, axis=1).astype(np.float32))


def numbers(batch: TrainingBatch) -> NDArray[np.int64]:
    return np.rint(batch.images[:, 0, 0, 0] * 255).astype(np.int64)


def late(num: int = LATE) -> NDArray[np.int64]:
    """They came in round 3; spread over the ids."""
    first_rounds = np.ones(NUM, np.int64)
    first_rounds[:: NUM // num][:num] = 3
    return first_rounds


def test_who_has_a_teacher_gets_its_own_and_everybody_is_trained_on_once_an_epoch() -> None:
    first_rounds = late()
    known = 100 + np.flatnonzero(first_rounds == 1)
    made = list(client_batches(part_of(first_rounds), teacher(known), 3))
    assert len(made) == 2 * NUM // CONFIG.batch_size
    for epoch in (made[: len(made) // 2], made[len(made) // 2 :]):
        assert sorted(np.concatenate([numbers(batch) for batch in epoch])) == list(range(NUM))
        taught = [batch for batch in epoch if batch.alpha]
        assert all(batch.alpha == CONFIG.alpha for batch in taught)
        for batch in taught:
            assert (batch.server_logits[:, 0] == 100 + numbers(batch)).all()
            assert (first_rounds[numbers(batch)] == 1).all()
        untaught = np.concatenate([numbers(batch) for batch in epoch if not batch.alpha])
        assert set(np.flatnonzero(first_rounds == 3)) <= set(untaught)
        # Those that could have a teacher and have none are fewer than a batch.
        assert len(untaught) - LATE < CONFIG.batch_size
        assert not any(batch.server_logits.any() for batch in epoch if not batch.alpha)
    assert [batch.alpha for batch in made[:5]] != sorted(batch.alpha for batch in made[:5])


def test_a_round_later_all_have_one() -> None:
    soft_labels = teacher(100 + np.arange(NUM))
    made = list(client_batches(part_of(late()), soft_labels, 4))
    assert all(batch.alpha == CONFIG.alpha for batch in made)
    # And the batches are those of a device whose data never changed.
    plain = list(client_batches(part_of(None), soft_labels, 4))
    assert all((one.images == other.images).all() for one, other in zip(made, plain, strict=True))


def test_a_sample_that_should_have_a_soft_label_is_still_an_error() -> None:
    first_rounds = late()
    known = 100 + np.flatnonzero(first_rounds == 1)[1:]
    with pytest.raises(ShardError, match="no soft labels came for 1 samples"):
        list(client_batches(part_of(first_rounds), teacher(known), 3))


@pytest.mark.parametrize("num", [1, NUM])
def test_one_alone_and_all_together(num: int) -> None:
    first_rounds = late(num)
    known = 100 + np.flatnonzero(first_rounds == 1)
    made = list(client_batches(part_of(first_rounds), teacher(known), 3))
    assert min(len(batch.labels) for batch in made) >= 2, "a batch of one has no statistics"
    assert sum(not batch.alpha for batch in made) == (2 if num == 1 else len(made))


def test_the_place_in_a_round_is_the_same_in_every_process() -> None:
    first_rounds, known = late(), 100 + np.flatnonzero(late() == 1)
    whole = list(client_batches(part_of(first_rounds), teacher(known), 3))
    rest = list(client_batches(part_of(first_rounds), teacher(known), 3, skip=4))
    for one, other in zip(whole[4:], rest, strict=True):
        assert all(
            np.array_equal(getattr(one, each.name), getattr(other, each.name))
            for each in dataclasses.fields(one)
        )
